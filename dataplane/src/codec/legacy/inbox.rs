//! What a legacy client sends beside requests: answers to what backends have asked, and
//! notifications.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future;
use http::StatusCode;

use super::Inbound;
use crate::{
    backend::Backend,
    envelope::{Kind, Message, Span},
    error::{CallError, INVALID_REQUEST},
    session::{
        Session,
        asked::{Asked, Token, Via},
        inflight::CallId,
    },
};

/// How long a client waits for a backend to take what it sends; it goes on behind that.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes an answer or a notification. What nobody is concerned by is taken, too.
///
/// # Errors
/// An answer that nobody waits for, or that cannot be given to who does; with the
/// status of the response.
pub(super) async fn take(
    inbound: &Inbound,
    session: &Arc<Session>,
    body: &Bytes,
    message: &Message,
) -> Result<(), (StatusCode, CallError)> {
    match message.kind {
        Kind::Response | Kind::Error => answer(inbound, session, body, message).await,
        Kind::Notification => {
            notification(inbound, session, body, message).await;
            Ok(())
        }
        Kind::Request => Ok(()),
    }
}

/// Gives an answer to the backend that has asked, under the id that it knows.
async fn answer(
    inbound: &Inbound,
    session: &Session,
    body: &Bytes,
    message: &Message,
) -> Result<(), (StatusCode, CallError)> {
    let open = message
        .id
        .and_then(|id| Some((id, session.asked(Token::Id, body, id)?)));
    let nobody = || {
        let what = "no request of this id is open: it is over, or it was another session's";
        (
            StatusCode::BAD_REQUEST,
            CallError::refused(INVALID_REQUEST, what),
        )
    };
    let (id, asked) = open.ok_or_else(nobody)?;
    if let Via::Call { waiter } = &asked.via {
        let given = session.give(waiter, &asked, body.clone());
        session.paid(&asked);
        return if given { Ok(()) } else { Err(nobody()) };
    }
    // Whoever has the connection has asked, and knows what is still open.
    if matches!(asked.via, Via::Child { .. }) && !session.owes(&asked) {
        return Err(nobody());
    }
    let backend = backend_of(inbound, &asked).ok_or_else(nobody)?;
    let body = asked.restored(body, id).ok_or_else(nobody)?;
    let answered = backend.upstream.deliver(inbound.worker, &asked.via, body);
    answered
        .await
        .map_err(|error| (StatusCode::BAD_GATEWAY, error))?;
    session.paid(&asked);
    Ok(())
}

/// Gives a notification to whom it concerns.
async fn notification(inbound: &Inbound, session: &Arc<Session>, body: &Bytes, message: &Message) {
    let method = message.method.map_or(&b""[..], |span| span.of(body));
    let to = match method {
        // The proxy has opened the upstream sessions itself.
        b"notifications/initialized" => return,
        b"notifications/progress" => {
            let token = message.params_progress_token;
            let asked = token.and_then(|t| Some((t, session.asked(Token::Progress, body, t)?)));
            if let Some((token, asked)) = asked {
                progress(inbound, body, token, asked).await;
            }
            return;
        }
        b"notifications/cancelled" => {
            let request = message.request_id.map(|id| CallId::of(id.of(body)));
            if let Some(request) = request {
                session.cancel(request);
            }
            let serial = request.and_then(|request| session.serves(request));
            let backend = |serial| inbound.gateway.backends.iter().find(|b| b.serial == serial);
            serial.and_then(backend).cloned().into_iter().collect()
        }
        b"notifications/roots/list_changed" => inbound.gateway.backends.clone(),
        _ => inbound.gateway.takes(method).cloned().into_iter().collect(),
    };
    let (worker, session, body) = (inbound.worker, session.clone(), body.clone());
    within_patience(async move {
        let told = to.iter().map(|backend| {
            let body = body.clone();
            backend
                .upstream
                .tell(worker, &session, backend.serial, body)
        });
        future::join_all(told).await;
    })
    .await;
}

/// Gives the progress of an answer to the backend that waits for it.
async fn progress(inbound: &Inbound, body: &Bytes, token: Span, asked: Asked) {
    let backend = backend_of(inbound, &asked);
    let (Some(backend), Some(body)) = (backend, asked.restored(body, token)) else {
        return;
    };
    let worker = inbound.worker;
    within_patience(async move {
        if let Err(error) = backend.upstream.deliver(worker, &asked.via, body).await {
            tracing::debug!(%error, "progress of a client was not passed on");
        }
    })
    .await;
}

/// Waits for what a notification sets off, but not for long: a backend that hangs does
/// not hold up its client.
async fn within_patience(sending: impl Future<Output = ()> + Send + 'static) {
    let _ = tokio::time::timeout(PATIENCE, tokio::spawn(sending)).await;
}

/// The backend that has asked, as long as it is behind the gateway.
fn backend_of(inbound: &Inbound, asked: &Asked) -> Option<Arc<Backend>> {
    let backends = &inbound.gateway.backends;
    let place = backends.binary_search_by(|b| b.name().cmp(&asked.backend));
    Some(backends[place.ok()?].clone())
}
