//! Arbitrary JSON-RPC as text, and serde_json's view of it to compare with.

use std::{collections::HashSet, fmt};

use proptest::{collection::vec, prelude::*};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::keys::folds_to;

/// An object's members in order, repeated ones too, values as written.
pub(super) struct Members(pub(super) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.push((key, value.get().to_owned()));
                }
                Ok(Members(members))
            }
        }
        d.deserialize_map(All)
    }
}

/// The members of an object; none for anything else.
pub(super) fn parse(src: &str) -> Vec<(String, String)> {
    serde_json::from_str::<Members>(src).map_or_else(|_| Vec::new(), |m| m.0)
}

/// The source text of the value at `path`.
pub(super) fn get(src: &str, path: &[&str]) -> Option<String> {
    let Some((first, rest)) = path.split_first() else {
        return Some(src.to_owned());
    };
    let (_, value) = parse(src).into_iter().find(|(key, _)| key == first)?;
    get(&value, rest)
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

fn number() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?"
}

pub(super) fn integer() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,30})"
}

/// A string literal; lone surrogates and NULs only where `wild`.
pub(super) fn literal(wild: bool) -> BoxedStrategy<String> {
    let plain = any::<char>().prop_map(|c| match c {
        '"' | '\\' => "q".to_owned(),
        c if u32::from(c) < 0x20 => "c".to_owned(),
        c => c.to_string(),
    });
    let short = r#"\\["\\/bfnrt]"#;
    let unit = (1u32..0xd800).prop_map(|c| format!("\\u{c:04x}"));
    let pair = any::<char>().prop_map(|c| {
        let mut units = [0; 2];
        let units = c.encode_utf16(&mut units).iter();
        units.map(|u| format!("\\u{:04X}", (*u).max(1))).collect()
    });
    let odd = prop_oneof![Just("\\u0000".to_owned()), "\\\\u[dD][89a-fA-F][0-9a-f]{2}"];
    let odd = odd.prop_map(move |text| if wild { text } else { String::new() });
    let run = "[ -!#-\\[\\]-~]{0,90}";
    let piece = prop_oneof![6 => plain, 2 => run, 2 => short, 1 => unit, 1 => pair, 1 => odd];
    vec(piece, 0..6)
        .prop_map(|pieces| format!("\"{}\"", pieces.concat()))
        .boxed()
}

/// `text` as a literal, some characters escaped.
pub(super) fn spelled(text: &'static str) -> impl Strategy<Value = String> {
    let flags = prop_oneof![2 => Just(0u64), 1 => any::<u64>()];
    flags.prop_map(move |flags| {
        let spell = |(i, c): (usize, char)| match flags >> (i % 64) & 1 {
            1 => format!("\\u{:04x}", u32::from(c)),
            _ => c.to_string(),
        };
        let text: String = text.chars().enumerate().map(spell).collect();
        format!("\"{text}\"")
    })
}

fn array(items: Vec<(String, String)>) -> String {
    let items: Vec<_> = items.iter().map(|(s, v)| format!("{s}{v}{s}")).collect();
    format!("[{}]", items.join(","))
}

/// Members of (key literal, value, white space).
fn object(members: &[(String, String, String)]) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|(k, v, s)| format!("{s}{k}{s}:{s}{v}{s}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// Any JSON value.
pub(super) fn value() -> BoxedStrategy<String> {
    let word = prop_oneof![
        Just("null"),
        Just("true"),
        Just("false"),
        Just("{}"),
        Just("[ ]")
    ];
    let leaf = prop_oneof![2 => number(), 3 => literal(true), 1 => word.prop_map(str::to_owned)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec((space(), inner.clone()), 0..4).prop_map(array),
            vec((literal(true), inner, space()), 0..4).prop_map(|m| object(&m)),
        ]
    })
    .boxed()
}

