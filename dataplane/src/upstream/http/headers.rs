//! Headers of requests to HTTP backends.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    call::Call,
    envelope,
    upstream::{message::target_span, slot::Live},
};

/// `MCP-Protocol-Version`.
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`, until 2025-11-25.
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `Last-Event-ID`, until 2025-11-25.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// `Mcp-Method`, since 2026-07-28.
pub(crate) const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`, since 2026-07-28.
pub(crate) const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
/// What the names of mirrored parameters begin with.
pub(crate) const MCP_PARAM: &str = "mcp-param-";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
/// The line that names the revision of the modern era.
const MODERN: &[u8] = b"mcp-protocol-version: 2026-07-28\r\n";

/// The backend's own headers with what every request has. Called once, when
/// the table is built.
pub(crate) fn base(mut own: HeaderMap) -> HeaderMap {
    own.insert(header::CONTENT_TYPE, JSON);
    own.insert(header::ACCEPT, BOTH);
    own.entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!(
            "mcp-fleet/",
            env!("CARGO_PKG_VERSION")
        )));
    own
}

/// The header lines of every request to a backend, as they are written.
pub(super) fn lines(base: &HeaderMap, authority: &HeaderValue) -> Box<[u8]> {
    let mut out = Vec::with_capacity(256);
    push(&mut out, &header::HOST, authority.as_bytes());
    for (name, value) in base {
        push(&mut out, name, value.as_bytes());
    }
    out.into()
}

/// Adds those of a session of the legacy era: version, and id where there is one.
pub(super) fn legacy(out: &mut Vec<u8>, live: &Live) {
    push(out, &PROTOCOL_VERSION, live.version.as_bytes());
    if let Some(id) = &live.id {
        push(out, &SESSION_ID, id.as_bytes());
    }
}

/// Adds that which says where a stream is to go on; an id of an odd kind is left out.
pub(super) fn last_event_id(out: &mut Vec<u8>, id: &[u8]) {
    if id.iter().all(|b| is_text(*b)) {
        push(out, &LAST_EVENT_ID, id);
    }
}

/// Adds those of a request of the proxy's own in the modern era.
pub(super) fn of_method(out: &mut Vec<u8>, method: &'static str) {
    out.extend_from_slice(MODERN);
    push(out, &MCP_METHOD, method.as_bytes());
}

/// Adds those of a request in the modern era: what the body says, mirrored.
pub(super) fn modern(out: &mut Vec<u8>, call: &Call) {
    out.extend_from_slice(MODERN);
    let method = call.method_name();
    if method.iter().all(|b| is_text(*b)) {
        push(out, &MCP_METHOD, method);
    }
    if (call.method.has_name() || call.method.is_about_task())
        && let Some(name) = name(call)
    {
        push(out, &MCP_NAME, encoded(&name).as_bytes());
    }
    for (name, value) in &call.param_headers {
        push(out, name, value.as_bytes());
    }
}

/// Adds a line. Names and values come out of a scan or of types that hold no line ends.
fn push(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The name or URI that the backend sees, for `Mcp-Name`.
fn name(call: &Call) -> Option<Cow<'_, str>> {
    let own = target_span(call.method, &call.message).map(|span| span.of(&call.body));
    let literal = call.target.as_deref().or(own)?;
    let whole = envelope::Span {
        start: 0,
        end: literal.len() as u32,
    };
    envelope::string_value(literal, whole)
}

const fn is_text(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e | b'\t')
}

/// A text as the value of a header (2026-07-28, Streamable HTTP: Value Encoding): visible ASCII.
fn encoded(text: &str) -> Cow<'_, str> {
    let plain = text.bytes().all(is_text)
        && text.trim_matches([' ', '\t']) == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if plain {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("=?base64?{}?=", STANDARD.encode(text)))
    }
}

/// A text as a header value.
pub(crate) fn encode(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&encoded(text)).ok()
}

/// The text of a header value; `None` for one that is not well encoded.
pub(crate) fn decode(value: &HeaderValue) -> Option<Cow<'_, str>> {
    let text = value.to_str().ok()?.trim_matches([' ', '\t']);
    match text
        .strip_prefix("=?base64?")
        .and_then(|t| t.strip_suffix("?="))
    {
        Some(encoded) => {
            let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
            Some(Cow::Owned(text))
        }
        None => Some(Cow::Borrowed(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_specification_are_encoded_and_decoded() {
        for (text, value) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            let encoded = encode(text).unwrap();
            assert_eq!(encoded, value);
            assert_eq!(decode(&encoded).unwrap(), text);
        }
    }

    #[test]
    fn the_version_line_is_that_of_the_modern_revision() {
        let mut out = Vec::new();
        let version = crate::call::ProtocolVersion::V2026_07_28.as_str();
        push(&mut out, &PROTOCOL_VERSION, version.as_bytes());
        assert_eq!(out, MODERN);
    }

    #[test]
    fn broken_base64_is_not_a_value() {
        assert!(decode(&HeaderValue::from_static("=?base64?SGVs!!?=")).is_none());
    }
}
