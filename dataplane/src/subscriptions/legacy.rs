//! `resources/subscribe` of a client of the legacy era at a backend that it cannot reach as it
//! is: one of the modern era, which knows no such method, or one whose connection others use as
//! well. The session listens there, and passes on what it hears on the client's stream.

use std::{collections::HashMap, sync::Arc};

use tokio::{sync::mpsc, task::AbortHandle, time::timeout};

use super::{
    QUEUE,
    source::{Out, Source, Subjects, acknowledged, filter},
};
use crate::{
    backend::Backend,
    call::{Answer, Call, Era, Method, Reply},
    envelope::{self, Kind},
    error::{CallError, INVALID_PARAMS, METHOD_NOT_FOUND, result_message},
    session::Session,
    upstream::{
        listening::{Listening, Wanted},
        message::{CLIENT_INFO, error_code, modern_meta},
    },
};

/// Subscriptions of one session.
const MOST: usize = 1_000;

/// What a session is subscribed to, by backend and URI.
#[derive(Default)]
pub(crate) struct Subscribed(HashMap<(u64, String), Own>);

/// A stream, and the task that gives the client what it brings. Dropped, both end.
struct Own {
    _source: Source,
    passing: AbortHandle,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

impl Subscribed {
    fn contains(&self, backend: u64, uri: &str) -> bool {
        self.0.contains_key(&(backend, uri.to_owned()))
    }

    /// Gives those up that are at a backend of which this is not so.
    pub(crate) fn take_unless(&mut self, has: impl Fn(u64) -> bool) -> Self {
        let gone = self.0.extract_if(|(backend, _), _| !has(*backend));
        Self(gone.collect())
    }

    /// Gives those of a resource up, `but` at this backend.
    pub(crate) fn take(&mut self, uri: &str, but: Option<u64>) -> Self {
        let is_meant = |backend| Some(backend) != but;
        let gone = self
            .0
            .extract_if(|(backend, own), _| own == uri && is_meant(*backend));
        Self(gone.collect())
    }
}

/// Whether a subscription at this backend is one that the session looks after.
///
/// # Errors
/// What the backend speaks cannot be found out.
pub(crate) async fn is_needed(backend: &Backend, call: &Call) -> Result<bool, CallError> {
    let upstream = &backend.upstream;
    // It looks after those that it has begun, whatever the backend has turned out to speak.
    if upstream.is_shared() || has_begun(backend, call) {
        return Ok(true);
    }
    let speaks = |era| upstream.speaks(era);
    // One that is new may not have been met yet.
    if !speaks(Era::Modern) && !speaks(Era::Legacy) {
        within(backend, upstream.greet(call.worker)).await?;
    }
    Ok(speaks(Era::Modern) && !speaks(Era::Legacy))
}

fn has_begun(backend: &Backend, call: &Call) -> bool {
    let (Some(uri), Some(session)) = (call.uri(), &call.session) else {
        return false;
    };
    session.subscribed.lock().contains(backend.serial, &uri)
}

/// The outcome, if it comes in the backend's time.
async fn within<T>(
    backend: &Backend,
    asking: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let outcome = timeout(backend.timeout, asking).await;
    outcome.unwrap_or_else(|_| {
        Err(CallError::Timeout {
            backend: backend.name().to_owned(),
            after: backend.timeout,
        })
    })
}

/// Answers it.
///
/// # Errors
/// The backend does not honour the subscription.
pub(crate) async fn answer(backend: &Backend, call: &Call) -> Result<Reply, CallError> {
    let (Some(uri), Some(session)) = (call.uri(), &call.session) else {
        return Err(CallError::refused(INVALID_PARAMS, "params.uri is missing"));
    };
    let key = (backend.serial, uri.into_owned());
    if call.method == Method::Unsubscribe {
        session.subscribed.lock().0.remove(&key);
    } else if !session.subscribed.lock().0.contains_key(&key)
        && let Some(refusal) = subscribe(backend, call, session, key).await?
    {
        return Ok(Reply::Whole(refusal));
    }
    let answer = Answer::ok(result_message(call.id(), b"{}"));
    Ok(Reply::Whole(answer))
}

/// Begins to listen. What the backend has against it, in its own words.
async fn subscribe(
    backend: &Backend,
    call: &Call,
    session: &Arc<Session>,
    key: (u64, String),
) -> Result<Option<Answer>, CallError> {
    let refused = |code, what: &str| Err(CallError::refused(code, what));
    let too_many = "the session has too many subscriptions";
    if session.subscribed.lock().0.len() >= MOST {
        return refused(INVALID_PARAMS, too_many);
    }
    let info = std::str::from_utf8(&session.client_info).unwrap_or(CLIENT_INFO);
    let meta = modern_meta(info);
    let subjects = Subjects {
        uris: vec![key.1.clone()],
        tasks: Vec::new(),
    };
    let filter = filter(&subjects);
    let wanted = Wanted {
        meta: &meta,
        filter: &filter,
        uris: &subjects.uris,
        owner: session.owner(),
    };
    let begun = within(backend, begin(backend, call, wanted)).await?;
    let Some((stream, honoured)) = begun else {
        return refused(METHOD_NOT_FOUND, "the backend cannot be listened to");
    };
    if let Some(error) = stream.refusal() {
        return Ok(Some(own_refusal(call, error)));
    }
    if !honoured.contains(&key.1) {
        return refused(
            INVALID_PARAMS,
            "the backend takes no subscription to this resource",
        );
    }
    let (to, mut from) = mpsc::channel(QUEUE);
    let out = Out {
        id: None,
        meta,
        to,
        backend: backend.serial,
        owner: session.owner(),
    };
    let upstream = backend.upstream.clone();
    let source = Source::open(upstream, call.worker, subjects, out, Some(stream));
    let to = Arc::downgrade(session);
    let passing = tokio::spawn(async move {
        while let Some((_, message)) = from.recv().await {
            let Some(session) = to.upgrade() else {
                return;
            };
            session.unsolicited(message);
        }
    });
    let own = Own {
        _source: source,
        passing: passing.abort_handle(),
    };
    let mut subscribed = session.subscribed.lock();
    if subscribed.0.len() >= MOST {
        return refused(INVALID_PARAMS, too_many);
    }
    subscribed.0.insert(key, own);
    Ok(None)
}

/// A stream, and the URIs that it honours; `None`: the backend has no such.
async fn begin(
    backend: &Backend,
    call: &Call,
    wanted: Wanted<'_>,
) -> Result<Option<(Listening, Vec<String>)>, CallError> {
    let stream = backend.upstream.subscribe(call.worker, wanted).await?;
    let Some(mut stream) = stream else {
        return Ok(None);
    };
    let first = stream.next().await.ok_or_else(|| CallError::Gone {
        backend: backend.name().to_owned(),
        reason: "it ended the subscription at once".to_owned(),
    })?;
    let is_acknowledged = envelope::scan(&first).is_ok_and(|m| m.kind == Kind::Notification);
    Ok(is_acknowledged.then(|| (stream, acknowledged(&first))))
}

/// A backend's error as the answer to this call.
fn own_refusal(call: &Call, error: &[u8]) -> Answer {
    let body = [
        &b"{\"jsonrpc\":\"2.0\",\"id\":"[..],
        call.id(),
        b",\"error\":",
        error,
        b"}",
    ];
    let body = bytes::Bytes::from(body.concat());
    let code = envelope::scan(&body).ok();
    Answer {
        error: code.and_then(|message| error_code(&body, &message)),
        ..Answer::ok(body)
    }
}