type Known = (&'static str, f64, BoxedStrategy<String>);

/// An object with these members (each with its probability), and some that
/// nobody knows, in any order.
fn object_of(known: Vec<Known>) -> BoxedStrategy<String> {
    let names: Vec<_> = known.iter().map(|(name, ..)| *name).collect();
    let known: Vec<_> = known
        .into_iter()
        .map(|(name, weight, value)| {
            let member = (spelled(name), value, space());
            if weight < 1.0 {
                prop::option::weighted(weight, member).boxed()
            } else {
                member.prop_map(Some).boxed()
            }
        })
        .collect();
    let extra = vec((literal(false), value(), space()), 0..4);
    (known, extra)
        .prop_map(move |(known, extra)| {
            let mut seen = HashSet::new();
            let new = |(key, ..): &(String, String, String)| {
                let key: String = serde_json::from_str(key).unwrap();
                let like = |name: &&str| folds_to(key.as_bytes(), name.as_bytes());
                !names.iter().any(like) && seen.insert(key)
            };
            let mut all: Vec<_> = known.into_iter().flatten().collect();
            all.extend(extra.into_iter().filter(new));
            all
        })
        .prop_shuffle()
        .prop_map(|members| object(&members))
        .boxed()
}

fn token() -> BoxedStrategy<String> {
    prop_oneof![integer(), literal(false)].boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![6 => literal(false), 1 => Just("null".to_owned())].boxed()
}

fn params() -> BoxedStrategy<String> {
    let meta = object_of(vec![
        ("progressToken", 0.5, token()),
        (
            "io.modelcontextprotocol/protocolVersion",
            0.5,
            literal(false),
        ),
        ("io.modelcontextprotocol/clientInfo", 0.5, value()),
        ("io.modelcontextprotocol/clientCapabilities", 0.5, value()),
        ("io.modelcontextprotocol/logLevel", 0.3, value()),
    ]);
    let reference = object_of(vec![
        ("type", 0.9, text()),
        ("name", 0.5, text()),
        ("uri", 0.5, text()),
    ]);
    object_of(vec![
        ("name", 0.8, text()),
        ("uri", 0.3, text()),
        ("arguments", 0.7, value()),
        ("cursor", 0.2, value()),
        ("level", 0.2, value()),
        ("ref", 0.3, reference),
        ("requestState", 0.3, value()),
        ("inputResponses", 0.2, value()),
        ("requestId", 0.2, token()),
        ("progressToken", 0.2, token()),
        ("protocolVersion", 0.2, value()),
        ("capabilities", 0.2, value()),
        ("clientInfo", 0.2, value()),
        ("_meta", 0.6, meta),
    ])
}

/// Any message that must be accepted.
pub(super) fn message() -> BoxedStrategy<String> {
    let version = || ("jsonrpc", 1.0, Just("\"2.0\"".to_owned()).boxed());
    let method = "\"[a-z]{1,9}/[a-z_]{1,9}\"";
    let call = object_of(vec![
        version(),
        ("id", 0.8, token()),
        ("method", 1.0, method.boxed()),
        ("params", 0.9, params()),
    ]);
    let result = object_of(vec![
        ("resultType", 0.5, value()),
        ("requestState", 0.5, value()),
        ("_meta", 0.5, object_of(vec![])),
    ]);
    let answer = object_of(vec![
        version(),
        ("id", 1.0, token()),
        (
            "result",
            1.0,
            prop_oneof![3 => result, 1 => scalar()].boxed(),
        ),
    ]);
    let error = object_of(vec![("code", 0.9, value())]);
    let failure = object_of(vec![
        version(),
        (
            "id",
            0.8,
            prop_oneof![4 => token(), 1 => Just("null".to_owned())].boxed(),
        ),
        ("error", 1.0, prop_oneof![3 => error, 1 => scalar()].boxed()),
    ]);
    (prop_oneof![4 => call, 2 => answer, 1 => failure], space())
        .prop_map(|(text, space)| format!("{space}{text}{space}"))
        .boxed()
}

/// A value that is no object.
fn scalar() -> BoxedStrategy<String> {
    prop_oneof![
        number(),
        literal(true),
        vec((space(), value()), 0..4).prop_map(array)
    ]
    .boxed()
}
