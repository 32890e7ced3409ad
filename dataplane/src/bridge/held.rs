//! Calls of clients of the modern era that a backend of the legacy era has, and in the middle of
//! which it asks the client. The client gets the question as `input_required`; what comes of the
//! backend waits here until the client's next request brings the answer.

mod round;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::PATIENCE;
use crate::{
    auth::Principal,
    backend::Backend,
    call::{Answer, Call, Messages, Reply},
    error::{CallError, HOME_GONE, INTERNAL_ERROR, INVALID_PARAMS},
    node::Node,
    rounds::Retry,
    sealed,
    session::{
        inflight::CallId,
        lease::{Lease, can_be_asked},
    },
};
use round::Round;

/// Calls that are held at a time: in all, and of one principal.
const MOST: (usize, usize) = (4_096, 512);
/// How long a call may take with all its rounds.
const LONGEST: Duration = Duration::from_secs(3600);

/// The calls that wait for their clients.
#[derive(Default)]
pub(crate) struct Held(Mutex<HashMap<String, (Instant, Open)>>);

/// A call that its backend has.
struct Open {
    began: Instant,
    principal: Arc<Principal>,
    messages: Messages,
    /// What the backend asks outside of the call's stream.
    aside: mpsc::Receiver<Bytes>,
    lease: Lease,
    backend: Arc<Backend>,
    /// Source text of the progress token that they have.
    token: Option<Bytes>,
    /// What the client owes.
    questions: Vec<Question>,
}

struct Question {
    /// The client's name for it.
    name: String,
    /// The question itself, as a JSON text.
    text: Vec<u8>,
    /// What the session knows it by: source text of an id.
    id: Bytes,
}

impl Held {
    fn put(&self, open: Open) -> Result<String, CallError> {
        let busy = || CallError::refused(INTERNAL_ERROR, "too many calls wait for their clients");
        let key = sealed::random::<16>().map(hex::encode);
        let key = key.map_err(|_| busy())?;
        if open.began.elapsed() > LONGEST {
            let what = "the call takes too long: its client has not answered";
            return Err(CallError::refused(INTERNAL_ERROR, what));
        }
        let mut held = self.0.lock();
        if held.len() >= MOST.1 {
            held.retain(|_, (since, _)| since.elapsed() < PATIENCE);
            let is_own = |held: &&(Instant, Open)| held.1.principal.id == open.principal.id;
            if held.len() >= MOST.0 || held.values().filter(is_own).count() >= MOST.1 {
                return Err(busy());
            }
        }
        held.insert(key.clone(), (Instant::now(), open));
        Ok(key)
    }

    fn take(&self, key: &str) -> Option<Open> {
        let (since, open) = self.0.lock().remove(key)?;
        (since.elapsed() < PATIENCE).then_some(open)
    }

    /// Ends calls whose clients have not come back in time.
    pub(crate) async fn watch(node: Arc<Node>) {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let mut held = node.held.0.lock();
            held.retain(|_, (since, _)| since.elapsed() < PATIENCE);
        }
    }
}

/// Begins a call at a backend that may ask.
pub(super) async fn begin(
    node: &Arc<Node>,
    backend: Arc<Backend>,
    mut call: Call,
) -> Result<Reply, CallError> {
    let capabilities = call.message.client_capabilities.map(|c| c.of(&call.body));
    let Some(able) = capabilities.and_then(can_be_asked) else {
        return backend.call(call).await;
    };
    let lease = node.sessions.lease(backend.serial, able);
    let client = call.clone();
    call.session = lease.session().cloned();
    let mut aside = lease.questions(CallId::of(call.id()));
    let mut reply = Box::pin(backend.clone().call(call));
    let (messages, question): (Messages, _) = tokio::select! {
        biased;
        reply = &mut reply => match reply? {
            Reply::Stream(messages) => (messages, None),
            whole => {
                lease.give_back();
                return Ok(whole);
            }
        },
        Some(question) = aside.recv() => {
            (Box::pin(stream::once(reply).flat_map(messages_of)), Some(question))
        }
    };
    let token = client.message.progress_token;
    let open = Open {
        began: Instant::now(),
        principal: client.principal.clone(),
        messages,
        aside,
        lease,
        backend,
        token: token.map(|span| client.body.slice(span.range())),
        questions: Vec::new(),
    };
    let mut round = Round {
        node: node.clone(),
        call: client,
        open: Some(open),
    };
    match question {
        None => round.reply().await,
        Some(question) => {
            let asked = round.ask(&question);
            Ok(Reply::Whole(Answer::ok(asked?)))
        }
    }
}

/// A reply as the stream that it might have been.
fn messages_of(reply: Result<Reply, CallError>) -> Messages {
    match reply {
        Ok(Reply::Stream(messages)) => messages,
        Ok(Reply::Whole(answer)) => Box::pin(stream::iter([Ok(answer.body)])),
        Ok(Reply::Parts(parts)) => Box::pin(stream::iter([Ok(parts.concat().into())])),
        Err(error) => Box::pin(stream::iter([Err(error)])),
    }
}

/// Goes on with a call that is held.
pub(super) async fn go_on(
    node: &Arc<Node>,
    backend: Arc<Backend>,
    call: Call,
) -> Result<Reply, CallError> {
    let Some(Retry::Held(at)) = call.rounds.retry.as_deref() else {
        return backend.call(call).await;
    };
    if at.home != *node.peers.me() {
        let what = "the data plane that holds the call cannot be reached";
        return Err(CallError::refused(HOME_GONE, what));
    }
    let open = node.held.take(&at.key).ok_or_else(|| {
        let what = "params.requestState is of a call that is over, or was answered already: \
                    begin the request anew";
        CallError::refused(INVALID_PARAMS, what).with_status(StatusCode::BAD_REQUEST)
    })?;
    let mut round = Round {
        node: node.clone(),
        call,
        open: Some(open),
    };
    if round.answer().await? {
        return round.reply().await;
    }
    // Something is still to be answered.
    let message = round.hold()?;
    Ok(Reply::Whole(Answer::ok(message)))
}
