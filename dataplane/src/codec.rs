//! HTTP to [`Call`] and [`Reply`] to HTTP, for both eras on one path.

pub mod legacy;
pub mod sse;
pub mod stateless;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::{
    auth::Principal,
    body::Body,
    call::{Answer, Era, ProtocolVersion, Reply, WorkerId},
    envelope::{self, Message, ScanError},
    error::{CallError, UNSUPPORTED_VERSION},
    node::Node,
    table::Gateway,
    upstream::http::headers::{PROTOCOL_VERSION, SESSION_ID},
};

/// `serverInfo`: JSON text.
pub const SERVER_INFO: &str = concat!(
    r#"{"name":"mcp-fleet","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

/// A POST that has been let in.
pub struct Inbound {
    /// The node.
    pub node: Arc<Node>,
    /// Whose pools it uses.
    pub worker: WorkerId,
    /// The gateway it came to, of the table that was in use when it came.
    pub gateway: Arc<Gateway>,
    /// Who sent it.
    pub principal: Arc<Principal>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Another data plane has let it in and relayed it.
    pub relayed: bool,
}

/// Answers a POST.
pub async fn post(inbound: Inbound) -> Response<Body> {
    let scanned = envelope::scan(&inbound.body);
    if is_modern(&inbound, &scanned) {
        stateless::post(inbound, scanned).await
    } else {
        legacy::post(inbound, scanned).await
    }
}

/// A request of the modern era says so in its header or in its body; one that
/// does so in one of them only is one, too, and wrong.
fn is_modern(inbound: &Inbound, scanned: &Result<Message, ScanError>) -> bool {
    let in_body = scanned.as_ref().is_ok_and(|m| m.protocol_version.is_some());
    let in_header = inbound.headers.get(PROTOCOL_VERSION).map(|value| {
        let known = value.to_str().ok().and_then(ProtocolVersion::parse);
        known.is_some_and(|v| v.era() == Era::Modern)
    });
    // A session id belongs to the legacy era, whatever revision the client
    // writes beside it into its messages.
    let in_session = inbound.headers.contains_key(SESSION_ID) && in_header != Some(true);
    in_header == Some(true) || (in_body && !in_session)
}

/// The response for a reply.
pub fn respond(reply: Result<Reply, CallError>, id: Bytes, era: Era) -> Response<Body> {
    match reply {
        Ok(Reply::Whole(answer)) => whole(answer, era),
        Ok(Reply::Parts(parts)) => json_body(StatusCode::OK, Body::parts(parts)),
        Ok(Reply::Stream(messages)) => {
            let events = messages.map(move |message| {
                // The stream has begun: an error can only be a message now.
                message.unwrap_or_else(|error| error.to_message(&id))
            });
            events_response(Box::pin(events))
        }
        Err(error) => json(error.status(era), error.to_message(&id)),
    }
}

/// A response with an event stream.
fn events_response(events: crate::body::Events) -> Response<Body> {
    event_stream(Body::events(events))
}

/// A response with this event stream.
fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Whether the client names event streams before JSON, or JSON not at all:
/// then a single message is an event stream to it, too.
fn prefers_events(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(header::ACCEPT).map(HeaderValue::as_bytes) else {
        return false;
    };
    let (mut events, mut any) = (false, false);
    for range in accept.split(|byte| *byte == b',') {
        let kind = range.split(|byte| *byte == b';').next().unwrap_or(range);
        match kind.trim_ascii() {
            b"application/json" => return events,
            b"text/event-stream" => events = true,
            b"*/*" | b"application/*" => any = true,
            _ => {}
        }
    }
    events && !any
}

fn whole(answer: Answer, era: Era) -> Response<Body> {
    let status = if era == Era::Modern {
        answer.status
    } else {
        StatusCode::OK
    };
    json(status, answer.body)
}

/// A response with a JSON body.
pub fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    json_body(status, Body::whole(body))
}

fn json_body(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The refusal of a message that cannot be read.
fn unreadable(error: &ScanError, body: &[u8]) -> (Option<Bytes>, CallError) {
    let id = error.id().map(|span| Bytes::copy_from_slice(span.of(body)));
    (
        id,
        CallError::refused(i64::from(error.code()), error.to_string()),
    )
}

/// The refusal of a version that is not spoken here (-32022).
fn unsupported(requested: &str) -> CallError {
    let data = serde_json::json!({
        "supported": ProtocolVersion::ALL.map(ProtocolVersion::as_str),
        "requested": requested,
    });
    CallError::refused(UNSUPPORTED_VERSION, "Unsupported protocol version")
        .with_data(data.to_string())
}
