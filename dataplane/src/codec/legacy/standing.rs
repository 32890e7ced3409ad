//! Requests that stand: made, told to the other data planes, and made again where a session is
//! taken up, or has other backends ([`crate::session::standing`]).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};
use tokio::time::timeout;

use super::{Inbound, call, refuse_message, session};
use crate::{
    body::Body,
    call::{Call, Method, Reply},
    codec::empty,
    envelope::{self, Kind},
    error::{CallError, INVALID_REQUEST},
    node::Node,
    peer::{Place, standing},
    route::route,
    session::{Session, standing::is_standing},
    stack,
    table::Gateway,
    upstream::http::headers::SESSION_ID,
};

/// How long a request waits for those to be made that stand.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers a request that stands, or ends one that does.
pub(super) async fn answer(inbound: &Inbound, call: Call) -> Result<Reply, CallError> {
    let (method, body, message) = (call.method, call.body.clone(), call.message);
    let session = call.session.clone();
    let reply = stack::answer(&inbound.node, inbound.gateway.clone(), call).await;
    let (Some(session), Some(id)) = (session, inbound.headers.get(SESSION_ID)) else {
        return reply;
    };
    let (node, gateway, id) = (inbound.node.clone(), inbound.gateway.clone(), id.clone());
    let tell = async move {
        session.stands(method, &body, &message, false);
        if !is_current(&node, &gateway) {
            // It may have been made at a backend that was gone before this stood.
            session.is_regrouped();
        }
        standing::tell(&node, &gateway, &id, &session, body).await;
    };
    match reply {
        Ok(Reply::Whole(answer)) if answer.error.is_none() => {
            tell.await;
            Ok(Reply::Whole(answer))
        }
        Ok(stream @ Reply::Stream(_)) => Ok(stream.when_done(|| drop(tokio::spawn(tell)))),
        other => other,
    }
}

/// Takes down a request that was made at another data plane, which has let it in.
pub(crate) async fn told(inbound: Inbound) -> Response<Body> {
    let session = match session(&inbound.headers, &inbound) {
        Err(refusal) => return *refusal,
        Ok(session) => session,
    };
    let message = envelope::scan(&inbound.body).ok();
    let message = message.filter(|message| message.kind == Kind::Request);
    let method = |span: envelope::Span| Method::parse(span.of(&inbound.body));
    let method = message.as_ref().and_then(|m| m.method.map(method));
    let (Some(message), Some(method)) = (message, method.filter(|m| is_standing(*m))) else {
        let error = CallError::refused(INVALID_REQUEST, "this is no request that stands");
        return *refuse_message(StatusCode::BAD_REQUEST, &error);
    };
    session.stands(method, &inbound.body, &message, true);
    // Its client may have come already, and say nothing more.
    if session.is_listening() {
        take_up(&inbound, &session).await;
    }
    empty(StatusCode::NO_CONTENT)
}

/// Makes what stands and was not made here, where the session is served here now.
pub(super) async fn take_up(inbound: &Inbound, session: &Arc<Session>) {
    if !matches!(inbound.node.peers.place(session), Place::Here) {
        return;
    }
    let Some(undone) = session.take_up() else {
        return;
    };
    let (node, gateway) = (inbound.node.clone(), inbound.gateway.clone());
    let is_at = session.is_at();
    for backend in gateway
        .backends
        .iter()
        .filter(|b| is_at.contains(&b.serial))
    {
        if session.is_listening() {
            let upstream = &backend.upstream;
            upstream.listen(inbound.worker, session, backend.serial);
        }
    }
    let calls = undone.requests.into_iter();
    let calls = calls.filter_map(|body| again(inbound, session, body));
    let calls = calls.filter(|call| !(undone.in_part && is_made(&gateway, session, call)));
    let calls: Vec<_> = calls.collect();
    let making = tokio::spawn(async move {
        for call in calls {
            match stack::answer(&node, gateway.clone(), call).await {
                Ok(Reply::Stream(mut messages)) => while messages.next().await.is_some() {},
                Ok(_) => {}
                Err(error) => {
                    let what = "what a session has asked for is refused at its new place";
                    tracing::info!(target: "mcp::calls", %error, "{what}");
                }
            }
        }
    });
    // A backend that does not answer is not waited for.
    let _ = timeout(PATIENCE, making).await;
}

/// Whether what was made here before still stands.
fn is_made(gateway: &Arc<Gateway>, session: &Session, call: &Call) -> bool {
    let uri = call.message.uri;
    let uri = uri.and_then(|uri| envelope::string_value(&call.body, uri));
    match (uri, route(gateway, call)) {
        (Some(uri), Ok(route)) => session.is_subscribed(route.backend.serial, &uri),
        (Some(_), Err(_)) => false,
        // A level of logs is the session's own.
        (None, _) => true,
    }
}

/// Whether a gateway is that of the table in use.
fn is_current(node: &Node, gateway: &Arc<Gateway>) -> bool {
    let table = node.table.load();
    let current = table.gateway(&gateway.path);
    current.is_some_and(|current| Arc::ptr_eq(current, gateway))
}

fn again(inbound: &Inbound, session: &Arc<Session>, body: Bytes) -> Option<Call> {
    let message = envelope::scan(&body).ok()?;
    Some(call(inbound, session.clone(), body, message))
}
