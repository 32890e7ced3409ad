//! The text of a scalar to a value of a field's type.

use std::str::FromStr;

use prost_reflect::{Kind, Value};

use super::tree::{Data, Node};
use crate::{
    descriptor::{DURATION, enum_text},
    nearest::nearest,
};

/// Reads a scalar that is not null. `plain`: written without quotes.
pub(super) fn read(kind: &Kind, text: &str, plain: bool) -> Result<Value, String> {
    match kind {
        // A number or true is its source text: 1.10 stays 1.10.
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Bool => match text {
            "true" if plain => Ok(Value::Bool(true)),
            "false" if plain => Ok(Value::Bool(false)),
            _ if plain => Err(format!("{text:?} must be true or false")),
            _ => Err(format!("{text:?} must be true or false, without quotes")),
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => number(kind, text, plain).map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => number(kind, text, plain).map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => number(kind, text, plain).map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => number(kind, text, plain).map(Value::U64),
        Kind::Double => number::<f64>(kind, text, plain)
            .and_then(finite)
            .map(Value::F64),
        Kind::Float => number::<f32>(kind, text, plain)
            .and_then(|n| finite(n.into()).map(|_| n))
            .map(Value::F32),
        Kind::Enum(desc) => {
            let known: Vec<_> = desc
                .values()
                .filter(|value| value.number() != 0)
                .map(|value| (enum_text(desc.name(), value.name()), value.number()))
                .collect();
            if let Some((_, number)) = known.iter().find(|(name, _)| name == text) {
                return Ok(Value::EnumNumber(*number));
            }
            let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
            let near = nearest(text, names.iter().copied());
            let hint = near.map_or_else(
                || format!("write {}", names.join(" or ")),
                |n| format!("did you mean `{n}`?"),
            );
            Err(format!("{text:?} is not a known value: {hint}"))
        }
        Kind::Bytes => hex::decode(text)
            .map(|b| Value::Bytes(b.into()))
            .map_err(|_| format!("{text:?} must be hex digits")),
        Kind::Message(_) => Err(format!("must be {}", describe(kind))),
    }
}

fn number<T: FromStr>(kind: &Kind, text: &str, plain: bool) -> Result<T, String> {
    // Rust reads `+5`, `inf` and `NaN`; files do not.
    let good = plain && text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let quotes = if plain { "" } else { ", without quotes" };
    text.parse()
        .ok()
        .filter(|_| good)
        .ok_or_else(|| format!("{text:?} must be {}{quotes}", describe(kind)))
}

fn finite(number: f64) -> Result<f64, String> {
    if number.is_finite() {
        Ok(number)
    } else {
        Err("is too large a number".to_owned())
    }
}

/// What a value of a kind is called.
pub(super) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::String => "a text".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Double | Kind::Float => "a number".to_owned(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            format!("a whole number from {} to {}", i32::MIN, i32::MAX)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            format!("a whole number from {} to {}", i64::MIN, i64::MAX)
        }
        Kind::Uint32 | Kind::Fixed32 => format!("a whole number from 0 to {}", u32::MAX),
        Kind::Uint64 | Kind::Fixed64 => format!("a whole number from 0 to {}", u64::MAX),
        Kind::Enum(desc) => {
            let names = desc.values().filter(|v| v.number() != 0);
            names
                .map(|v| enum_text(desc.name(), v.name()))
                .collect::<Vec<_>>()
                .join(" or ")
        }
        Kind::Bytes => "hex digits".to_owned(),
        Kind::Message(desc) if desc.full_name() == DURATION => {
            "a duration, such as 500ms, 30s or 1m30s".to_owned()
        }
        Kind::Message(desc) => {
            let names: Vec<_> = desc.fields().map(|field| field.name().to_owned()).collect();
            format!("a mapping with the fields {}", names.join(", "))
        }
    }
}

/// The JSON text of any value. Plain scalars that JSON knows stay as written.
pub(super) fn json(node: &Node) -> String {
    match &node.data {
        _ if node.is_null() => "null".to_owned(),
        Data::Scalar { text, plain: true } if is_json_literal(text) => text.clone(),
        Data::Scalar { text, .. } => quote(text),
        Data::List(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(",")),
        Data::Map(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|(name, node)| format!("{}:{}", quote(&name.text), json(node)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
    }
}

/// `true`, `false`, or a number in the notation of JSON (RFC 8259, 6).
fn is_json_literal(text: &str) -> bool {
    text == "true" || text == "false" || {
        let starts = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        starts && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
    }
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
