//! What a legacy client gets as events: the messages of a call, and what belongs to no
//! call (2025-11-25, Transports: Streamable HTTP).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Method as Verb, Response, StatusCode, header};

use super::{Inbound, catch_up::Client, refuse_message, session};
use crate::{
    body::Body,
    call::Messages,
    catalog::announce::Seen,
    codec::event_stream,
    error::{CallError, INVALID_REQUEST},
    listen::Refusal,
    peer::relay,
    session::{
        Session,
        stream::{Reader, Stream},
    },
    upstream::http::headers::LAST_EVENT_ID,
};

/// The response with a call's messages. They go through a queue of their own, which
/// lives on when the client loses its connection: it can come back for the rest.
pub(super) fn of_call(
    session: &Arc<Session>,
    grace: std::time::Duration,
    messages: Messages,
    id: Bytes,
) -> Response<Body> {
    let stream = session.call_stream(grace);
    let reader = stream.read(session, None);
    tokio::spawn(feed(session.clone(), stream, messages, id));
    events(reader)
}

/// Answers a GET: with the stream of the session, or the rest of the one that the
/// client was reading.
pub async fn get(inbound: &Inbound) -> Response<Body> {
    open(inbound).await.unwrap_or_else(|refusal| *refusal)
}

async fn open(inbound: &Inbound) -> Result<Response<Body>, Refusal> {
    let session = session(&inbound.headers, inbound)?;
    // Streams are where the session lives.
    if let Some(answer) = relay::elsewhere(inbound, &session, Verb::GET, None)
        && let Some(answer) = answer.await
    {
        return Ok(answer);
    }
    if session.is_behind() {
        Client::new(inbound, &session).catch_up().await;
    }
    let accepted = inbound.headers.get(header::ACCEPT).is_none_or(|accept| {
        let has = |kind: &[u8]| memchr::memmem::find(accept.as_bytes(), kind).is_some();
        has(b"text/event-stream") || has(b"text/*") || has(b"*/*")
    });
    if !accepted {
        let what = "a GET must accept text/event-stream";
        return Err(refuse(StatusCode::NOT_ACCEPTABLE, what));
    }
    if inbound
        .node
        .draining
        .load(std::sync::atomic::Ordering::Relaxed)
    {
        // Another node has more time for it.
        let mut refusal = refuse(StatusCode::SERVICE_UNAVAILABLE, "this node is leaving");
        let headers = refusal.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return Err(refusal);
    }
    let reader = match inbound.headers.get(&LAST_EVENT_ID) {
        None => general(inbound, &session).await,
        Some(last) => {
            let last = last.to_str().ok().and_then(|id| session.position(id));
            let last = last.ok_or_else(|| {
                let what = "Last-Event-ID is not the id of an event of this session";
                refuse(StatusCode::BAD_REQUEST, what)
            })?;
            let stream = session.stream(last.stream);
            let reader = stream.and_then(|stream| stream.read(&session, Some(last.event)));
            match reader {
                None if !last.stream.of_call => general(inbound, &session).await,
                reader => reader,
            }
        }
    };
    reader.map(|reader| events(Some(reader))).ok_or_else(|| {
        let what = "the stream of Last-Event-ID is over: there is nothing more to come";
        refuse(StatusCode::BAD_REQUEST, what)
    })
}

/// The stream of what belongs to no call. From now on the backends of the session are
/// listened to.
async fn general(inbound: &Inbound, session: &Arc<Session>) -> Option<Reader> {
    let index = inbound.gateway.fresh_index().await;
    let seen = Seen::of(&index);
    let stream = session.general_stream(inbound.gateway.resume_grace, seen);
    let reader = stream.read(session, None);
    for backend in &inbound.gateway.backends {
        backend
            .upstream
            .listen(inbound.worker, session, backend.serial);
    }
    // The table in use now may be another one than that in use then.
    session.has_opened();
    tokio::spawn(attend(Client::new(inbound, session), stream));
    reader
}

/// Ends the stream of what belongs to no call in time: it would hold up a node that is leaving,
/// and keep a client where its session or its gateway is no longer, or lets it in no longer.
/// Until then the session catches up without a word of its client.
async fn attend(client: Client, stream: Arc<Stream>) {
    let (node, session) = (&client.node, &client.session);
    let (mut drain, mut tables) = (node.drain.subscribe(), node.configured.subscribe());
    while client.is_let_in() {
        if session.is_behind() {
            client.clone().catch_up().await;
        }
        tokio::select! {
            _ = drain.wait_for(|leaving| *leaving) => break,
            () = node.peers.moves(session) => break,
            () = stream.abandoned() => return,
            () = session.until_behind() => {}
            changed = tables.changed() => if changed.is_err() {
                return;
            },
        }
    }
    stream.done();
}

/// Puts the messages of a call into its stream, as fast as they are read. Without a
/// reader the call lives on for a while.
async fn feed(session: Arc<Session>, stream: Arc<Stream>, mut messages: Messages, id: Bytes) {
    let mut is_first = true;
    loop {
        let next = tokio::select! {
            biased;
            () = stream.abandoned() => return stream.close(),
            next = async { stream.room().await; messages.next().await } => next,
        };
        match next {
            Some(Ok(message)) if message.is_empty() => {
                if !is_first {
                    stream.let_go();
                }
            }
            Some(Ok(message)) => stream.push(message),
            Some(Err(error)) => {
                // The stream has begun: an error can only be a message now.
                stream.push(error.to_message(&id));
                break;
            }
            None => break,
        }
        is_first = false;
    }
    stream.done();
    session.ended_stream(&stream);
}

fn events(reader: Option<Reader>) -> Response<Body> {
    event_stream(match reader {
        Some(reader) => Body::frames(Box::pin(reader)),
        None => Body::empty(),
    })
}

fn refuse(status: StatusCode, what: &str) -> Refusal {
    refuse_message(status, &CallError::refused(INVALID_REQUEST, what))
}
