//! JSON-RPC messages ([`scan`] and [`splice`]): the scan takes only what serde_json takes, sees in it what serde_json
//! sees, and an edit changes what it is to change and nothing else.

use std::fmt;

use mcp_dataplane::envelope::{
    Edit, Kind, Message, ScanError, Span, elements, insert_member, members, quote, scan,
    scan_batch, splice, string_value,
};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

type Field = (&'static [&'static str], fn(&Message) -> Option<Span>);

/// Where each span must lie.
const FIELDS: [Field; 26] = [
    (&["id"], |m| m.id),
    (&["params"], |m| m.params),
    (&["params", "name"], |m| m.name),
    (&["params", "uri"], |m| m.uri),
    (&["params", "arguments"], |m| m.arguments),
    (&["params", "cursor"], |m| m.cursor),
    (&["params", "level"], |m| m.level),
    (&["params", "ref"], |m| m.reference),
    (&["params", "ref", "type"], |m| m.ref_type),
    (&["params", "ref", "name"], |m| m.ref_name),
    (&["params", "ref", "uri"], |m| m.ref_uri),
    (&["params", "inputResponses"], |m| m.input_responses),
    (&["params", "requestId"], |m| m.request_id),
    (&["params", "progressToken"], |m| m.params_progress_token),
    (&["params", "protocolVersion"], |m| m.init_protocol_version),
    (&["params", "capabilities"], |m| m.init_capabilities),
    (&["params", "clientInfo"], |m| m.init_client_info),
    (&["params", "_meta", "progressToken"], |m| m.progress_token),
    (
        &["params", "_meta", "io.modelcontextprotocol/protocolVersion"],
        |m| m.protocol_version,
    ),
    (
        &["params", "_meta", "io.modelcontextprotocol/clientInfo"],
        |m| m.client_info,
    ),
    (
        &[
            "params",
            "_meta",
            "io.modelcontextprotocol/clientCapabilities",
        ],
        |m| m.client_capabilities,
    ),
    (
        &["params", "_meta", "io.modelcontextprotocol/logLevel"],
        |m| m.log_level,
    ),
    (&["result"], |m| m.result),
    (&["result", "resultType"], |m| m.result_type),
    (&["error"], |m| m.error),
    (&["error", "code"], |m| m.error_code),
];

/// Strings and tokens: null counts as absent.
const NULL_IS_ABSENT: [&str; 6] = ["id", "name", "uri", "type", "requestId", "progressToken"];

/// The bytes as a message, as a batch, and as any value.
///
/// # Panics
/// A law is broken.
pub fn check(src: &[u8]) {
    let text = std::str::from_utf8(src).ok();
    let json = text.is_some_and(|text| serde_json::from_str::<&RawValue>(text).is_ok());
    match (scan(src), text) {
        (Ok(found), Some(text)) => {
            assert!(json, "no JSON to serde_json");
            same_members(text, &found);
            edited(text, &found);
            grown(text, &found);
        }
        (Ok(_), None) => panic!("not UTF-8"),
        (Err(ScanError::NotJson { .. } | ScanError::NotUtf8 { .. }), _) => {
            assert!(!json, "JSON to serde_json")
        }
        (Err(_), _) => {}
    }
    if let Ok(spans) = scan_batch(src) {
        let text = text.expect("a batch is UTF-8");
        let all: Vec<&RawValue> = serde_json::from_str(text).expect("a batch is JSON");
        let ours: Vec<_> = spans.iter().map(|span| &text[span.range()]).collect();
        assert_eq!(
            ours,
            all.iter().map(|value| value.get()).collect::<Vec<_>>()
        );
    }
    if let (Some(text), true) = (text, json) {
        walked(text);
    }
}

/// Everything found is what serde_json finds, and nothing is missed.
fn same_members(text: &str, found: &Message) {
    for (path, field) in FIELDS {
        assert_eq!(at(text, field(found)), seen(text, path), "{path:?}");
    }
    let method = at(text, found.method).map(|method| format!("\"{method}\""));
    assert_eq!(method.as_deref(), get(text, &["method"]));
    let side = if found.method.is_some() {
        "params"
    } else {
        "result"
    };
    assert_eq!(at(text, found.meta), get(text, &[side, "_meta"]));
    assert_eq!(
        at(text, found.request_state),
        get(text, &[side, "requestState"])
    );
    let kind = match (found.method, found.id, found.result) {
        (Some(_), Some(_), _) => Kind::Request,
        (Some(_), None, _) => Kind::Notification,
        (None, _, Some(_)) => Kind::Response,
        (None, _, None) => Kind::Error,
    };
    assert_eq!(found.kind, kind);
}

