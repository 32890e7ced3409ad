//! The model of configuration as its descriptors and their comments tell it.

use std::sync::LazyLock;

use fleet_proto::key::Kind;
use prost_reflect::{
    DescriptorPool, FieldDescriptor, Kind as Type, MessageDescriptor, OneofDescriptor,
};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(fleet_proto::DESCRIPTORS).expect("the build made them")
});

/// The message of a kind.
pub(crate) fn message(kind: Kind) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("fleet.v1.{kind}"))
        .expect("every kind has its message")
}

/// What a field holds, as far as files are concerned.
pub(crate) enum Holds {
    Text,
    Truth,
    Number,
    Duration,
    /// Any JSON.
    Anything,
    /// One of these words.
    Word(Vec<String>),
    /// Other fields.
    Fields(MessageDescriptor),
}

/// What a field, or each of its entries, holds.
pub(crate) fn holds(field: &FieldDescriptor) -> Holds {
    let kind = match field.kind() {
        Type::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    match kind {
        Type::String | Type::Bytes => Holds::Text,
        Type::Bool => Holds::Truth,
        Type::Message(message) => match message.full_name() {
            "fleet.v1.Duration" => Holds::Duration,
            "fleet.v1.Json" => Holds::Anything,
            _ => Holds::Fields(message),
        },
        Type::Enum(words) => {
            let prefix = format!("{}_", upper_snake(words.name()));
            // The first one stands for "not set".
            let named = words.values().filter(|value| value.number() != 0);
            let word = |name: &str| name.strip_prefix(&prefix).unwrap_or(name).to_lowercase();
            Holds::Word(named.map(|value| word(value.name())).collect())
        }
        _ => Holds::Number,
    }
}

/// `BalancePolicy` as `BALANCE_POLICY`.
fn upper_snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.extend(c.to_uppercase());
    }
    snake
}

/// The type of a field in a few words.
pub(crate) fn type_of(field: &FieldDescriptor) -> String {
    let one = match holds(field) {
        Holds::Text => "text".to_owned(),
        Holds::Truth => "true or false".to_owned(),
        Holds::Number => "number".to_owned(),
        Holds::Duration => "duration".to_owned(),
        Holds::Anything => "any value".to_owned(),
        Holds::Word(words) => words.join(" | "),
        Holds::Fields(message) => message.name().to_owned(),
    };
    if field.is_map() {
        format!("mapping of {one}")
    } else if field.is_list() {
        format!("list of {one}")
    } else {
        one
    }
}

/// What the comment of a message says, on one line.
pub(crate) fn of_message(message: &MessageDescriptor) -> String {
    comment(message, message.path())
}

/// What the comment of a field says, on one line.
pub(crate) fn of_field(field: &FieldDescriptor) -> String {
    comment(&field.parent_message(), field.path())
}

/// What the comment of a choice says, on one line.
pub(crate) fn of_choice(choice: &OneofDescriptor) -> String {
    comment(choice.parent_message(), choice.path())
}

fn comment(within: &MessageDescriptor, path: &[i32]) -> String {
    let file = within.parent_file_descriptor_proto();
    let places = file.source_code_info.iter().flat_map(|info| &info.location);
    let text = places
        .filter(|place| place.path == path)
        .find_map(|place| place.leading_comments.as_deref());
    let words: Vec<&str> = text.unwrap_or_default().split_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_field_says_what_it_is() {
        for kind in Kind::ALL {
            let message = message(kind);
            assert!(!of_message(&message).is_empty(), "{kind}");
            for field in message.fields() {
                assert!(!of_field(&field).is_empty(), "{}", field.full_name());
            }
        }
        let backend = message(Kind::Backend);
        let field = |name: &str| type_of(&backend.get_field_by_name(name).unwrap());
        assert_eq!(field("labels"), "mapping of text");
        assert_eq!(field("timeout"), "duration");
        assert_eq!(field("http"), "HttpBackend");
    }
}
