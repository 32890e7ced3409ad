//! Located tree to message, checked field by field against the descriptors.
//!
//! A wrong field is reported and left out; the rest of the message is still made,
//! so that validation can go on with it.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::{
    scalar,
    tree::{Data, Mark, Name, Node},
};
use crate::{
    descriptor::{DURATION, JSON},
    duration::Duration,
    nearest::nearest,
    validate::entry,
};

/// Fields of which "none" means "all": an empty list must be meant, so it is refused.
const EMPTY_MEANS_ALL: [&str; 4] = ["backends", "backend_labels", "hosts", "origins"];

/// What is wrong at a place of a document.
#[derive(Clone, Debug)]
pub(super) struct Bad {
    /// Path of the field.
    pub(super) path: String,
    pub(super) mark: Mark,
    pub(super) message: String,
    /// Whether no field of that name exists.
    pub(super) unknown: bool,
}

/// Makes the message of one document.
#[derive(Default)]
pub(super) struct Builder {
    /// Where each field that is there is to be pointed at, by its path.
    pub(super) positions: HashMap<String, Mark>,
    pub(super) bad: Vec<Bad>,
}

impl Builder {
    /// The message of a mapping. `own` are keys that mean something to the caller.
    pub(super) fn message(
        &mut self,
        path: &str,
        desc: &MessageDescriptor,
        entries: &[(Name, Node)],
        own: &[&str],
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(desc.clone());
        let mut chosen: HashMap<String, String> = HashMap::new();
        for (name, node) in entries
            .iter()
            .filter(|(name, _)| !own.contains(&name.text.as_str()))
        {
            let at = join(path, &name.text);
            let Some(field) = desc.get_field_by_name(&name.text) else {
                self.unknown(path, desc, name, own);
                continue;
            };
            let is_scalar = matches!(node.data, Data::Scalar { .. });
            self.positions
                .insert(at.clone(), if is_scalar { node.mark } else { name.mark });
            if let Some(oneof) = field.containing_oneof()
                && let Some(other) = chosen.insert(oneof.name().to_owned(), name.text.clone())
            {
                self.bad(
                    &at,
                    name.mark,
                    format!("excludes `{other}`, which is set as well: remove one of them"),
                );
                continue;
            }
            if let Some(value) = self.field(&at, &field, node) {
                message.set_field(&field, value);
            }
        }
        message
    }

    fn bad(&mut self, path: &str, mark: Mark, message: impl Into<String>) {
        self.bad.push(Bad {
            path: path.to_owned(),
            mark,
            message: message.into(),
            unknown: false,
        });
    }