/// Id, name and progress token replaced: they are new, and the rest is as it was.
fn edited(text: &str, found: &Message) {
    let new = [
        (found.id, "71"),
        (found.name, r#""n\u0065w""#),
        (found.progress_token, "72"),
    ];
    let new: Vec<_> = new
        .into_iter()
        .filter_map(|(span, with)| Some((span?, with)))
        .collect();
    let mut edits: Vec<_> = new
        .iter()
        .map(|(span, with)| Edit::replace(*span, with.as_bytes()))
        .collect();
    let out = splice(text.as_bytes(), &mut edits).expect("what was found can be replaced");
    let out = std::str::from_utf8(&out).expect("texts in a text are a text");
    let after = scan(out.as_bytes()).expect("an edited message is a message");
    same_members(out, &after);
    for (path, field) in FIELDS {
        let was = field(found);
        let around = |span: Span| {
            new.iter()
                .any(|(edit, _)| span.start <= edit.start && edit.end <= span.end)
        };
        match new.iter().find(|(span, _)| Some(*span) == was) {
            Some((_, with)) => assert_eq!(at(out, field(&after)), Some(*with), "{path:?}"),
            None if was.is_some_and(around) => {}
            None => assert_eq!(at(out, field(&after)), at(text, was), "{path:?}"),
        }
    }
}

/// A member put into an object is its first, and the rest is as it was.
fn grown(text: &str, found: &Message) {
    for object in [found.params, found.meta, found.result]
        .into_iter()
        .flatten()
    {
        let inside = &text[object.range()];
        if !inside.starts_with('{') && inside != "null" {
            continue;
        }
        let mut edits = [insert_member(text.as_bytes(), object, br#""(new)":1"#)];
        let out = splice(text.as_bytes(), &mut edits).expect("an object takes a member");
        let out = std::str::from_utf8(&out).expect("texts in a text are a text");
        let after = &out[object.start as usize..][..object.len() + out.len() - text.len()];
        let mut want = vec![("(new)".to_owned(), "1")];
        want.extend(all_members(inside).into_iter().flatten());
        assert_eq!(all_members(after), Some(want));
    }
}

/// Members, items and strings of any JSON value.
fn walked(text: &str) {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    let (src, whole) = (text.as_bytes(), span(text.len()));
    if let Some(all) = all_members(text) {
        let ours = members(src, whole)
            .map(|m| m.map(|(key, value)| (key.into_owned(), &text[value.range()])));
        assert_eq!(ours.collect::<Result<Vec<_>, _>>().ok(), Some(all));
    }
    if let Ok(all) = serde_json::from_str::<Vec<&RawValue>>(text) {
        let ours = elements(src, whole).map(|item| item.map(|item| &text[item.range()]));
        let all: Vec<_> = all.iter().map(|item| item.get()).collect();
        assert_eq!(ours.collect::<Result<Vec<_>, _>>().ok(), Some(all));
    }
    if text.starts_with('"') {
        let string = serde_json::from_str::<String>(text).ok();
        assert_eq!(string_value(src, whole).map(String::from), string);
        if let Some(string) = string {
            assert_eq!(
                serde_json::from_slice::<String>(&quote(&string)).ok(),
                Some(string)
            );
        }
    }
}

fn span(len: usize) -> Span {
    let end = u32::try_from(len).expect("test inputs are small");
    Span { start: 0, end }
}

fn at(text: &str, span: Option<Span>) -> Option<&str> {
    span.map(|span| &text[span.range()])
}

/// What serde_json sees at the path of a field.
fn seen<'a>(text: &'a str, path: &[&str]) -> Option<&'a str> {
    let last = path.last()?;
    get(text, path).filter(|value| *value != "null" || !NULL_IS_ABSENT.contains(last))
}

fn get<'a>(text: &'a str, path: &[&str]) -> Option<&'a str> {
    let Some((first, rest)) = path.split_first() else {
        return Some(text);
    };
    let (_, value) = all_members(text)?
        .into_iter()
        .find(|(key, _)| key == first)?;
    get(value, rest)
}

/// The members of an object in order, repeated ones too; `None` for anything else, and for keys that are no text.
fn all_members(text: &str) -> Option<Vec<(String, &str)>> {
    serde_json::from_str::<All<'_>>(text).ok().map(|all| all.0)
}

struct All<'a>(Vec<(String, &'a str)>);

impl<'de> Deserialize<'de> for All<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = All<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    all.push((key, value.get()));
                }
                Ok(All(all))
            }
        }
        from.deserialize_map(Object)
    }
}
