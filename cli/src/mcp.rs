//! An MCP client for the command line: streamable HTTP, with a session
//! (2025-03-26 .. 2025-11-25) or without (2026-07-28), JSON and SSE answers.

mod bridge;
mod session;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;

pub(crate) use self::{bridge::Bridge, session::Client, wire::Params};
use crate::{failure::Failure, mcp::wire::RpcError, output};

/// A revision of the MCP specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Protocol {
    /// With a session.
    #[value(name = "2025-03-26")]
    V20250326,
    /// With a session.
    #[value(name = "2025-06-18")]
    V20250618,
    /// With a session.
    #[value(name = "2025-11-25")]
    V20251125,
    /// Every request stands alone.
    #[value(name = "2026-07-28")]
    V20260728,
}

impl Protocol {
    /// Its name on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V20250326 => "2025-03-26",
            Self::V20250618 => "2025-06-18",
            Self::V20251125 => "2025-11-25",
            Self::V20260728 => "2026-07-28",
        }
    }

    /// Whether it opens with `initialize`.
    pub(crate) fn has_sessions(self) -> bool {
        self < Self::V20260728
    }

    /// The revision with sessions of this name.
    fn negotiated(name: &str) -> Option<Self> {
        [Self::V20250326, Self::V20250618, Self::V20251125]
            .into_iter()
            .find(|v| v.as_str() == name)
    }
}

/// Which gateway, and how.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its MCP endpoint.
    pub(crate) url: String,
    /// Bearer token.
    pub(crate) token: Option<String>,
    /// The revision to offer, or to use.
    pub(crate) protocol: Protocol,
    /// Longest time for one answer.
    pub(crate) limit: Duration,
}

/// Why the gateway did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum McpError {
    /// No connection.
    #[error("cannot reach {url}: {why}; is a data plane (or `mcpctl up`) running there?")]
    Unreachable { url: String, why: String },
    /// 401 or 403.
    #[error(
        "{url} answered {status}{challenge}: pass a token with --token or MCP_FLEET_GATEWAY_TOKEN"
    )]
    NotAllowed {
        url: String,
        status: u16,
        challenge: String,
    },
    /// An HTTP status without a JSON-RPC answer.
    #[error("{url} answered HTTP {status}: {body}")]
    Http {
        url: String,
        status: u16,
        body: String,
    },
    /// A JSON-RPC error.
    #[error("the server answered error {}: {}{}", .0.code, output::one_line(&.0.message), data(.0))]
    Rpc(RpcError),
    /// Something that is not MCP.
    #[error("{url} does not answer as an MCP server: {why}")]
    Garbled { url: String, why: String },
    /// No answer in time.
    #[error("{url} did not answer {method} within {}", shown(*limit))]
    TimedOut {
        url: String,
        method: String,
        limit: Duration,
    },
}

fn shown(limit: Duration) -> String {
    let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    fleet_proto::duration::Duration::from_millis(millis).to_string()
}

fn data(error: &RpcError) -> String {
    error.data.as_ref().map_or_else(String::new, |data| {
        format!(" {}", output::one_line(data.get()))
    })
}

impl From<McpError> for Failure {
    fn from(error: McpError) -> Self {
        let text = error.to_string();
        match error {
            McpError::Unreachable { .. } => Self::Unreachable(text),
            McpError::NotAllowed { .. } => Self::NotAllowed(text),
            _ => Self::other(text),
        }
    }
}

/// A string member of a JSON object, or nothing.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
