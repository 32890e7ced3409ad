//! Clients of 2026-07-28: every request stands alone, and its headers mirror
//! its body.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode};

use super::{Inbound, empty, json, respond, unreadable, unsupported};
use crate::{
    body::Body,
    call::{Call, Era, Method, ProtocolVersion},
    envelope::{self, Kind, Message, ScanError},
    error::{CallError, HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST},
    peer::relay,
    rounds, stack,
    upstream::{
        http::headers::{MCP_METHOD, MCP_NAME, MCP_PARAM, PROTOCOL_VERSION, decode},
        message::target_span,
    },
};

/// Answers a POST of the modern era.
pub(super) async fn post(inbound: Inbound, scanned: Result<Message, ScanError>) -> Response<Body> {
    let message = match scanned {
        Ok(message) => message,
        Err(error) => {
            let (id, error) = unreadable(&error, &inbound.body);
            return refuse(&error.with_status(StatusCode::BAD_REQUEST), id.as_deref());
        }
    };
    match message.kind {
        Kind::Request => {}
        // The revision defines none over HTTP; it is the server's to accept them.
        Kind::Notification => return empty(StatusCode::ACCEPTED),
        Kind::Response | Kind::Error => {
            let what = "a client sends no JSON-RPC responses in this protocol version";
            return refuse(&CallError::refused(INVALID_REQUEST, what), None);
        }
    }
    let id = message
        .id
        .map_or_else(Bytes::new, |span| inbound.body.slice(span.range()));
    if let Err(error) = check(&inbound, &message) {
        return refuse(&error, Some(&id));
    }
    if message.request_state.is_some()
        && let Some(answer) = Box::pin(elsewhere(&inbound, &message, &id)).await
    {
        return answer;
    }
    let call = call(&inbound, message);
    let Inbound { node, gateway, .. } = inbound;
    let reply = stack::answer(&node, gateway, call).await;
    respond(reply, id, Era::Modern)
}

/// The answer to a request that goes on with a call which another node holds.
#[cold]
async fn elsewhere(inbound: &Inbound, message: &Message, id: &Bytes) -> Option<Response<Body>> {
    let peers = &inbound.node.peers;
    if peers.is_alone() || inbound.relayed {
        return None;
    }
    let scope = &inbound.gateway.scope;
    let home = rounds::held_at(
        scope,
        &inbound.principal,
        &inbound.body,
        message.request_state?,
    )?;
    if home == *peers.me() {
        return None;
    }
    relay::to_holder(inbound, &home, id.clone()).await
}

fn call(inbound: &Inbound, message: Message) -> Call {
    let method = message
        .method
        .map_or(Method::Other, |span| Method::parse(span.of(&inbound.body)));
    let param_headers = if method == Method::ToolsCall {
        params(&inbound.headers)
    } else {
        Vec::new()
    };
    Call {
        worker: inbound.worker,
        version: ProtocolVersion::V2026_07_28,
        method,
        body: inbound.body.clone(),
        message,
        target: None,
        param_headers,
        principal: inbound.principal.clone(),
        session: None,
        rounds: Default::default(),
    }
}

/// `Mcp-Param-*` travels on as it came: the backend knows which it recognizes.
fn params(headers: &HeaderMap) -> Vec<(HeaderName, http::HeaderValue)> {
    headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with(MCP_PARAM))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Metadata and headers (2026-07-28, Overview: Per-request protocol fields;
/// Streamable HTTP: Server Validation).
fn check(inbound: &Inbound, message: &Message) -> Result<(), CallError> {
    let (headers, body) = (&inbound.headers, &inbound.body);
    let malformed =
        |what: &str| CallError::refused(INVALID_PARAMS, what).with_status(StatusCode::BAD_REQUEST);
    let in_header = single(headers, &PROTOCOL_VERSION)?;
    let in_body = message
        .protocol_version
        .ok_or_else(|| malformed("params._meta lacks io.modelcontextprotocol/protocolVersion"))?;
    let in_body = envelope::string_value(body, in_body)
        .ok_or_else(|| malformed("io.modelcontextprotocol/protocolVersion is not a string"))?;
    let capabilities = message.client_capabilities.ok_or_else(|| {
        malformed("params._meta lacks io.modelcontextprotocol/clientCapabilities")
    })?;
    if !capabilities.of(body).starts_with(b"{") {
        return Err(malformed(
            "io.modelcontextprotocol/clientCapabilities is not an object",
        ));
    }
    if in_header != in_body {
        return Err(mismatch("MCP-Protocol-Version", &in_header, &in_body));
    }
    if in_body != ProtocolVersion::V2026_07_28.as_str() {
        return Err(unsupported(&in_body));
    }
    let method = message.method.map_or(&b""[..], |span| span.of(body));
    let in_header = single(headers, &MCP_METHOD)?;
    if in_header.as_bytes() != method {
        return Err(mismatch(
            "Mcp-Method",
            &in_header,
            &String::from_utf8_lossy(method),
        ));
    }
    let method = Method::parse(method);
    // The extension's own methods are checked where the header is there.
    let task = method.is_about_task() && headers.contains_key(&MCP_NAME);
    if (method.has_name() || task)
        && let Some(span) = target_span(method, message)
        && let Some(name) = envelope::string_value(body, span)
    {
        let in_header = single(headers, &MCP_NAME)?;
        if in_header != name {
            return Err(mismatch("Mcp-Name", &in_header, &name));
        }
    }
    Ok(())
}

/// The decoded value of a header that must be there exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Cow<'a, str>, CallError> {
    let mut values = headers.get_all(name).iter();
    let wrong = |what| {
        CallError::refused(
            HEADER_MISMATCH,
            format!("Header mismatch: header {name} {what}"),
        )
    };
    let value = values.next().ok_or_else(|| wrong("is missing"))?;
    if values.next().is_some() {
        return Err(wrong("is there more than once"));
    }
    decode(value).ok_or_else(|| wrong("has a value that is not well encoded"))
}

fn mismatch(name: &str, in_header: &str, in_body: &str) -> CallError {
    let what = format!(
        "Header mismatch: {name} header value '{in_header}' does not match body value '{in_body}'"
    );
    CallError::refused(HEADER_MISMATCH, what)
}

/// Before a call is one, errors are 400 unless their code has a status.
fn refuse(error: &CallError, id: Option<&[u8]>) -> Response<Body> {
    let status = error.status(Era::Modern);
    let body = match id {
        Some(id) if !id.is_empty() => error.to_message(id),
        _ => without_id(error),
    };
    json(status, body)
}

/// An error whose request could not be read has no id; the schema of this
/// revision allows none, and not null.
fn without_id(error: &CallError) -> Bytes {
    let body = serde_json::json!({
        "jsonrpc": "2.0",
        "error": {"code": error.code(), "message": error.to_string()},
    });
    body.to_string().into()
}
