//! [`CallError`]: why a call failed without an answer of its backend; folded
//! once into JSON-RPC and an HTTP status.
//!
//! A backend's own errors are not here: they are answers, and pass unchanged.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::{call::Era, envelope};

/// JSON-RPC: the text is not JSON.
pub const PARSE_ERROR: i64 = -32_700;
/// JSON-RPC: the message is not a request.
pub const INVALID_REQUEST: i64 = -32_600;
/// JSON-RPC: no such method.
pub const METHOD_NOT_FOUND: i64 = -32_601;
/// JSON-RPC: the parameters do not fit the method.
pub const INVALID_PARAMS: i64 = -32_602;
/// JSON-RPC: something went wrong that is not the client's fault.
pub const INTERNAL_ERROR: i64 = -32_603;
/// MCP until 2025-11-25: no such resource. Since 2026-07-28 it is [`INVALID_PARAMS`].
pub const RESOURCE_NOT_FOUND: i64 = -32_002;
/// MCP 2026-07-28: headers and body disagree.
pub const HEADER_MISMATCH: i64 = -32_020;
/// MCP 2026-07-28: the server needs a capability the client did not declare.
pub const MISSING_CAPABILITY: i64 = -32_021;
/// MCP 2026-07-28: the protocol version is not spoken here.
pub const UNSUPPORTED_VERSION: i64 = -32_022;

/// Ours, outside the range that JSON-RPC reserves: the backend cannot be reached.
pub const BACKEND_UNAVAILABLE: i64 = -31_001;
/// Ours: the backend was silent for too long, or the call took too long.
pub const BACKEND_TIMED_OUT: i64 = -31_002;
/// Ours: the backend's answer is not MCP.
pub const BACKEND_BAD_ANSWER: i64 = -31_003;
/// Ours: the connection broke, or the process died, during the call.
pub const BACKEND_GONE: i64 = -31_004;

/// Ours: the backend asks for input, and the client cannot be asked, or has not answered.
pub const INPUT_REQUIRED: i64 = -31_005;
/// Ours: the client has cancelled the call.
pub const CANCELLED: i64 = -31_006;
/// Ours: the data plane on which the session, or a call that waits for its client, lives cannot be reached, or went away during
/// the call.
pub const HOME_GONE: i64 = -31_010;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, no process, or no session could be had. Nothing was sent.
    #[error("backend {backend} is unavailable: {reason}")]
    Unavailable {
        /// The backend.
        backend: String,
        /// Why, for the client.
        reason: String,
        /// What the operator needs to know and the client need not: addresses,
        /// commands, what was answered. May be empty.
        detail: String,
    },
    /// The backend said nothing for its `timeout`.
    #[error("backend {backend} timed out: silent for {after:?}")]
    Timeout {
        /// The backend.
        backend: String,
        /// Its `timeout`.
        after: Duration,
    },
    /// The call took longer than the backend's `max_duration`.
    #[error("backend {backend} timed out: the call took longer than {after:?}")]
    Deadline {
        /// The backend.
        backend: String,
        /// Its `max_duration`.
        after: Duration,
    },
    /// The answer is not one.
    #[error("backend {backend} gave an answer that is not MCP: {reason}")]
    BadAnswer {
        /// The backend.
        backend: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection broke, or the process died, after the request was sent.
    #[error("backend {backend} went away during the call: {reason}")]
    Gone {
        /// The backend.
        backend: String,
        /// How.
        reason: String,
    },
    /// The backend asks for input of a client that the answer cannot be given to.
    #[error("the backend asks for input, which this client cannot be asked for here")]
    Asks {
        /// Its answer, with the client's request id.
        answer: Bytes,
    },
    /// The proxy itself refuses the request.
    #[error("{message}")]
    Refused {
        /// JSON-RPC code.
        code: i64,
        /// For the client.
        message: String,
        /// JSON text of `error.data`.
        data: Option<String>,
        /// HTTP status for clients of the modern era.
        status: StatusCode,
    },
}

