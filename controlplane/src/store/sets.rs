//! Rows of the sets that are kept beside the revisions: values of Secrets, session
//! keys, revocations. They are written under the locked head, in the same
//! transaction as the revision that comes with them, if one does.

use fleet_proto::{
    hash::Hash,
    secret,
    v1::{SetKind, SetVersion},
};

/// The sets, and their names in the database.
pub(crate) const KINDS: [(SetKind, &str); 3] = [
    (SetKind::Secrets, "secrets"),
    (SetKind::SessionKeys, "session_keys"),
    (SetKind::Revocations, "revocations"),
];

/// The name of a set in the database; the unknown one has none.
pub(crate) fn name_of(kind: SetKind) -> &'static str {
    let found = KINDS.into_iter().find(|(known, _)| *known == kind);
    found.map_or("", |(_, name)| name)
}

/// The value of a Secret, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValueRow {
    pub(crate) name: secret::Name,
    pub(crate) sealed: Vec<u8>,
    pub(crate) updated_ms: u64,
}

/// A session key, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionKeyRow {
    pub(crate) id: String,
    pub(crate) sealed: Vec<u8>,
    pub(crate) created_ms: u64,
    pub(crate) seals_from_ms: u64,
}

/// A bearer token that is not accepted any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevocationRow {
    /// Empty: all.
    pub(crate) project: String,
    /// SHA-256 of the token.
    pub(crate) bearer: Hash,
    pub(crate) created_ms: u64,
    pub(crate) created_by: String,
    /// 0: until it is taken back.
    pub(crate) until_ms: u64,
    pub(crate) message: String,
}

/// The sets as they are at one moment, each in no order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SetRows {
    /// Of those in which something ever was.
    pub(crate) versions: Vec<SetVersion>,
    pub(crate) values: Vec<ValueRow>,
    pub(crate) session_keys: Vec<SessionKeyRow>,
    pub(crate) revocations: Vec<RevocationRow>,
}

/// What a write does to the sets. What is put replaces what has its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct SetChanges {
    pub(crate) versions: Vec<SetVersion>,
    pub(crate) put_values: Vec<ValueRow>,
    pub(crate) drop_values: Vec<secret::Name>,
    pub(crate) put_session_keys: Vec<SessionKeyRow>,
    pub(crate) drop_session_keys: Vec<String>,
    pub(crate) put_revocations: Vec<RevocationRow>,
    /// Project and token.
    pub(crate) drop_revocations: Vec<(String, Hash)>,
}
