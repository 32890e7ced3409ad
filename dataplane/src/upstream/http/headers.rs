//! Headers of requests to HTTP backends.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    call::{Call, Era, Method, ProtocolVersion},
    envelope,
    upstream::{message::target_span, slot::Live},
};

/// `MCP-Protocol-Version`.
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`, until 2025-11-25.
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `Mcp-Method`, since 2026-07-28.
pub(crate) const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`, since 2026-07-28.
pub(crate) const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
/// What the names of mirrored parameters begin with.
pub(crate) const MCP_PARAM: &str = "mcp-param-";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const MODERN: HeaderValue = HeaderValue::from_static(ProtocolVersion::V2026_07_28.as_str());

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

/// The most headers that [`legacy`] and [`modern`] add, mirrored parameters aside.
const ADDED: usize = 3;

/// The headers of every request, with room for those of a call: a clone of them need not
/// be hashed anew.
pub(super) fn with_host(mut base: HeaderMap, authority: HeaderValue) -> HeaderMap {
    base.insert(header::HOST, authority);
    base.reserve(ADDED);
    base
}

/// Of a request in the legacy era: session and version.
pub(super) fn legacy(base: &HeaderMap, live: &Live) -> HeaderMap {
    let mut headers = base.clone();
    headers.insert(PROTOCOL_VERSION, live.version.clone());
    if let Some(id) = &live.id {
        headers.insert(SESSION_ID, id.clone());
    }
    headers
}

/// Of `server/discover`.
pub(super) fn discover(base: &HeaderMap) -> HeaderMap {
    let mut headers = base.clone();
    headers.insert(PROTOCOL_VERSION, MODERN);
    headers.insert(MCP_METHOD, HeaderValue::from_static("server/discover"));
    headers
}

/// Of a request in the modern era: what the body says, mirrored.
pub(super) fn modern(base: &HeaderMap, call: &Call) -> HeaderMap {
    let mut headers = base.clone();
    headers.insert(PROTOCOL_VERSION, MODERN);
    if let Ok(method) = HeaderValue::from_bytes(call.method_name()) {
        headers.insert(MCP_METHOD, method);
    }
    if call.method.has_name()
        && let Some(name) = name(call)
    {
        headers.insert(MCP_NAME, name);
    }
    for (name, value) in &call.param_headers {
        headers.insert(name.clone(), value.clone());
    }
    headers
}

/// The value of `Mcp-Name`: the name or URI that the backend sees.
fn name(call: &Call) -> Option<HeaderValue> {
    let own = target_span(call.method, &call.message).map(|span| span.of(&call.body));
    let literal = call.target.as_deref().or(own)?;
    let whole = envelope::Span {
        start: 0,
        end: literal.len() as u32,
    };
    encode(&envelope::string_value(literal, whole)?)
}

/// A text as a header value (2026-07-28, Streamable HTTP: Value Encoding).
pub(crate) fn encode(text: &str) -> Option<HeaderValue> {
    let plain = text.bytes().all(|b| matches!(b, 0x20..=0x7e | b'\t'))
        && text.trim_matches([' ', '\t']) == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if plain {
        HeaderValue::from_str(text).ok()
    } else {
        HeaderValue::from_str(&format!("=?base64?{}?=", STANDARD.encode(text))).ok()
    }
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

/// The mirrored parameters of a call by a legacy client, which sends none.
pub(crate) fn is_needed(call: &Call, to: Era) -> bool {
    to == Era::Modern && call.version.era() == Era::Legacy && call.method == Method::ToolsCall
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
    fn broken_base64_is_not_a_value() {
        assert!(decode(&HeaderValue::from_static("=?base64?SGVs!!?=")).is_none());
    }
}
