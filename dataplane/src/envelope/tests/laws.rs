//! Laws, against serde_json: what the scan finds is what a parser sees, an
//! edited text is the text of the edited value, and both call the same texts JSON.

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::value::RawValue;

use super::{
    super::{json::Reader, *},
    model::{get, integer, literal, message, parse, spelled, value},
};

type Field = (&'static [&'static str], fn(&Message) -> Option<Span>);

const META_PREFIX: &str = "io.modelcontextprotocol/";

/// Where each span must lie; strings and tokens that are null count as absent.
const FIELDS: &[Field] = &[
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
    (&["params", "_meta", "progressToken"], |m| m.progress_token),
    (&["params", "_meta", "protocolVersion"], |m| {
        m.protocol_version
    }),
    (&["params", "_meta", "clientInfo"], |m| m.client_info),
    (&["params", "_meta", "clientCapabilities"], |m| {
        m.client_capabilities
    }),
    (&["params", "_meta", "logLevel"], |m| m.log_level),
    (&["params", "protocolVersion"], |m| m.init_protocol_version),
    (&["params", "capabilities"], |m| m.init_capabilities),
    (&["params", "clientInfo"], |m| m.init_client_info),
    (&["result"], |m| m.result),
    (&["result", "resultType"], |m| m.result_type),
    (&["error"], |m| m.error),
    (&["error", "code"], |m| m.error_code),
];

const NULL_IS_ABSENT: &[&str] = &["id", "name", "uri", "type", "requestId", "progressToken"];

/// The text at a field's path, by serde_json.
fn expected(src: &str, path: &[&str]) -> Option<String> {
    let mut path = path.to_vec();
    let long;
    if let ["params", "_meta", last] = path[..]
        && last != "progressToken"
    {
        long = format!("{META_PREFIX}{last}");
        path[2] = &long;
    }
    let last = path[path.len() - 1];
    get(src, &path).filter(|text| text != "null" || !NULL_IS_ABSENT.contains(&last))
}

fn text_of(src: &str, span: Option<Span>) -> Option<String> {
    span.map(|s| src[s.range()].to_owned())
}

/// Everything found is what a parser finds.
fn same_members(src: &str, found: &Message) -> Result<(), TestCaseError> {
    for (path, field) in FIELDS {
        prop_assert_eq!(
            text_of(src, field(found)),
            expected(src, path),
            "{:?} in {}",
            path,
            src
        );
    }
    let method = text_of(src, found.method).map(|m| format!("\"{m}\""));
    prop_assert_eq!(method, get(src, &["method"]));
    let side = if found.method.is_some() {
        "params"
    } else {
        "result"
    };
    prop_assert_eq!(text_of(src, found.meta), get(src, &[side, "_meta"]));
    prop_assert_eq!(
        text_of(src, found.request_state),
        get(src, &[side, "requestState"])
    );
    let kind = match (found.method, found.id, found.result) {
        (Some(_), Some(_), _) => Kind::Request,
        (Some(_), None, _) => Kind::Notification,
        (None, _, Some(_)) => Kind::Response,
        (None, _, None) => Kind::Error,
    };
    prop_assert_eq!(found.kind, kind);
    Ok(())
}

