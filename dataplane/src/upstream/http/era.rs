//! What an HTTP backend speaks, and the probe that tells (2026-07-28,
//! Streamable HTTP: Backward Compatibility).

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use super::{Http, headers};
use crate::{
    call::{Era, ProtocolVersion, WorkerId},
    error::{self, CallError},
    upstream::{
        Greeting,
        message::{CLIENT_INFO, modern_meta},
    },
};

/// Whether a backend speaks an era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Unknown,
    Yes,
    No,
}

/// Refusals in a row, none of them understood, after which the era is probed again.
const DOUBTS: u32 = 3;

/// What a backend speaks.
#[derive(Debug, Default)]
pub(super) struct Eras {
    modern: AtomicU8,
    legacy: AtomicU8,
    doubts: AtomicU32,
}

impl Eras {
    pub(super) fn modern(&self) -> Spoken {
        spoken(self.modern.load(Ordering::Relaxed))
    }

    pub(super) fn legacy(&self) -> Spoken {
        spoken(self.legacy.load(Ordering::Relaxed))
    }

    pub(super) fn set_modern(&self, yes: bool) {
        self.modern.store(1 + u8::from(!yes), Ordering::Relaxed);
    }

    pub(super) fn set_legacy(&self, yes: bool) {
        self.legacy.store(1 + u8::from(!yes), Ordering::Relaxed);
    }

    /// Nothing is known any more.
    pub(super) fn forget(&self) {
        self.modern.store(0, Ordering::Relaxed);
        self.legacy.store(0, Ordering::Relaxed);
        self.doubts.store(0, Ordering::Relaxed);
    }

    /// A request was refused in a way that a server of the other era would
    /// refuse it, too.
    pub(super) fn doubt(&self) {
        if self.doubts.fetch_add(1, Ordering::Relaxed) + 1 >= DOUBTS {
            self.forget();
        }
    }

    /// A request was understood.
    pub(super) fn trust(&self) {
        if self.doubts.load(Ordering::Relaxed) != 0 {
            self.doubts.store(0, Ordering::Relaxed);
        }
    }
}

/// Whether a refusal with this code comes from a server that understood a
/// request of the modern era.
pub(super) fn is_modern_error(code: Option<i64>) -> bool {
    matches!(
        code,
        Some(
            error::METHOD_NOT_FOUND
                | error::INVALID_PARAMS
                | error::HEADER_MISMATCH
                | error::MISSING_CAPABILITY
                | error::UNSUPPORTED_VERSION
        )
    )
}

fn spoken(value: u8) -> Spoken {
    match value {
        0 => Spoken::Unknown,
        1 => Spoken::Yes,
        _ => Spoken::No,
    }
}

/// The parts of a response to `server/discover` that tell the era.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    result: Option<&'a serde_json::value::RawValue>,
    error: Option<ProbeError>,
}

#[derive(Deserialize)]
struct ProbeError {
    code: i64,
    #[serde(default)]
    data: serde_json::Value,
}

#[derive(Deserialize)]
struct Discovered {
    #[serde(rename = "supportedVersions")]
    supported: Vec<String>,
}

impl Http {
    /// Asks a backend of unknown era for the modern one.
    pub(super) async fn probe(&self, worker: WorkerId) -> Result<Era, CallError> {
        let (status, body) = self.ask_discover(worker).await?;
        if status.is_server_error() {
            let reason = format!("it answered {status}");
            return Err(CallError::unavailable(&self.0.name, reason, ""));
        }
        let modern = speaks_modern(&body);
        self.0.eras.set_modern(modern);
        Ok(if modern { Era::Modern } else { Era::Legacy })
    }

    /// The `DiscoverResult` of a modern backend.
    pub(super) async fn discover(&self, worker: WorkerId) -> Result<Greeting, CallError> {
        let (status, body) = self.ask_discover(worker).await?;
        let result = serde_json::from_slice::<Probe<'_>>(&body)
            .ok()
            .and_then(|probe| probe.result);
        if let Some(result) = result {
            return Ok(Greeting {
                era: Era::Modern,
                result: body.slice_ref(result.get().as_bytes()),
            });
        }
        if status.is_server_error() {
            let reason = format!("it answered {status}");
            return Err(CallError::unavailable(&self.0.name, reason, ""));
        }
        // It was modern once; what it is now, the next probe tells.
        self.0.eras.forget();
        Err(self.bad_answer("it no longer answers `server/discover`"))
    }

    async fn ask_discover(&self, worker: WorkerId) -> Result<(StatusCode, Bytes), CallError> {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{{"_meta":{{{}}}}}}}"#,
            modern_meta(CLIENT_INFO)
        );
        let headers = |out: &mut Vec<u8>| headers::of_method(out, "server/discover");
        let sent = self.post(worker, headers, body.into()).await?;
        let status = sent.head.status;
        let body = self.collect_any(sent).await?;
        Ok((status, body))
    }
}

/// A `DiscoverResult` or a recognized modern error says that a backend is modern.
fn speaks_modern(body: &[u8]) -> bool {
    let ours = ProtocolVersion::V2026_07_28.as_str();
    let Ok(probe) = serde_json::from_slice::<Probe<'_>>(body) else {
        return false;
    };
    if let Some(result) = probe.result {
        return serde_json::from_str::<Discovered>(result.get())
            .is_ok_and(|found| found.supported.iter().any(|v| v == ours));
    }
    probe.error.is_some_and(|error| match error.code {
        error::UNSUPPORTED_VERSION => {
            let supported = error.data.get("supported").and_then(|s| s.as_array());
            supported.is_some_and(|list| list.iter().any(|v| v == ours))
        }
        error::HEADER_MISMATCH | error::MISSING_CAPABILITY => true,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_specification_recognizes_is_modern() {
        for (modern, body) in [
            (
                true,
                r#"{"jsonrpc":"2.0","id":0,"result":{"supportedVersions":["2026-07-28"],"capabilities":{}}}"#,
            ),
            (
                true,
                r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32022,"message":"x","data":{"supported":["2026-07-28"]}}}"#,
            ),
            (
                false,
                r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32022,"message":"x","data":{"supported":["2030-01-01"]}}}"#,
            ),
            (
                false,
                r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"Method not found"}}"#,
            ),
            (
                false,
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}"#,
            ),
            (false, r#"{"jsonrpc":"2.0","id":0,"result":{}}"#),
            (false, "<html>"),
        ] {
            assert_eq!(speaks_modern(body.as_bytes()), modern, "{body}");
        }
    }
}
