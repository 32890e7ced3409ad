//! `resources/subscribe` of a client of the legacy era at a backend of the modern one, which
//! knows no such method: the session listens there, as a client of that era would, and passes
//! on what it hears on the client's stream.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use super::{
    QUEUE,
    source::{Out, Source, Subjects},
};
use crate::{
    backend::Backend,
    call::{Answer, Call, Era, Method, Reply},
    envelope,
    error::{CallError, INVALID_PARAMS, METHOD_NOT_FOUND, result_message},
    session::Session,
    upstream::message::{CLIENT_INFO, modern_meta},
};

/// Subscriptions of one session.
const MOST: usize = 1_000;
/// How long a backend may take to say that it honours one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a session is subscribed to, by backend and URI.
#[derive(Default)]
pub(crate) struct Subscribed(HashMap<(u64, String), Source>);

/// Whether a call is about a subscription that its backend does not know.
pub(crate) fn is_needed(backend: &Backend, call: &Call) -> bool {
    matches!(call.method, Method::Subscribe | Method::Unsubscribe)
        && backend.upstream.http().is_some()
        && backend.upstream.speaks(Era::Modern)
        && !backend.upstream.speaks(Era::Legacy)
}

/// Answers it.
///
/// # Errors
/// The backend does not honour the subscription.
pub(crate) async fn answer(backend: &Backend, call: &Call) -> Result<Reply, CallError> {
    let refused = |code, what: &str| Err(CallError::refused(code, what));
    let uri = call.message.uri;
    let uri = uri.and_then(|uri| envelope::string_value(&call.body, uri));
    let (Some(uri), Some(session)) = (uri, &call.session) else {
        return refused(INVALID_PARAMS, "params.uri is missing");
    };
    let key = (backend.serial, uri.into_owned());
    if call.method == Method::Unsubscribe {
        session.subscribed.lock().0.remove(&key);
    } else if !session.subscribed.lock().0.contains_key(&key) {
        let mut source = match open(backend, call, session, &key.1) {
            Some(source) => source,
            None => return refused(METHOD_NOT_FOUND, "the backend cannot be listened to"),
        };
        let told = timeout(PATIENCE, source.honoured.wait_for(Option::is_some))
            .await
            .is_ok_and(|told| told.is_ok());
        if !told || !source.honours(&key.1) {
            return refused(
                INVALID_PARAMS,
                "the backend takes no subscription to this resource",
            );
        }
        let mut subscribed = session.subscribed.lock();
        if subscribed.0.len() >= MOST {
            return refused(INVALID_PARAMS, "the session has too many subscriptions");
        }
        subscribed.0.insert(key, source);
    }
    let answer = Answer::ok(result_message(call.id(), b"{}"));
    Ok(Reply::Whole(answer))
}

fn open(backend: &Backend, call: &Call, session: &Arc<Session>, uri: &str) -> Option<Source> {
    let (to, mut from) = mpsc::channel(QUEUE);
    let info = std::str::from_utf8(&session.client_info).unwrap_or(CLIENT_INFO);
    let out = Out {
        id: None,
        meta: modern_meta(info),
        to,
    };
    let subjects = Subjects {
        uris: vec![uri.to_owned()],
        tasks: Vec::new(),
    };
    let source = Source::open(backend.upstream.http()?, call.worker, subjects, out);
    let session = Arc::downgrade(session);
    // It ends with the source, which has the other end.
    tokio::spawn(async move {
        while let Some(message) = from.recv().await {
            let Some(session) = session.upgrade() else {
                return;
            };
            session.unsolicited(message);
        }
    });
    Some(source)
}
