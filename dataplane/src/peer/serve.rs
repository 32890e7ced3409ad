//! The peer listener: what other data planes ask of this one.
//!
//! Who has connected is known from its certificate, and must be a peer by now: one that
//! has been revoked is none. A relayed request goes the way of all others from where its
//! client has been let in; it is never relayed again.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::watch, time::timeout};

use super::{
    ended,
    pool::{HEAD_MOST, STREAMS, WINDOW},
    relay::{ANSWERED, GATEWAY, NOT_HERE, OUTCOME, PATH, PRINCIPAL, TARGET},
    standing,
};
use crate::{
    auth::Principal, body::Body, call::WorkerId, codec::Inbound, listen, node::Node, table::Gateway,
};

/// The path where sessions that have ended are told.
pub(super) const ENDED: &str = "/ended";
/// Longest time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Silence after which a peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// A node that has just come may know its peers before they know it: they wait for so long.
const ACQUAINTANCE: Duration = Duration::from_secs(2);
/// The request cannot be served here now.
const NOT_NOW: HeaderValue = HeaderValue::from_static("not-now");

/// Serves a connection of a peer.
///
/// # Errors
/// It breaks, or who has connected is no node of the fleet.
pub(crate) async fn connection(
    node: Arc<Node>,
    worker: WorkerId,
    stream: TcpStream,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let from = stream.peer_addr()?;
    let accepted = timeout(HANDSHAKE, node.peers.accept(stream)).await;
    let accepted = accepted
        .map_err(io::Error::from)
        .and_then(|accepted| accepted);
    let (stream, caller) = accepted.inspect_err(|error| {
        let refused = [io::ErrorKind::InvalidData, io::ErrorKind::PermissionDenied];
        // Others have just left.
        if refused.contains(&error.kind()) {
            let what = "who has come to the peer listener is no node of this fleet";
            tracing::warn!(%from, %error, "{what}");
        }
    })?;
    let caller: Arc<str> = caller.into();
    let until = stop.clone();
    let service = service_fn(move |request| {
        let (node, caller, until) = (node.clone(), caller.clone(), until.clone());
        async move { Ok::<_, Infallible>(answer(node, worker, &caller, request, until).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_MOST)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * STREAMS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = stopped(&mut stop) => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender being gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn answer(
    node: Arc<Node>,
    worker: WorkerId,
    caller: &str,
    request: Request<Incoming>,
    until: watch::Receiver<bool>,
) -> Response<Body> {
    let known = timeout(ACQUAINTANCE, node.peers.met(caller)).await;
    if known.is_err() {
        tracing::warn!(
            caller,
            "a node of this fleet that is no peer asks for something"
        );
        return outcome(StatusCode::FORBIDDEN, NOT_NOW);
    }
    if text(request.headers(), &TARGET) != Some(&node.peers.me().boot) {
        return outcome(StatusCode::MISDIRECTED_REQUEST, NOT_HERE);
    }
    if request.uri().path() == ENDED {
        let mut response = Response::new(Body::frames(ended::tell(&node.sessions, until)));
        response.headers_mut().insert(OUTCOME, ANSWERED);
        return response;
    }
    let answered = relayed(node, worker, request).await;
    answered.unwrap_or_else(|(status, why)| {
        tracing::info!(caller, why, "a relayed request is not served");
        outcome(status, NOT_NOW)
    })
}

async fn relayed(
    node: Arc<Node>,
    worker: WorkerId,
    request: Request<Incoming>,
) -> Result<Response<Body>, (StatusCode, &'static str)> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let standing = path.strip_prefix(standing::PATH);
    let path = standing.or_else(|| path.strip_prefix(PATH));
    let path = path.ok_or((StatusCode::NOT_FOUND, "there is no such path"))?;
    let gateway = gateway(&node, path, &head.headers);
    let gateway = gateway.ok_or((StatusCode::NOT_FOUND, "its gateway is not served here"))?;
    let principal = principal(&head.headers);
    let principal = principal.ok_or((StatusCode::BAD_REQUEST, "it names no principal"))?;
    let is_standing = standing.is_some();
    let inbound = Inbound {
        node,
        worker,
        gateway,
        principal: Arc::new(principal),
        headers: head.headers,
        body: Bytes::new(),
        relayed: true,
    };
    let answered = match is_standing {
        true => listen::stands(inbound, body).await,
        false => listen::dispatch(head.method, inbound, body).await,
    };
    let mut response = answered.unwrap_or_else(|refusal| *refusal);
    response.headers_mut().entry(OUTCOME).or_insert(ANSWERED);
    Ok(response)
}

/// The gateway at this path, if it is the one that is meant.
fn gateway(node: &Node, path: &str, headers: &HeaderMap) -> Option<Arc<Gateway>> {
    let gateway = node.table.load().gateway(path).cloned()?;
    (text(headers, &GATEWAY) == Some(&gateway.id)).then_some(gateway)
}

fn principal(headers: &HeaderMap) -> Option<Principal> {
    let text = URL_SAFE_NO_PAD.decode(text(headers, &PRINCIPAL)?).ok()?;
    serde_json::from_slice(&text).ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn outcome(status: StatusCode, what: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(OUTCOME, what);
    response
}