impl CallError {
    /// A backend that cannot be had, and why: for the client, and for the operator.
    #[must_use]
    pub fn unavailable(
        backend: impl Into<String>,
        reason: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::Unavailable {
            backend: backend.into(),
            reason: reason.into(),
            detail: detail.into(),
        }
    }

    /// The whole story, for logs and the admin API.
    #[must_use]
    pub fn for_operator(&self) -> String {
        match self {
            Self::Unavailable { detail, .. } if !detail.is_empty() => format!("{self}: {detail}"),
            _ => self.to_string(),
        }
    }

    /// A refusal with the HTTP status that belongs to its code (2026-07-28,
    /// Streamable HTTP and Overview: Error Codes).
    #[must_use]
    pub fn refused(code: i64, message: impl Into<String>) -> Self {
        Self::Refused {
            code,
            message: message.into(),
            data: None,
            status: status_of(code),
        }
    }

    /// The same with `error.data`, a JSON text.
    #[must_use]
    pub fn with_data(self, json: String) -> Self {
        match self {
            Self::Refused {
                code,
                message,
                status,
                ..
            } => Self::Refused {
                code,
                message,
                data: Some(json),
                status,
            },
            other => other,
        }
    }

    /// The same with another HTTP status.
    #[must_use]
    pub fn with_status(self, to: StatusCode) -> Self {
        match self {
            Self::Refused {
                code,
                message,
                data,
                ..
            } => Self::Refused {
                code,
                message,
                data,
                status: to,
            },
            other => other,
        }
    }

    /// Its JSON-RPC code.
    #[must_use]
    pub const fn code(&self) -> i64 {
        match self {
            Self::Unavailable { .. } => BACKEND_UNAVAILABLE,
            Self::Timeout { .. } | Self::Deadline { .. } => BACKEND_TIMED_OUT,
            Self::BadAnswer { .. } => BACKEND_BAD_ANSWER,
            Self::Gone { .. } => BACKEND_GONE,
            Self::Asks { .. } => INPUT_REQUIRED,
            Self::Refused { code, .. } => *code,
        }
    }

    /// A short word for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout { .. } | Self::Deadline { .. } => "timeout",
            Self::BadAnswer { .. } => "bad_answer",
            Self::Gone { .. } => "gone",
            Self::Asks { .. } => "input_required",
            Self::Refused { .. } => "refused",
        }
    }

    /// HTTP status of the response that carries it. Clients of the legacy era
    /// look for JSON-RPC errors in 200 responses only.
    #[must_use]
    pub const fn status(&self, era: Era) -> StatusCode {
        match (self, era) {
            (Self::Refused { status, .. }, Era::Modern) => *status,
            _ => StatusCode::OK,
        }
    }

    /// The JSON-RPC error response to the request of this id (source text).
    #[must_use]
    pub fn to_message(&self, id: &[u8]) -> Bytes {
        let data = match self {
            Self::Refused { data, .. } => data.as_deref(),
            _ => None,
        };
        error_message(id, self.code(), &self.to_string(), data)
    }
}

/// The HTTP status that 2026-07-28 gives an error code.
#[must_use]
pub const fn status_of(code: i64) -> StatusCode {
    match code {
        METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        PARSE_ERROR | INVALID_REQUEST | HEADER_MISMATCH | MISSING_CAPABILITY
        | UNSUPPORTED_VERSION => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

/// A JSON-RPC error response; `id` and `data` are source texts.
#[must_use]
pub fn error_message(id: &[u8], code: i64, message: &str, data: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(96 + message.len() + data.map_or(0, str::len));
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"error\":{\"code\":");
    out.extend_from_slice(code.to_string().as_bytes());
    out.extend_from_slice(b",\"message\":");
    out.extend_from_slice(&envelope::quote(message));
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data.as_bytes());
    }
    out.extend_from_slice(b"}}");
    out.into()
}

/// A JSON-RPC result response; `id` and `result` are source texts.
#[must_use]
pub fn result_message(id: &[u8], result: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(40 + id.len() + result.len());
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"result\":");
    out.extend_from_slice(result);
    out.push(b'}');
    out.into()
}
