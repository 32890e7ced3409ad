//! Why a message was refused.

use super::{Span, json::Fault};

/// Why a text was not taken as one JSON-RPC message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Not one JSON value by RFC 8259.
    #[error("not JSON at byte {at}: {what}")]
    NotJson {
        /// Byte offset.
        at: usize,
        /// What was found or missed there.
        what: &'static str,
    },
    /// Not UTF-8.
    #[error("not UTF-8 at byte {at}: send JSON as UTF-8")]
    NotUtf8 {
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    #[error("nested deeper than 128 levels at byte {at}")]
    TooDeep {
        /// Byte offset.
        at: usize,
    },
    /// 4 GiB or more.
    #[error("message of {len} bytes is too long: the limit is 4 GiB")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// An array where one message was expected.
    #[error("batches are not accepted here: send one message at a time")]
    Batch,
    /// A batch without messages.
    #[error("the batch is empty")]
    EmptyBatch,
    /// Another value than an object.
    #[error("the message is not a JSON object")]
    NotObject,
    /// Another value than an array.
    #[error("the value is not a JSON array")]
    NotArray,
    /// The same key twice, perhaps written differently.
    #[error("{path} holds {key:?} twice (byte {at}): parsers disagree about which one counts")]
    DuplicateKey {
        /// Offset of the second one.
        at: usize,
        /// The object it is in.
        path: &'static str,
        /// The key, unescaped and shortened.
        key: String,
        /// The message's id.
        id: Option<Span>,
    },
    /// A key that some parsers take for one we route by, and others do not.
    #[error(
        "{path} holds {key:?} (byte {at}), which some parsers read as {like:?}: write it exactly"
    )]
    UnclearKey {
        /// Offset of the key.
        at: usize,
        /// The object it is in.
        path: &'static str,
        /// The key, unescaped and shortened.
        key: String,
        /// The key it is like.
        like: &'static str,
        /// The message's id.
        id: Option<Span>,
    },
    /// `jsonrpc` is missing or not `"2.0"`.
    #[error("\"jsonrpc\" must be \"2.0\"")]
    BadVersion {
        /// The message's id.
        id: Option<Span>,
    },
    /// The id is missing where it is needed, or neither string nor integer.
    #[error("bad \"id\": {what}")]
    BadId {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Neither clearly a request nor clearly a response.
    #[error("neither a request nor a response: {what}")]
    Ambiguous {
        /// What does not go together.
        what: &'static str,
        /// The message's id.
        id: Option<Span>,
    },
    /// A member we route by has a value of the wrong kind.
    #[error("bad {path}.{key} (byte {at}): {what}")]
    BadMember {
        /// Offset of the value.
        at: usize,
        /// The object it is in.
        path: &'static str,
        /// The member.
        key: &'static str,
        /// What was expected.
        what: &'static str,
        /// The message's id.
        id: Option<Span>,
    },
}

impl ScanError {
    /// The message's id where it is known beyond doubt, for the error response.
    #[must_use]
    pub fn id(&self) -> Option<Span> {
        match self {
            Self::DuplicateKey { id, .. }
            | Self::UnclearKey { id, .. }
            | Self::BadVersion { id }
            | Self::Ambiguous { id, .. }
            | Self::BadMember { id, .. } => *id,
            _ => None,
        }
    }

    /// JSON-RPC error code: -32700 where the text is not JSON, -32602 where a
    /// member of `params` has the wrong type, -32600 for everything else.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::NotJson { .. } | Self::NotUtf8 { .. } => -32700,
            Self::BadMember { path, .. } if *path != super::levels::MESSAGE => -32602,
            _ => -32600,
        }
    }

    /// Adds the id, found by a second look.
    pub(super) fn with_id(mut self, found: Option<Span>) -> Self {
        match &mut self {
            Self::DuplicateKey { id, .. }
            | Self::UnclearKey { id, .. }
            | Self::BadVersion { id }
            | Self::Ambiguous { id, .. }
            | Self::BadMember { id, .. } => *id = found,
            _ => {}
        }
        self
    }

    /// A fault of the reader at `at`.
    pub(super) fn from_fault(fault: Fault, at: usize) -> Self {
        match fault {
            Fault::Deep => Self::TooDeep { at },
            fault => Self::NotJson {
                at,
                what: fault.what(),
            },
        }
    }
}
