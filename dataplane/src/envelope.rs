//! One pass over a JSON-RPC message: where its members lie, without parsing it.
//!
//! First step behind the HTTP edge, and again for everything a backend sends.
//! [`scan`] finds the members the proxy routes by and gives their places in the
//! text; [`splice`] replaces some of them; every other byte travels untouched.
//!
//! The scan must never see anything else than the parser behind it: what two
//! parsers might read differently is refused. So at the levels read here (the
//! message, `params`, `_meta`, `ref`, `result`, `error`) a repeated key is an
//! error, compared after unescaping, and so is a key that equals one of ours
//! but for its case (some parsers ignore case). A routed string with a NUL or a
//! lone surrogate is refused; elsewhere those are passed on. Below these levels
//! the text is checked against RFC 8259 and skipped.

use std::ops::Range;

mod error;
mod json;
mod keys;
mod levels;
mod scan;
mod splice;
#[cfg(test)]
mod tests;
mod text;
mod walk;

pub use error::ScanError;
pub use scan::{scan, scan_batch};
pub use splice::{Edit, Edits, SpliceError, insert_member, remove_member, splice, without};
pub use text::{quote, string_value};
pub use walk::{Elements, Members, elements, member, members};

/// Deepest nesting accepted; the message itself is level 1.
pub const MAX_DEPTH: usize = 128;

/// Byte range in the scanned message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span as a range of indices.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes it covers.
    ///
    /// # Panics
    /// The span was made for another, longer text.
    #[must_use]
    pub fn of(self, src: &[u8]) -> &[u8] {
        &src[self.range()]
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(self) -> usize {
        self.range().len()
    }

    /// Whether it covers nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Both fit: a text longer than `u32::MAX` is refused before any span is made.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the text is shorter than 4 GiB"
    )]
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// `method` and `id`.
    #[default]
    Request,
    /// `method`, no `id`.
    Notification,
    /// `result`.
    Response,
    /// `error`.
    Error,
}

/// Where the members of one message lie.
///
/// A span covers the value's source text. `None` means the member is absent or,
/// for those documented as strings or tokens, null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The id, a string with its quotes or an integer. `None` in notifications,
    /// and in errors whose id is null.
    pub id: Option<Span>,
    /// The method, without quotes; it never holds escapes.
    pub method: Option<Span>,
    /// `params`, an object or null.
    pub params: Option<Span>,
    /// `params.name`, a string with its quotes.
    pub name: Option<Span>,
    /// `params.uri`, a string with its quotes.
    pub uri: Option<Span>,
    /// `params.arguments`, any value.
    pub arguments: Option<Span>,
    /// `params.cursor`, any value.
    pub cursor: Option<Span>,
    /// `params.level` of `logging/setLevel`, any value.
    pub level: Option<Span>,
    /// `params.ref` of `completion/complete`, any value.
    pub reference: Option<Span>,
    /// `params.ref.type`, a string with its quotes: says whether name or URI counts.
    pub ref_type: Option<Span>,
    /// `params.ref.name`, a string with its quotes.
    pub ref_name: Option<Span>,
    /// `params.ref.uri`, a string with its quotes.
    pub ref_uri: Option<Span>,
    /// `requestState` of `params` or of `result`, any value.
    pub request_state: Option<Span>,
    /// `taskId` of `params`, a string with its quotes, or of `result`, any value.
    pub task_id: Option<Span>,
    /// `params.inputResponses`, any value.
    pub input_responses: Option<Span>,
    /// `params.requestId` of `notifications/cancelled`, string or integer.
    pub request_id: Option<Span>,
    /// `params.progressToken` of `notifications/progress`, string or integer.
    pub params_progress_token: Option<Span>,
    /// `_meta` of `params` (an object or null) or of `result` (any value).
    pub meta: Option<Span>,
    /// `params._meta.progressToken`, string or integer.
    pub progress_token: Option<Span>,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`, any value.
    pub protocol_version: Option<Span>,
    /// `params._meta["io.modelcontextprotocol/clientInfo"]`, any value.
    pub client_info: Option<Span>,
    /// `params._meta["io.modelcontextprotocol/clientCapabilities"]`, any value.
    pub client_capabilities: Option<Span>,
    /// `params._meta["io.modelcontextprotocol/logLevel"]`, any value.
    pub log_level: Option<Span>,
    /// `params.protocolVersion` of `initialize`, any value.
    pub init_protocol_version: Option<Span>,
    /// `params.capabilities` of `initialize`, any value.
    pub init_capabilities: Option<Span>,
    /// `params.clientInfo` of `initialize`, any value.
    pub init_client_info: Option<Span>,
    /// `result`, any value.
    pub result: Option<Span>,
    /// `result.resultType`, any value.
    pub result_type: Option<Span>,
    /// `error`, any value.
    pub error: Option<Span>,
    /// `error.code`, any value.
    pub error_code: Option<Span>,
}
