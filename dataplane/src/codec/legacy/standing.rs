//! Requests that stand: made, and told to the other data planes ([`crate::session::standing`]).

use std::sync::Arc;

use http::{Response, StatusCode};

use super::{
    Inbound,
    catch_up::{Client, is_current},
    refuse_message, session,
};
use crate::{
    body::Body,
    call::{Call, Method, Reply, WorkerId},
    codec::empty,
    envelope::{self, Kind, Message},
    error::{CallError, INVALID_REQUEST},
    peer::standing,
    route::route,
    session::{
        Session,
        standing::{NO_BACKEND, is_standing},
    },
    stack,
    upstream::http::headers::SESSION_ID,
};

/// Answers a request that stands, or ends one that does.
pub(super) async fn answer(inbound: &Inbound, call: Call) -> Result<Reply, CallError> {
    let (method, body, message) = (call.method, call.body.clone(), call.message);
    let (worker, session, asked) = (call.worker, call.session.clone(), call.clone());
    let reply = stack::answer(&inbound.node, inbound.gateway.clone(), call).await;
    let (Some(session), Some(id)) = (session, inbound.headers.get(SESSION_ID)) else {
        return reply;
    };
    let (node, gateway, id) = (inbound.node.clone(), inbound.gateway.clone(), id.clone());
    // Where it has been answered; the level of logs is the session's own.
    let at = route(&gateway, &asked).map_or(NO_BACKEND, |route| route.backend.serial);
    let tell = async move {
        session.stands(method, &body, &message, Some(at));
        leave(&session, worker, method, &body, &message);
        if !is_current(&node, &Arc::downgrade(&gateway)) {
            // It may have been made at a backend that was gone before this stood.
            session.falls_behind();
        }
        standing::tell(&node, &gateway, &id, &session, body).await;
    };
    match reply {
        Ok(Reply::Whole(answer)) if answer.error.is_none() => {
            tell.await;
            Ok(Reply::Whole(answer))
        }
        Ok(stream @ Reply::Stream(_)) => Ok(stream.when_done(|| drop(tokio::spawn(tell)))),
        // The client wants it no longer, even where nobody is there to be told so.
        refused if method == Method::Unsubscribe => {
            tell.await;
            refused
        }
        refused => refused,
    }
}

/// Gives up what a client wants to hear of no longer where it is not asked for now: at a backend
/// that its gateway has not, or that another one has the resource from.
fn leave(session: &Session, worker: WorkerId, method: Method, body: &[u8], message: &Message) {
    let uri = message.uri.filter(|_| method == Method::Unsubscribe);
    if let Some(uri) = uri.and_then(|uri| envelope::string_value(body, uri)) {
        session.leave(worker, &uri, None);
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
    session.stands(method, &inbound.body, &message, None);
    leave(&session, inbound.worker, method, &inbound.body, &message);
    // Its client may have come already, and say nothing more.
    if session.is_listening() {
        Client::new(&inbound, &session).catch_up().await;
    }
    empty(StatusCode::NO_CONTENT)
}
