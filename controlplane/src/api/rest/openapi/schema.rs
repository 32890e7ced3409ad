//! Messages of `fleet/v1/*.proto` as JSON schemas.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use fleet_proto::DESCRIPTORS;
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
};
use serde_json::{Map, Value as Json, json};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build made them"));

/// Comments by file and path (descriptor.proto, SourceCodeInfo).
static COMMENTS: LazyLock<HashMap<(String, Vec<i32>), String>> = LazyLock::new(|| {
    let of_file = |file: FileDescriptor| {
        let name = file.name().to_owned();
        let source = file.file_descriptor_proto().source_code_info.clone();
        let locations = source.unwrap_or_default().location;
        locations.into_iter().filter_map(move |location| {
            let comment = location.leading_comments?;
            let words: Vec<_> = comment.split_whitespace().collect();
            Some(((name.clone(), location.path), words.join(" ")))
        })
    };
    POOL.files().flat_map(of_file).collect()
});

fn comment(file: &FileDescriptor, path: &[i32]) -> &'static str {
    let key = (file.name().to_owned(), path.to_vec());
    COMMENTS.get(&key).map_or("", String::as_str)
}

/// The schemas that are referred to, with all they refer to.
#[derive(Default)]
pub(super) struct Schemas(BTreeMap<String, Json>);

impl Schemas {
    /// A reference to the schema of a message of `fleet.v1`.
    pub(super) fn reference(&mut self, message: &str) -> Json {
        let found = POOL.get_message_by_name(&format!("fleet.v1.{message}"));
        self.message(&found.expect("a message of ours"))
    }

    pub(super) fn all(self) -> BTreeMap<String, Json> {
        self.0
    }

    fn message(&mut self, message: &MessageDescriptor) -> Json {
        match message.full_name() {
            "fleet.v1.Duration" => {
                return json!({
                    "type": "string",
                    "pattern": "^([0-9]+(ms|s|m|h|d))+$",
                    "examples": ["500ms", "30s", "1m30s"],
                });
            }
            "fleet.v1.Json" => return json!({"description": "Any JSON value."}),
            _ => {}
        }
        let name = message.name();
        if !self.0.contains_key(name) {
            // First a place: messages may refer to themselves.
            self.0.insert(name.to_owned(), Json::Null);
            let schema = self.object(message);
            self.0.insert(name.to_owned(), schema);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    fn object(&mut self, message: &MessageDescriptor) -> Json {
        let mut properties = Map::new();
        for field in message.fields() {
            let mut schema = self.field(&field);
            let about = comment(&field.parent_file(), field.path());
            if !about.is_empty() {
                // Beside a `$ref` too: OpenAPI 3.1 is JSON Schema 2020-12.
                schema["description"] = about.into();
            }
            properties.insert(field.name().to_owned(), schema);
        }
        let mut schema = json!({
            "type": "object",
            "description": comment(&message.parent_file(), message.path()),
            "properties": properties,
            "additionalProperties": false,
        });
        let choices = message.oneofs().filter(|oneof| !oneof.is_synthetic());
        for choice in choices {
            let one = choice
                .fields()
                .map(|field| json!({"required": [field.name()]}));
            schema["oneOf"] = one.collect();
        }
        schema
    }

    fn field(&mut self, field: &FieldDescriptor) -> Json {
        if field.is_map()
            && let Some(entry) = field.kind().as_message()
        {
            let value = self.value(&entry.map_entry_value_field().kind());
            return json!({"type": "object", "additionalProperties": value});
        }
        let value = self.value(&field.kind());
        if field.is_list() {
            json!({"type": "array", "items": value})
        } else {
            value
        }
    }

    /// The JSON mapping of proto3.
    fn value(&mut self, kind: &Kind) -> Json {
        match kind {
            Kind::Message(message) => self.message(message),
            Kind::Enum(values) => one_of(values),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Double | Kind::Float => json!({"type": "number"}),
            Kind::Uint64 | Kind::Fixed64 => {
                json!({"type": ["string", "integer"], "pattern": "^[0-9]+$", "minimum": 0})
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": ["string", "integer"], "pattern": "^-?[0-9]+$"})
            }
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "minimum": 0}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer"}),
        }
    }
}

fn one_of(values: &EnumDescriptor) -> Json {
    let names: Vec<_> = values
        .values()
        .map(|value| value.name().to_owned())
        .collect();
    json!({"type": "string", "enum": names})
}
