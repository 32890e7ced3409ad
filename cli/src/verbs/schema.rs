//! `mcpctl schema`: the model of configuration as JSON Schema, for editors.

use std::collections::BTreeMap;

use clap::Args;
use fleet_proto::key::Kind;
use prost_reflect::{FieldDescriptor, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::{
    failure::Failure,
    kinds,
    model::{self, Holds},
    output,
};

/// Flags of `schema`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Only documents of this kind.
    #[arg(value_name = "KIND")]
    kind: Option<String>,
}

/// Prints it.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    let kind = flags.kind.as_deref().map(kinds::parse_kind).transpose()?;
    let schema = schema(kind);
    output::data(&serde_json::to_string_pretty(&schema).expect("a schema serialises"))
}

/// The schema of one document (JSON Schema 2020-12).
fn schema(kind: Option<Kind>) -> Value {
    let mut found = BTreeMap::new();
    let kinds = kind.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
    let documents: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            let message = model::message(*kind);
            let mut document = object(&message, &mut found);
            document["properties"]["kind"] = json!({ "const": kind.as_str() });
            document["required"] = json!(["kind", "name"]);
            found.insert(message.name().to_owned(), document);
            reference(&message)
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mcp-fleet",
        "oneOf": documents,
        "$defs": found,
    })
}

fn reference(message: &MessageDescriptor) -> Value {
    json!({ "$ref": format!("#/$defs/{}", message.name()) })
}

fn object(message: &MessageDescriptor, found: &mut BTreeMap<String, Value>) -> Value {
    let mut properties = Map::new();
    for field in message.fields() {
        let mut property = property(&field, found);
        property["description"] = model::of_field(&field).into();
        properties.insert(field.name().to_owned(), property);
    }
    let mut object = json!({
        "type": "object",
        "description": model::of_message(message),
        "properties": properties,
        "additionalProperties": false,
    });
    // What must be chosen says so in its comment.
    let choices: Vec<Value> = message
        .oneofs()
        .filter(|choice| model::of_choice(choice).contains("Exactly one"))
        .map(|choice| {
            let one = |field: FieldDescriptor| json!({ "required": [field.name()] });
            json!({ "oneOf": choice.fields().map(one).collect::<Vec<_>>() })
        })
        .collect();
    if !choices.is_empty() {
        object["allOf"] = choices.into();
    }
    object
}

fn property(field: &FieldDescriptor, found: &mut BTreeMap<String, Value>) -> Value {
    let one = match model::holds(field) {
        // Numbers are taken as they are written where a text is expected.
        Holds::Text => json!({ "type": ["string", "number"] }),
        Holds::Truth => json!({ "type": "boolean" }),
        Holds::Number => json!({ "type": "number" }),
        Holds::Duration => json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$" }),
        Holds::Anything => json!({}),
        Holds::Word(words) => json!({ "enum": words }),
        Holds::Fields(message) => {
            if !found.contains_key(message.name()) {
                // Before its fields, which may hold it again.
                found.insert(message.name().to_owned(), Value::Null);
                let object = object(&message, found);
                found.insert(message.name().to_owned(), object);
            }
            reference(&message)
        }
    };
    if field.is_map() {
        json!({ "type": "object", "additionalProperties": one })
    } else if field.is_list() {
        json!({ "type": "array", "items": one })
    } else {
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_its_kind_its_name_and_one_of_each_choice() {
        let schema = schema(None);
        assert_eq!(schema["oneOf"].as_array().unwrap().len(), Kind::ALL.len());
        let backend = &schema["$defs"]["Backend"];
        assert_eq!(backend["properties"]["kind"]["const"], "Backend");
        assert_eq!(backend["additionalProperties"], false);
        let choice = &backend["allOf"][0]["oneOf"];
        assert_eq!(choice[0], json!({ "required": ["stdio"] }));
        let http = &backend["properties"]["http"];
        assert_eq!(http["$ref"], "#/$defs/HttpBackend");
        let headers = &schema["$defs"]["HttpBackend"]["properties"]["headers"];
        assert_eq!(headers["type"], "object");
    }

    #[test]
    fn every_reference_has_its_definition() {
        for kind in [None, Some(Kind::AuthPolicy)] {
            let schema = schema(kind);
            let text = schema.to_string();
            for reference in text.split("#/$defs/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(schema["$defs"][name].is_object(), "{name}");
            }
        }
    }
}