    fn unknown(&mut self, path: &str, desc: &MessageDescriptor, name: &Name, own: &[&str]) {
        let fields: Vec<_> = desc.fields().collect();
        let known: Vec<_> = own
            .iter()
            .copied()
            .chain(fields.iter().map(FieldDescriptor::name))
            .collect();
        let inside = fields.iter().find(|field| {
            field
                .kind()
                .as_message()
                .is_some_and(|m| !field.is_map() && m.get_field_by_name(&name.text).is_some())
        });
        let hint = if let Some(field) = inside {
            format!("it belongs inside `{}`", field.name())
        } else if let Some(near) = nearest(&name.text, known.iter().copied()) {
            format!("did you mean `{near}`?")
        } else {
            format!(
                "known here are {}",
                known
                    .iter()
                    .map(|k| format!("`{k}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        };
        let message = format!("unknown field `{}`: {hint}", name.text);
        self.bad.push(Bad {
            path: join(path, &name.text),
            mark: name.mark,
            message,
            unknown: true,
        });
    }

    fn field(&mut self, path: &str, field: &FieldDescriptor, node: &Node) -> Option<Value> {
        if node.is_null() && !is_json(&field.kind()) {
            self.bad(
                path,
                node.mark,
                "has no value: write one, or leave the field out",
            );
            return None;
        }
        let value = if field.is_map() {
            self.map(path, field, node)
        } else if field.is_list() {
            self.list(path, field, node)
        } else {
            let value = self.value(path, &field.kind(), node)?;
            if matches!(&value, Value::String(text) if text.is_empty()) {
                self.bad(
                    path,
                    node.mark,
                    "is empty: write a value, or leave the field out",
                );
                return None;
            }
            return Some(value);
        };
        let is_empty = match &value {
            Some(Value::List(list)) => list.is_empty(),
            Some(Value::Map(map)) => map.is_empty(),
            _ => false,
        };
        if is_empty
            && EMPTY_MEANS_ALL.contains(&field.name())
            && self
                .bad
                .last()
                .is_none_or(|bad| !bad.path.starts_with(path))
        {
            self.bad(
                path,
                node.mark,
                "is empty, which would mean no limit: list what is meant, or leave the field out",
            );
            return None;
        }
        value
    }

    fn list(&mut self, path: &str, field: &FieldDescriptor, node: &Node) -> Option<Value> {
        let Data::List(items) = &node.data else {
            self.bad(
                path,
                node.mark,
                format!(
                    "must be a list, such as [a, b]; this is {}",
                    node.describe()
                ),
            );
            return None;
        };
        let mut values = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let at = format!("{path}[{number}]");
            self.positions.insert(at.clone(), item.mark);
            values.extend(self.value(&at, &field.kind(), item));
        }
        Some(Value::List(values))
    }

    fn map(&mut self, path: &str, field: &FieldDescriptor, node: &Node) -> Option<Value> {
        let Data::Map(entries) = &node.data else {
            self.bad(
                path,
                node.mark,
                format!(
                    "must be a mapping, such as {{ a: b }}; this is {}",
                    node.describe()
                ),
            );
            return None;
        };
        let Kind::Message(pair) = field.kind() else {
            return None;
        };
        let (key_kind, value_kind) = (
            pair.map_entry_key_field().kind(),
            pair.map_entry_value_field().kind(),
        );
        let mut map = HashMap::new();
        for (name, item) in entries {
            let at = entry(path, &name.text);
            let is_scalar = matches!(item.data, Data::Scalar { .. });
            self.positions
                .insert(at.clone(), if is_scalar { item.mark } else { name.mark });
            let key = scalar::read(&key_kind, &name.text, true).map(Value::into_map_key);
            match key {
                Ok(Some(key)) => {
                    if let Some(value) = self.value(&at, &value_kind, item) {
                        map.insert(key, value);
                    }
                }
                Ok(None) | Err(_) => self.bad(&at, name.mark, "is not a key that is possible here"),
            }
        }
        Some(Value::Map(map))
    }

    /// One value of a kind: a field, or an item of a list or a map.
    fn value(&mut self, path: &str, kind: &Kind, node: &Node) -> Option<Value> {
        match (kind, &node.data) {
            (Kind::Message(desc), _) if desc.full_name() == JSON => {
                let mut message = DynamicMessage::new(desc.clone());
                message.set_field_by_name("text", Value::String(scalar::json(node)));
                Some(Value::Message(message))
            }
            (Kind::Message(desc), Data::Scalar { text, .. }) if desc.full_name() == DURATION => {
                match text.parse::<Duration>() {
                    Ok(duration) => {
                        let mut message = DynamicMessage::new(desc.clone());
                        message.set_field_by_name("millis", Value::U64(duration.as_millis()));
                        Some(Value::Message(message))
                    }
                    Err(error) => {
                        self.bad(path, node.mark, error.to_string());
                        None
                    }
                }
            }
            (Kind::Message(desc), Data::Map(entries)) if desc.full_name() != DURATION => {
                Some(Value::Message(self.message(path, desc, entries, &[])))
            }
            (kind, Data::Scalar { text, plain })
                if !matches!(kind, Kind::Message(_)) && !node.is_null() =>
            {
                scalar::read(kind, text, *plain)
                    .map_err(|message| self.bad(path, node.mark, message))
                    .ok()
            }
            _ => {
                let message = format!(
                    "must be {}; this is {}",
                    scalar::describe(kind),
                    node.describe()
                );
                self.bad(path, node.mark, message);
                None
            }
        }
    }
}

fn is_json(kind: &Kind) -> bool {
    kind.as_message()
        .is_some_and(|message| message.full_name() == JSON)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
