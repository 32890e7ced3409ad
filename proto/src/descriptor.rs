//! The descriptors of `fleet/v1/*.proto`, for what is done field by field:
//! reading and writing files, and their documentation.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(crate::DESCRIPTORS).expect("the build made them"));

/// The type of ours for lengths of time.
pub(crate) const DURATION: &str = "fleet.v1.Duration";
/// The type of ours for any JSON.
pub(crate) const JSON: &str = "fleet.v1.Json";

/// A message by its name within `fleet.v1`.
pub(crate) fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("fleet.v1.{name}"))
        .expect("a message of ours")
}

/// The field of `Resource` that holds a kind, by the kind's name in files.
pub(crate) fn kind_field(kind: &str) -> Option<FieldDescriptor> {
    message("Resource")
        .fields()
        .find(|field| field.kind().as_message().is_some_and(|m| m.name() == kind))
}

/// The name of an enum's value in files: without the enum's own name in front,
/// in lower case (`BALANCE_ROUND_ROBIN` of `Balance` is `round_robin`).
pub(crate) fn enum_text(enum_name: &str, value_name: &str) -> String {
    let lower = value_name.to_lowercase();
    let mut prefix = String::new();
    for (at, c) in enum_name.char_indices() {
        if c.is_uppercase() && at > 0 {
            prefix.push('_');
        }
        prefix.extend(c.to_lowercase());
    }
    prefix.push('_');
    lower.strip_prefix(&prefix).unwrap_or(&lower).to_owned()
}
