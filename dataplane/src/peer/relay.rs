//! A request of a session that lives elsewhere: sent on whole to its home, one hop, and
//! the answer streamed back as it comes.
//!
//! Where the home is gone, to the node that all nodes come to by hashing, which may be
//! this one. What may have been begun there is not begun again elsewhere: its caller
//! gets [`HOME_GONE`].

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    Peer, Place,
    passing::Passing,
    pool::{Ask, SendError, UnderWay},
};
use crate::{
    body::Body,
    call::Method,
    codec::{Inbound, json},
    envelope::{Kind, Message, ScanError},
    error::{CallError, HOME_GONE, INTERNAL_ERROR},
    session::{Home, Session},
};

/// What the path of a relayed request begins with; the gateway's follows.
pub(super) const PATH: &str = "/relay";
/// The start of a node that is meant.
pub(super) const TARGET: HeaderName = HeaderName::from_static("mcp-fleet-target");
/// The gateway: project and name.
pub(super) const GATEWAY: HeaderName = HeaderName::from_static("mcp-fleet-gateway");
/// Who the client is, as JSON in base64url.
pub(super) const PRINCIPAL: HeaderName = HeaderName::from_static("mcp-fleet-principal");
/// In answers: what became of the request.
pub(super) const OUTCOME: HeaderName = HeaderName::from_static("mcp-fleet-outcome");

/// The answer is that of the session.
pub(super) const ANSWERED: HeaderValue = HeaderValue::from_static("answered");
/// The start that was meant is no more.
pub(super) const NOT_HERE: HeaderValue = HeaderValue::from_static("not-here");
/// Its home can be reached from there.
pub(super) const HOME_LIVES: HeaderValue = HeaderValue::from_static("home-lives");

/// Between two attempts where nodes do not agree yet, and for how long there are any.
const AGAIN: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(3);

/// The answer to a request of a session that lives elsewhere, or `None`: it is for this
/// node to answer. That is found out before anything is awaited, as far as it can be.
pub(crate) fn elsewhere<'a>(
    inbound: &'a Inbound,
    session: &'a Session,
    verb: Verb,
    scanned: Option<&Result<Message, ScanError>>,
) -> Option<BoxFuture<'a, Option<Response<Body>>>> {
    let peers = &inbound.node.peers;
    if peers.is_alone() || is_for_any_node(inbound, scanned) {
        return None;
    }
    let Place::At(peer) = peers.place(session) else {
        return None;
    };
    if inbound.relayed {
        return Some(Box::pin(second_opinion(inbound, session)));
    }
    let request = match scanned {
        Some(Ok(message)) if message.kind == Kind::Request => message.id,
        _ => None,
    };
    let waiting = Waiting {
        id: request.map(|id| inbound.body.slice(id.range())),
        repeatable: is_repeatable(inbound, &verb, scanned),
    };
    Some(Box::pin(forward(inbound, session, verb, waiting, peer)))
}

/// The answer to a request that goes on with a call which another node holds. `None`: that
/// node is no peer.
pub(crate) async fn to_holder(inbound: &Inbound, home: &Home, id: Bytes) -> Option<Response<Body>> {
    let peers = &inbound.node.peers;
    let peer = peers.at(home)?;
    let waiting = Waiting {
        id: Some(id),
        repeatable: false,
    };
    let mut ask = ask(inbound, Verb::POST).ok()?;
    ask.headers.insert(TARGET, header_of(&peer.home.boot)?);
    let why = match peers.send(&peer, inbound.worker, &ask).await {
        Ok((answer, under_way)) => {
            if answer.headers().get(OUTCOME) == Some(&ANSWERED) {
                peers.relayed.fetch_add(1, Ordering::Relaxed);
                return Some(answered(answer, under_way, &waiting));
            }
            "does not take it"
        }
        Err(SendError::NotSent(_)) => "cannot be reached",
        Err(SendError::Lost(_)) => "went away during the call",
    };
    let why = format!("data plane {}, which holds the call, {why}", home.node);
    Some(refusal(&waiting, &CallError::refused(HOME_GONE, why)))
}

/// Who waits for the answer.
struct Waiting {
    /// The id of the request; `None`: it is none.
    id: Option<Bytes>,
    /// It may be begun twice.
    repeatable: bool,
}

fn method(inbound: &Inbound, message: &Message) -> Method {
    let name = message.method.map(|span| span.of(&inbound.body));
    name.map_or(Method::Other, Method::parse)
}

/// What every node answers alike, for every session.
fn is_for_any_node(inbound: &Inbound, scanned: Option<&Result<Message, ScanError>>) -> bool {
    let Some(Ok(message)) = scanned else {
        return false;
    };
    message.kind == Kind::Request
        && matches!(
            method(inbound, message),
            Method::Ping
                | Method::ToolsList
                | Method::PromptsList
                | Method::ResourcesList
                | Method::TemplatesList
        )
}

