//! Clients of the `initialize` era, 2025-03-26 to 2025-11-25: sessions, and
//! batches in the first of these revisions.

mod batch;
mod catch_up;
mod inbox;
pub(crate) mod standing;
mod streams;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method as Verb, Response, StatusCode};

use super::{
    Inbound, empty, events_response, json, prefers_events, respond, unreadable, unsupported,
};
use crate::{
    auth::Principal,
    body::Body,
    call::{Call, Era, Method, ProtocolVersion, Reply, WorkerId},
    envelope::{self, Kind, Message, ScanError},
    error::{
        CallError, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, error_message, result_message,
    },
    listen::Refusal,
    peer::{ended, relay},
    session::{Session, standing::is_standing},
    stack,
    upstream::http::headers::{PROTOCOL_VERSION, SESSION_ID},
};

pub use streams::get;

/// Answers a POST of the legacy era.
pub(super) async fn post(inbound: Inbound, scanned: Result<Message, ScanError>) -> Response<Body> {
    if let Ok(message) = &scanned
        && message.kind == Kind::Request
        && message
            .method
            .is_some_and(|m| m.of(&inbound.body) == b"initialize")
    {
        return initialize(&inbound, message).await;
    }
    let session = match session(&inbound.headers, &inbound) {
        Ok(session) => session,
        Err(refusal) => return *refusal,
    };
    if let Some(answer) = relay::elsewhere(&inbound, &session, Verb::POST, Some(&scanned))
        && let Some(answer) = answer.await
    {
        return answer;
    }
    if session.is_behind() {
        let client = catch_up::Client::new(&inbound, &session);
        Box::pin(client.catch_up()).await;
    }
    match scanned {
        Ok(message) => one(inbound, session, message).await,
        Err(ScanError::Batch) if session.version == ProtocolVersion::V2025_03_26 => {
            batch::answer(inbound, session).await
        }
        Err(error) => {
            let (id, error) = unreadable(&error, &inbound.body);
            json(
                StatusCode::BAD_REQUEST,
                error.to_message(id.as_deref().unwrap_or(b"null")),
            )
        }
    }
}

/// Ends a session (DELETE): here, at its home before that is said, and at all other nodes
/// as soon as they have heard of it.
pub async fn delete(inbound: &Inbound) -> Response<Body> {
    let session = match session(&inbound.headers, inbound) {
        Err(refusal) => return *refusal,
        Ok(session) => session,
    };
    let kept = session_id(&inbound.headers).and_then(|id| inbound.node.sessions.end(id, &session));
    if let Some(answer) = relay::elsewhere(inbound, &session, Verb::DELETE, None) {
        // Whatever came of it: the home may have heard already, or be gone.
        drop(answer.await);
    }
    let gone: Vec<_> = [session].into_iter().chain(kept).collect();
    ended::close(&inbound.node, &gone);
    empty(StatusCode::NO_CONTENT)
}

async fn one(inbound: Inbound, session: Arc<Session>, message: Message) -> Response<Body> {
    if message.kind != Kind::Request {
        let taken = inbox::take(&inbound, &session, &inbound.body, &message);
        return match Box::pin(taken).await {
            Ok(()) => empty(StatusCode::ACCEPTED),
            Err((status, error)) => *refuse_message(status, &error),
        };
    }
    let id = message
        .id
        .map_or_else(Bytes::new, |span| inbound.body.slice(span.range()));
    let call = call(
        inbound.worker,
        inbound.principal.clone(),
        session.clone(),
        inbound.body.clone(),
        message,
    );
    let events = prefers_events(&inbound.headers);
    let grace = inbound.gateway.resume_grace;
    let reply = if is_standing(call.method) {
        Box::pin(standing::answer(&inbound, call)).await
    } else {
        let Inbound { node, gateway, .. } = inbound;
        stack::answer(&node, gateway, call).await
    };
    match reply {
        Ok(Reply::Whole(answer)) if events => {
            events_response(Box::pin(stream::iter([answer.body])))
        }
        Ok(Reply::Parts(parts)) if events => {
            let message = Bytes::from(parts.concat());
            events_response(Box::pin(stream::iter([message])))
        }
        Ok(Reply::Stream(messages)) => streams::of_call(&session, grace, messages, id),
        reply => respond(reply, id, Era::Legacy),
    }
}

