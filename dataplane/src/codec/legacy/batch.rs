//! Batches, which clients of 2025-03-26 may send.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use http::{Response, StatusCode};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use super::{Inbound, call, inbox, standing, streams};
use crate::{
    body::Body,
    call::Reply,
    codec::{empty, json, unreadable},
    envelope::{self, Kind, Span},
    error::{INVALID_REQUEST, error_message},
    session::{Session, standing::is_standing},
    stack,
};

/// Messages in a batch.
const MOST: usize = 100;
/// Messages that may wait to be sent before the responses.
const BEFORE: usize = 16;

/// The requests of a batch run side by side; the responses are one array (JSON-RPC 2.0,
/// section 6). Where the client is asked or told something before, they are the last event of
/// a stream (2025-03-26, Transports: Sending Messages to the Server, item 6).
pub(super) async fn answer(inbound: Inbound, session: Arc<Session>) -> Response<Body> {
    let spans = match envelope::scan_batch(&inbound.body) {
        Ok(spans) if spans.is_empty() || spans.len() > MOST => {
            let what = format!("a batch has 1 to {MOST} messages");
            return json(
                StatusCode::BAD_REQUEST,
                error_message(b"null", INVALID_REQUEST, &what, None),
            );
        }
        Ok(spans) => spans,
        Err(error) => {
            let (_, error) = unreadable(&error, &inbound.body);
            return json(StatusCode::BAD_REQUEST, error.to_message(b"null"));
        }
    };
    let grace = inbound.gateway.resume_grace;
    let (tells, mut told) = mpsc::channel(BEFORE);
    // Dropped, it ends.
    let mut running = JoinSet::new();
    running.spawn(responses(inbound, session.clone(), spans, tells));
    let first = told.recv().await;
    let responses = async move { running.join_next().await?.ok()? };
    let Some(first) = first else {
        return match responses.await {
            Some(responses) => json(StatusCode::OK, responses),
            None => empty(StatusCode::ACCEPTED),
        };
    };
    let before = stream::iter([first]).chain(ReceiverStream::new(told));
    let all = before.chain(stream::once(responses).filter_map(future::ready));
    streams::of_call(
        &session,
        grace,
        Box::pin(all.map(Ok)),
        Bytes::from_static(b"null"),
    )
}

/// The array of responses; `None`: nothing has asked for one.
async fn responses(
    inbound: Inbound,
    session: Arc<Session>,
    spans: Vec<Span>,
    tells: mpsc::Sender<Bytes>,
) -> Option<Bytes> {
    let responses = spans.into_iter().map(|span| {
        let body = inbound.body.slice(span.range());
        element(&inbound, session.clone(), body, &tells)
    });
    let responses = future::join_all(responses).await;
    let mut out = vec![b'['];
    for response in responses.into_iter().flatten() {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(&response);
    }
    out.push(b']');
    (out.len() > 2).then(|| out.into())
}

async fn element(
    inbound: &Inbound,
    session: Arc<Session>,
    body: Bytes,
    tells: &mpsc::Sender<Bytes>,
) -> Option<Bytes> {
    let message = match envelope::scan(&body) {
        Ok(message) if message.kind == Kind::Request => message,
        Ok(other) => {
            // There is no place for what is wrong with an answer.
            let _ = inbox::take(inbound, &session, &body, &other).await;
            return None;
        }
        Err(error) => {
            let (id, error) = unreadable(&error, &body);
            return Some(error.to_message(id.as_deref().unwrap_or(b"null")));
        }
    };
    let id = message
        .id
        .map_or_else(Bytes::new, |span| body.slice(span.range()));
    let call = call(
        inbound.worker,
        inbound.principal.clone(),
        session,
        body,
        message,
    );
    let reply = if is_standing(call.method) {
        standing::answer(inbound, call).await
    } else {
        stack::answer(&inbound.node, inbound.gateway.clone(), call).await
    };
    let mut messages = match reply {
        Ok(Reply::Whole(answer)) => return Some(answer.body),
        Ok(Reply::Parts(parts)) => return Some(parts.concat().into()),
        Ok(Reply::Stream(messages)) => messages,
        Err(error) => return Some(error.to_message(&id)),
    };
    let mut last = Bytes::new();
    while let Some(message) = messages.next().await {
        let message = message.unwrap_or_else(|error| error.to_message(&id));
        let kind = envelope::scan(&message).map(|message| message.kind);
        if matches!(kind, Ok(Kind::Request | Kind::Notification)) {
            // Whoever would take it is gone, and this is, too.
            let _ = tells.send(message).await;
        } else if !message.is_empty() {
            last = message;
        }
    }
    (!last.is_empty()).then_some(last)
}