/// The objects of a message whose keys must be unique.
fn levels(found: &Message, len: usize) -> Vec<Span> {
    let all = [
        found.params,
        found.meta,
        found.reference,
        found.result,
        found.error,
    ];
    std::iter::once(Span::new(0, len))
        .chain(all.into_iter().flatten())
        .collect()
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

/// Changes of a text at the byte level, of the kinds that upset parsers.
fn mutate(src: &str, changes: &[(Index, u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = src.as_bytes().to_vec();
    for (place, action, with) in changes {
        let at = place.index(bytes.len() + 1);
        let end = match action {
            0 => at,
            1 => (at + 1).min(bytes.len()),
            _ => (at + usize::from(*action)).min(bytes.len()),
        };
        bytes.splice(at..end, with.iter().copied());
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(Index, u8, Vec<u8>)>> {
    let byte = prop_oneof![
        4 => proptest::sample::select(&b"\"\\{}[]:,0123456789-+.eEtrufalsn \t\r\n\x00\x1f\x7f"[..]),
        1 => any::<u8>(),
    ];
    vec((any::<Index>(), 0u8..5, vec(byte, 0..3)), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn the_scan_finds_what_a_parser_finds(src in message()) {
        let found = scan(src.as_bytes());
        prop_assert!(found.is_ok(), "{src}: {found:?}");
        same_members(&src, &found.unwrap())?;
    }

    #[test]
    fn an_edited_text_is_the_text_of_the_edited_value(
        src in message(),
        name in literal(false),
        id in integer(),
        token in literal(false),
    ) {
        let found = scan(src.as_bytes()).unwrap();
        let edited = [(found.progress_token, token), (found.id, id), (found.name, name)];
        let mut edits: Vec<_> = edited
            .iter()
            .filter_map(|(span, text)| Some(Edit::replace((*span)?, text.as_bytes())))
            .collect();
        let out = splice(src.as_bytes(), &mut edits).unwrap();
        let out = std::str::from_utf8(&out).unwrap();

        // The rest byte by byte ...
        let mut spans: Vec<_> = edited.iter().filter_map(|(s, t)| Some(((*s)?, t))).collect();
        spans.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
        let mut same = src.clone();
        for (span, text) in spans {
            same.replace_range(span.range(), text);
        }
        prop_assert_eq!(out, &same);

        // ... and the members as a parser sees them.
        let after = scan(out.as_bytes()).unwrap();
        same_members(out, &after)?;
        for (path, field) in FIELDS {
            let inside = |s: Span| edited.iter().flat_map(|(e, _)| e).any(|e| s.start <= e.start && e.end <= s.end);
            let new = edited.iter().find(|(span, _)| span.is_some() && *span == field(&found));
            match new {
                Some((_, text)) => prop_assert_eq!(&expected(out, path), &Some(text.clone())),
                None if field(&found).is_some_and(inside) => {}
                None => prop_assert_eq!(expected(out, path), expected(&src, path)),
            }
        }
    }

    #[test]
    fn an_inserted_member_is_one_more_member(
        src in message(),
        place in any::<Index>(),
        values in vec(value(), 1..3),
    ) {
        let found = scan(src.as_bytes()).unwrap();
        let objects: Vec<_> = levels(&found, src.len())
            .into_iter()
            .filter(|s| src[s.range()].starts_with('{'))
            .collect();
        prop_assume!(!objects.is_empty());
        let object = objects[place.index(objects.len())];
        let added: Vec<_> = values.iter().enumerate().map(|(i, v)| format!("\"new {i}\":{v}")).collect();
        let mut edits: Vec<_> = added
            .iter()
            .map(|m| insert_member(src.as_bytes(), object, m.as_bytes()))
            .collect();
        let out = splice(src.as_bytes(), &mut edits).unwrap();
        let grown = object.len() + out.len() - src.len();
        let after = std::str::from_utf8(&out[object.start as usize..][..grown]).unwrap();
        let mut want: Vec<_> = values.iter().enumerate().map(|(i, v)| (format!("new {i}"), v.clone())).collect();
        want.extend(parse(&src[object.range()]));
        prop_assert_eq!(parse(after), want);
        prop_assert!(scan(&out).is_ok());
    }

    #[test]
    fn a_repeated_key_is_refused_at_every_level(
        src in message(),
        level in any::<Index>(),
        member in any::<Index>(),
        flags in any::<bool>(),
    ) {
        let src = src.trim();
        let found = scan(src.as_bytes()).unwrap();
        let objects: Vec<_> = levels(&found, src.len())
            .into_iter()
            .map(|s| (s, parse(&src[s.range()])))
            .filter(|(_, members)| !members.is_empty())
            .collect();
        let (object, members) = &objects[level.index(objects.len())];
        let (key, value) = &members[member.index(members.len())];
        let key = match flags {
            true => String::from_utf8(quote(key)).unwrap(),
            false => {
                let units = key.encode_utf16().map(|u| format!("\\u{u:04x}"));
                format!("\"{}\"", units.collect::<String>())
            }
        };
        let again = format!("{key}:{value}");
        let mut edits = [insert_member(src.as_bytes(), *object, again.as_bytes())];
        let out = splice(src.as_bytes(), &mut edits).unwrap();
        let error = scan(&out).unwrap_err();
        // An escaped method is refused before it is seen again.
        let fine = match &error {
            ScanError::DuplicateKey { .. } => true,
            ScanError::BadMember { key, .. } => *key == "method",
            _ => false,
        };
        prop_assert!(fine, "{:?}", error);
    }

    #[test]
    fn broken_messages_are_broken_for_both(src in message(), changes in changes()) {
        let bytes = mutate(&src, &changes);
        match scan(&bytes) {
            Ok(found) => {
                prop_assert!(is_json(&bytes));
                let text = std::str::from_utf8(&bytes).unwrap();
                same_members(text, &found)?;
            }
            Err(ScanError::NotJson { .. } | ScanError::NotUtf8 { .. }) => {
                prop_assert!(!is_json(&bytes), "{}", String::from_utf8_lossy(&bytes));
            }
            Err(_) => {}
        }
    }

    #[test]
    fn the_reader_takes_what_serde_json_takes(src in value(), changes in vec(changes(), 0..2)) {
        let bytes = mutate(&src, &changes.concat());
        let mut json = Reader::new(&bytes);
        json.next_token();
        let ours = json.skip(0).and_then(|()| json.end());
        prop_assert_eq!(ours.is_ok() && std::str::from_utf8(&bytes).is_ok(), is_json(&bytes), "{:?}", ours);
    }

    #[test]
    fn strings_are_read_as_serde_json_reads_them(src in literal(true), text in any::<String>()) {
        let ours = string_value(src.as_bytes(), Span::new(0, src.len()));
        prop_assert_eq!(ours.map(String::from), serde_json::from_str::<String>(&src).ok());
        let quoted = quote(&text);
        prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), text);
    }

    #[test]
    fn a_key_counts_however_it_is_spelled(key in spelled("progressToken")) {
        let src = format!(r#"{{"jsonrpc":"2.0","method":"a","params":{{{key}:5}}}}"#);
        let found = scan(src.as_bytes()).unwrap();
        prop_assert_eq!(text_of(&src, found.params_progress_token).unwrap(), "5");
    }

    #[test]
    fn walking_gives_what_a_parser_gives(src in value()) {
        let whole = Span::new(0, src.len());
        let text = |span: Span| src[span.range()].to_owned();
        let ours: Result<Vec<_>, _> = members(src.as_bytes(), whole)
            .map(|m| m.map(|(key, value)| (key.into_owned(), text(value))))
            .collect();
        if let Ok(serde) = serde_json::from_str::<super::model::Members>(&src) {
            prop_assert_eq!(ours.unwrap(), serde.0);
        }
        let ours: Result<Vec<_>, _> = elements(src.as_bytes(), whole).map(|e| e.map(text)).collect();
        let serde = serde_json::from_str::<Vec<Box<RawValue>>>(&src);
        prop_assert_eq!(ours.ok(), serde.ok().map(|all| all.iter().map(|v| v.get().to_owned()).collect()));
    }
}