fn call(
    worker: WorkerId,
    principal: Arc<Principal>,
    session: Arc<Session>,
    body: Bytes,
    message: Message,
) -> Call {
    Call {
        worker,
        version: session.version,
        method: message
            .method
            .map_or(Method::Other, |span| Method::parse(span.of(&body))),
        body,
        message,
        target: None,
        param_headers: Vec::new(),
        principal,
        session: Some(session),
        rounds: Default::default(),
    }
}

/// Opens a session. A version that is not spoken here is answered with the one
/// nearest to it that is (2025-11-25, Lifecycle: Version Negotiation).
async fn initialize(inbound: &Inbound, message: &Message) -> Response<Body> {
    let body = &inbound.body;
    let id = message.id.map_or(&b"null"[..], |span| span.of(body));
    let wanted = message
        .init_protocol_version
        .and_then(|span| envelope::string_value(body, span));
    let Some(wanted) = wanted else {
        let what = "params.protocolVersion is missing or not a string";
        return json(
            StatusCode::OK,
            error_message(id, INVALID_PARAMS, what, None),
        );
    };
    let version = match ProtocolVersion::parse(&wanted) {
        Some(version) if version.era() == Era::Legacy => version,
        None if *wanted == *"2024-11-05" => ProtocolVersion::V2025_03_26,
        _ => ProtocolVersion::NEWEST_LEGACY,
    };
    let of = |span: Option<envelope::Span>, other: &'static [u8]| {
        span.map_or(other, |s| s.of(body)).to_vec()
    };
    let session = inbound.node.sessions.create(
        &inbound.gateway.id,
        &inbound.principal.id,
        version,
        &of(
            message.init_client_info,
            br#"{"name":"unknown","version":""}"#,
        ),
        &of(message.init_capabilities, b"{}"),
    );
    let session = session.and_then(|id| HeaderValue::from_str(&id).map_err(std::io::Error::other));
    let session = match session {
        Ok(session) => session,
        Err(error) => {
            tracing::error!(%error, "no session could be opened");
            let error = CallError::refused(INTERNAL_ERROR, "no session could be opened");
            return json(StatusCode::OK, error.to_message(id));
        }
    };
    let result = match stack::initialize(&inbound.gateway, version).await {
        Ok(result) => result,
        Err(error) => return json(StatusCode::OK, error.to_message(id)),
    };
    let mut response = json(StatusCode::OK, result_message(id, &result));
    response.headers_mut().insert(SESSION_ID, session);
    response
}

/// A refusal of a message that is no request.
fn refuse_message(status: StatusCode, error: &CallError) -> Refusal {
    Box::new(json(status, error.to_message(b"null")))
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION_ID)?.to_str().ok()
}

/// The session that a request belongs to, or what is wrong with it: 400 where
/// there is none, 404 where it is unknown, so that the client opens another
/// (2025-11-25, Transports: Session Management).
fn session(headers: &HeaderMap, inbound: &Inbound) -> Result<Arc<Session>, Refusal> {
    let refuse = |status, error: CallError| Err(refuse_message(status, &error));
    if let Some(version) = headers.get(PROTOCOL_VERSION) {
        let version = version.to_str().unwrap_or("?");
        if ProtocolVersion::parse(version).is_none() {
            return refuse(StatusCode::BAD_REQUEST, unsupported(version));
        }
    }
    if !headers.contains_key(SESSION_ID) {
        let what = "header Mcp-Session-Id is missing: open a session with `initialize`, \
                    or send a 2026-07-28 request with MCP-Protocol-Version and _meta";
        return refuse(
            StatusCode::BAD_REQUEST,
            CallError::refused(INVALID_REQUEST, what),
        );
    }
    let found = session_id(headers).and_then(|id| {
        inbound
            .node
            .sessions
            .find(id, &inbound.gateway.id, &inbound.principal.id)
    });
    match found {
        Some(session) => Ok(session),
        None => {
            let what = "session not found: it has ended or expired, open another with `initialize`";
            refuse(
                StatusCode::NOT_FOUND,
                CallError::refused(INVALID_REQUEST, what),
            )
        }
    }
}