/// Reads, what ends a session and what opens a stream of it may be done twice; what
/// calls a tool, or nobody here knows, may not.
fn is_repeatable(
    inbound: &Inbound,
    verb: &Verb,
    scanned: Option<&Result<Message, ScanError>>,
) -> bool {
    match scanned {
        None => *verb == Verb::DELETE || *verb == Verb::GET,
        Some(Err(_)) => false,
        Some(Ok(message)) => matches!(
            method(inbound, message),
            Method::SetLevel | Method::ResourcesRead | Method::PromptsGet | Method::Complete
        ),
    }
}

async fn forward(
    inbound: &Inbound,
    session: &Session,
    verb: Verb,
    waiting: Waiting,
    first: Arc<Peer>,
) -> Option<Response<Body>> {
    let peers = &inbound.node.peers;
    let mut ask = match ask(inbound, verb) {
        Ok(ask) => ask,
        Err(error) => {
            let error =
                CallError::refused(INTERNAL_ERROR, format!("it cannot be relayed: {error}"));
            return Some(refusal(&waiting, &error));
        }
    };
    let mut next = Some(first);
    let mut why = "the data planes do not agree where it lives".to_owned();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let peer = match next.take() {
            Some(peer) => peer,
            None => match peers.place(session) {
                Place::Here => return None,
                Place::At(peer) => peer,
            },
        };
        ask.headers.insert(TARGET, header_of(&peer.home.boot)?);
        match peers.send(&peer, inbound.worker, &ask).await {
            Ok((answer, under_way)) => {
                match answer.headers().get(OUTCOME) {
                    Some(outcome) if outcome == ANSWERED => {
                        peers.relayed.fetch_add(1, Ordering::Relaxed);
                        return Some(answered(answer, under_way, &waiting));
                    }
                    Some(outcome) if outcome == NOT_HERE => {
                        peer.leave("another start of it is there")
                    }
                    outcome => {
                        // One of the two has not learned yet what the other knows.
                        tokio::time::sleep(AGAIN).await;
                        next = peers.home(session).filter(|_| outcome == Some(&HOME_LIVES));
                    }
                }
                why = format!("data plane {} does not take it", peer.home.node);
            }
            Err(error @ SendError::NotSent(_)) => {
                peer.leave(&error.to_string());
                why = format!("data plane {} cannot be reached", peer.home.node);
            }
            Err(error @ SendError::Lost(_)) => {
                tracing::info!(target: "mcp::calls", peer = peer.home.node, %error, "relayed in vain");
                why = format!("data plane {} went away during the call", peer.home.node);
                if !waiting.repeatable {
                    break;
                }
            }
        }
    }
    Some(refusal(&waiting, &CallError::refused(HOME_GONE, why)))
}

/// This node was asked although it believes the session elsewhere. Where its home can be
/// reached from here, it is left to it: a session has one home. Otherwise another node
/// has only seen sooner that it is gone.
async fn second_opinion(inbound: &Inbound, session: &Session) -> Option<Response<Body>> {
    let home = inbound.node.peers.home(session)?;
    if !inbound.node.peers.answers(&home).await {
        return None;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response.headers_mut().insert(OUTCOME, HOME_LIVES);
    Some(response)
}

/// The request as it is sent on: what its answer depends on, and no credentials.
fn ask(inbound: &Inbound, verb: Verb) -> Result<Ask, String> {
    let mut headers = HeaderMap::with_capacity(inbound.headers.len() + 3);
    for (name, value) in &inbound.headers {
        if is_relayed(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    let principal = serde_json::to_vec(&*inbound.principal).map_err(|e| e.to_string())?;
    let principal = URL_SAFE_NO_PAD.encode(principal);
    for (name, text) in [(GATEWAY, &inbound.gateway.id), (PRINCIPAL, &principal)] {
        let value = HeaderValue::from_str(text).map_err(|error| error.to_string())?;
        headers.insert(name, value);
    }
    Ok(Ask {
        verb,
        path: format!("{PATH}{}", inbound.gateway.path),
        headers,
        body: inbound.body.clone(),
    })
}

fn is_relayed(name: &HeaderName) -> bool {
    let text = name.as_str();
    if text.starts_with("mcp-fleet-") {
        // Of ours there are only those that are made here.
        return false;
    }
    text.starts_with("mcp-")
        || matches!(
            text,
            "accept" | "content-type" | "last-event-id" | "traceparent" | "tracestate" | "baggage"
        )
}

fn header_of(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// The answer of the session's home, as it comes.
fn answered(answer: Response<Incoming>, under_way: UnderWay, waiting: &Waiting) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    head.headers.remove(OUTCOME);
    head.headers.remove(header::DATE);
    head.version = http::Version::default();
    let is_events = head
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let last_words = waiting.id.as_ref().filter(|_| is_events).map(|id| {
        let what = "the data plane that held the call went away";
        CallError::refused(HOME_GONE, what).to_message(id)
    });
    let body = Body::passing(Passing::new(body, under_way, last_words));
    Response::from_parts(head, body)
}

/// An error of ours: to a request as JSON-RPC has it, otherwise as a status.
fn refusal(waiting: &Waiting, error: &CallError) -> Response<Body> {
    match &waiting.id {
        Some(id) => json(StatusCode::OK, error.to_message(id)),
        None => json(StatusCode::SERVICE_UNAVAILABLE, error.to_message(b"null")),
    }
}
