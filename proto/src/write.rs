//! Resources to files again: what reading them gives back the same resource.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use crate::{
    descriptor::{self, DURATION, JSON, enum_text},
    duration::Duration,
    read::tree::{Data, Mark, Name, Node},
    v1::Resource,
};

/// Longest key that is written in the usual way; YAML limits it to 1024.
const KEY_MAX: usize = 200;

/// Resources as the documents of one YAML file: `kind`, `name`, then the other
/// fields that are set, in the order of the configuration's reference.
#[must_use]
pub fn write_yaml<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> String {
    let mut text = String::new();
    for entries in resources.into_iter().filter_map(document) {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        block(&entries, 0, &mut text);
    }
    text
}

/// A resource as a JSON document with the fields of its YAML document; `null`
/// where it has no kind.
#[must_use]
pub fn to_json(resource: &Resource) -> serde_json::Value {
    document(resource).map_or(serde_json::Value::Null, |entries| json(&Data::Map(entries)))
}

fn document(resource: &Resource) -> Option<Vec<(Name, Node)>> {
    let mut whole = DynamicMessage::new(descriptor::message("Resource"));
    whole
        .transcode_from(resource)
        .expect("made from the same descriptors");
    let (field, value) = whole.fields().next()?;
    let kind = field.kind().as_message()?.name().to_owned();
    let mut entries = vec![(name("kind"), text(kind))];
    entries.extend(fields(value.as_message()?));
    Some(entries)
}

fn fields(message: &DynamicMessage) -> Vec<(Name, Node)> {
    let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
    let set = fields.iter().filter(|field| message.has_field(field));
    set.map(|field| {
        (
            name(field.name()),
            value(&field.kind(), &message.get_field(field)),
        )
    })
    .collect()
}

fn value(kind: &Kind, value_: &Value) -> Node {
    match value_ {
        Value::String(s) => text(s.clone()),
        Value::Bool(b) => plain(b),
        Value::I32(n) => plain(n),
        Value::I64(n) => plain(n),
        Value::U32(n) => plain(n),
        Value::U64(n) => plain(n),
        Value::F32(n) => plain(n),
        Value::F64(n) => plain(n),
        Value::Bytes(bytes) => text(hex::encode(bytes)),
        Value::EnumNumber(number) => match kind.as_enum().and_then(|e| e.get_value(*number)) {
            Some(known) => text(enum_text(known.parent_enum().name(), known.name())),
            None => plain(number),
        },
        Value::List(items) => node(Data::List(
            items.iter().map(|item| value(kind, item)).collect(),
        )),
        Value::Map(map) => {
            let value_kind = kind
                .as_message()
                .map(|pair| pair.map_entry_value_field().kind());
            let value_kind = value_kind.unwrap_or(Kind::String);
            let mut entries: Vec<_> = map
                .iter()
                .map(|(key, item)| (name(&map_key(key)), value(&value_kind, item)))
                .collect();
            entries.sort_by(|a, b| a.0.text.cmp(&b.0.text));
            node(Data::Map(entries))
        }
        Value::Message(message) => self::message(message),
    }
}

fn message(message: &DynamicMessage) -> Node {
    match message.descriptor().full_name() {
        DURATION => {
            let millis = message
                .get_field_by_name("millis")
                .and_then(|v| v.as_u64())
                .unwrap_or(0);
            text(Duration::from_millis(millis).to_string())
        }
        JSON => {
            let source = message
                .get_field_by_name("text")
                .and_then(|v| v.as_str().map(str::to_owned));
            plain(&source.unwrap_or_else(|| "null".to_owned()))
        }
        _ => node(Data::Map(fields(message))),
    }
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(b) => b.to_string(),
        MapKey::I32(n) => n.to_string(),
        MapKey::I64(n) => n.to_string(),
        MapKey::U32(n) => n.to_string(),
        MapKey::U64(n) => n.to_string(),
        MapKey::String(s) => s.clone(),
    }
}

const START: Mark = Mark { line: 1, column: 1 };

fn node(data: Data) -> Node {
    Node { mark: START, data }
}

fn name(text: &str) -> Name {
    Name {
        mark: START,
        text: text.to_owned(),
    }
}

fn text(text: String) -> Node {
    node(Data::Scalar { text, plain: false })
}

/// A scalar whose text is JSON and so YAML as well.
fn plain(value: &impl ToString) -> Node {
    node(Data::Scalar {
        text: value.to_string(),
        plain: true,
    })
}

fn json(data: &Data) -> serde_json::Value {
    match data {
        Data::Scalar { text, plain: true } => {
            serde_json::from_str(text).unwrap_or(serde_json::Value::Null)
        }
        Data::Scalar { text, .. } => text.as_str().into(),
        Data::List(items) => items.iter().map(|item| json(&item.data)).collect(),
        Data::Map(entries) => entries
            .iter()
            .map(|(name, item)| (name.text.clone(), json(&item.data)))
            .collect(),
    }
}

/// Writes the entries of a mapping, each on a line of its own.
fn block(entries: &[(Name, Node)], indent: usize, out: &mut String) {
    for (name, node) in entries {
        pad(indent, out);
        let key = scalar(&name.text);
        if key.len() > KEY_MAX {
            out.push_str(&format!("? {key}\n"));
            pad(indent, out);
        } else {
            out.push_str(&key);
        }
        out.push(':');
        after(&node.data, indent, out);
    }
}

/// Writes a value after the `:` or the `-` before it.
fn after(data: &Data, indent: usize, out: &mut String) {
    match data {
        Data::Scalar { text, plain: true } => out.push_str(&format!(" {text}\n")),
        Data::Scalar { text, .. } => out.push_str(&format!(" {}\n", scalar(text))),
        Data::List(items) if items.is_empty() => out.push_str(" []\n"),
        Data::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Data::List(items) => {
            out.push('\n');
            for item in items {
                pad(indent + 1, out);
                out.push('-');
                after(&item.data, indent + 1, out);
            }
        }
        Data::Map(entries) => {
            out.push('\n');
            block(entries, indent + 1, out);
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", indent));
}

/// A text as YAML reads it back as a text: without quotes only where no reader
/// of YAML takes it for something else.
fn scalar(text: &str) -> String {
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-./:@+=".contains(c))
        && !text.ends_with(':')
        && !words.contains(&text.to_ascii_lowercase().as_str());
    if plain || text.parse::<Duration>().is_ok() {
        text.to_owned()
    } else {
        quoted(text)
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Not printable in YAML (1.2.2, 5.1), or taken for a line break by some.
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => escape(c, &mut out),
            c if c.is_control() => escape(c, &mut out),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn escape(c: char, out: &mut String) {
    out.push_str(&format!("\\u{:04X}", u32::from(c)));
}
