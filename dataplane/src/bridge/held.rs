//! Calls of clients of the modern era that a backend of the legacy era has, and in the middle of
//! which it asks the client. The client gets the question as `input_required`; what comes of the
//! backend waits here until the client's next request brings the answer.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::PATIENCE;
use crate::{
    auth::Principal,
    backend::Backend,
    call::{Answer, Call, Messages, Reply},
    envelope::{self, Edit, Kind, Message, Span},
    error::{self, CallError, HOME_GONE, INTERNAL_ERROR, INVALID_PARAMS},
    node::Node,
    rounds::{self, At, Retry},
    sealed,
    session::{
        asked::Token,
        inflight::CallId,
        lease::{Lease, can_be_asked},
    },
    upstream::message::error_code,
};

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

/// One request of the client, and the call that it goes on with.
struct Round {
    node: Arc<Node>,
    /// As the client has sent it.
    call: Call,
    /// `None`: it is over, or held.
    open: Option<Open>,
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

impl Round {
    /// Gives the backend what the client has answered. Whether that was all.
    async fn answer(&mut self) -> Result<bool, CallError> {
        let (body, responses) = (&self.call.body, self.call.message.input_responses);
        let Some(open) = &mut self.open else {
            return Ok(true);
        };
        let mut rest = Vec::new();
        for question in std::mem::take(&mut open.questions) {
            let response = responses.and_then(|all| envelope::member(body, all, &question.name));
            let Some(response) = response else {
                rest.push(question);
                continue;
            };
            let answer: Bytes = error::result_message(&question.id, response.of(body));
            let gone = || CallError::Gone {
                backend: open.backend.name().to_owned(),
                reason: "it can be given no answer".to_owned(),
            };
            let session = open.lease.session().ok_or_else(gone)?;
            let message = envelope::scan(&answer);
            let id = message.ok().and_then(|m| m.id).ok_or_else(gone)?;
            let asked = session.asked(Token::Id, &answer, id).ok_or_else(gone)?;
            let answer = asked.restored(&answer, id).ok_or_else(gone)?;
            let upstream = &open.backend.upstream;
            upstream
                .deliver(self.call.worker, &asked.via, answer)
                .await?;
            session.paid(&asked);
        }
        open.questions = rest;
        Ok(open.questions.is_empty())
    }

    /// The answer to the client's request.
    async fn reply(mut self) -> Result<Reply, CallError> {
        let first = match self.next().await {
            Some(first) => first?,
            None => return Err(self.broken()),
        };
        if self.open.is_none() {
            let message = envelope::scan(&first).ok();
            let error = message.and_then(|message| error_code(&first, &message));
            return Ok(Reply::Whole(Answer {
                body: first,
                error,
                status: error.map_or(StatusCode::OK, error::status_of),
            }));
        }
        let rest = stream::unfold(Some(self), |round| async {
            let mut round = round?;
            let message = round.next().await?;
            let next = (message.is_ok() && round.open.is_some()).then_some(round);
            Some((message, next))
        });
        let first = stream::iter([Ok(first)]);
        Ok(Reply::Stream(Box::pin(first.chain(rest))))
    }

    fn broken(&self) -> CallError {
        CallError::refused(INTERNAL_ERROR, "the call ended without a response")
    }

    /// The next message for the client. With the last one, nothing is open any more.
    async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        loop {
            let open = self.open.as_mut()?;
            let next = tokio::select! {
                biased;
                next = open.messages.next() => next?,
                Some(question) = open.aside.recv() => Ok(question),
            };
            let data = match next {
                Ok(data) if data.is_empty() => continue,
                Ok(data) => data,
                Err(error) => return Some(Err(error)),
            };
            let Ok(message) = envelope::scan(&data) else {
                continue;
            };
            match message.kind {
                Kind::Request => return Some(self.ask(&data)),
                Kind::Notification => {
                    if let Some(passed) = self.notification(data, &message) {
                        return Some(Ok(passed));
                    }
                }
                Kind::Response | Kind::Error => {
                    let open = self.open.take()?;
                    drop(open.messages);
                    open.lease.give_back();
                    let id = message.id.filter(|id| id.of(&data) != self.call.id());
                    return Some(Ok(match id {
                        Some(id) => replaced(&data, Edit::replace(id, self.call.id())),
                        None => data,
                    }));
                }
            }
        }
    }

    /// Asks the client this, and what else is asked at the same time.
    fn ask(&mut self, question: &Bytes) -> Result<Bytes, CallError> {
        if let Some(open) = &mut self.open
            && let Ok(message) = envelope::scan(question)
        {
            open.ask(question, &message);
            open.ask_what_is_there();
        }
        self.hold()
    }

    /// A notification as one of this request. Progress is told to who asks for it.
    fn notification(&self, data: Bytes, message: &Message) -> Option<Bytes> {
        let Some(at) = message.params_progress_token else {
            return Some(data);
        };
        let open = self.open.as_ref()?;
        if open.token.as_deref() != Some(at.of(&data)) {
            return Some(data);
        }
        let token = self.call.message.progress_token?.of(&self.call.body);
        Some(replaced(&data, Edit::replace(at, token)))
    }

    /// Holds the call, and asks the client.
    fn hold(&mut self) -> Result<Bytes, CallError> {
        let open = self.open.take().ok_or_else(|| self.broken())?;
        let mut requests = Vec::new();
        for question in &open.questions {
            requests.extend_from_slice(if requests.is_empty() { b"{" } else { b"," });
            requests.extend_from_slice(&envelope::quote(&question.name));
            requests.push(b':');
            requests.extend_from_slice(&question.text);
        }
        let backend = open.backend.clone();
        let key = self.node.held.put(open)?;
        let at = At {
            home: self.node.peers.me().clone(),
            key: key.clone(),
        };
        let state = rounds::holding(&self.call, backend.name(), at);
        let state = state.inspect_err(|_| drop(self.node.held.take(&key)))?;
        Ok(rounds::asking(&self.call, &requests, &state))
    }
}

impl Open {
    /// Notes what the backend asks, under the id that the session has given it.
    fn ask(&mut self, data: &Bytes, message: &Message) {
        let (Some(id), Some(method)) = (message.id, message.method) else {
            return;
        };
        let method = method.of(data);
        let params = match message.params.map(|params| data.slice(params.range())) {
            // Of the progress of an answer nothing can be told in this era.
            Some(params) if message.progress_token.is_some() => {
                envelope::without(&params, Span::new(0, params.len()), &["_meta"]).into()
            }
            Some(params) if params != "null" => params,
            _ => Bytes::from_static(b"{}"),
        };
        let text = [br#"{"method":""#, method, br#"","params":"#, &params, b"}"].concat();
        self.questions.push(Question {
            name: format!("question-{}", self.questions.len() + 1),
            text,
            id: data.slice(id.range()),
        });
    }

    /// What it asks at the same time is one round.
    fn ask_what_is_there(&mut self) {
        while let Ok(data) = self.aside.try_recv() {
            if let Ok(message) = envelope::scan(&data) {
                self.ask(&data, &message);
            }
        }
        while let Some(Some(Ok(data))) = self.messages.next().now_or_never() {
            match envelope::scan(&data) {
                Ok(message) if message.kind == Kind::Request => self.ask(&data, &message),
                _ => {
                    let rest = std::mem::replace(&mut self.messages, Box::pin(stream::empty()));
                    self.messages = Box::pin(stream::iter([Ok(data)]).chain(rest));
                    return;
                }
            }
        }
    }
}

fn replaced(data: &Bytes, edit: Edit<'_>) -> Bytes {
    // The span is one of this very message.
    envelope::splice(data, &mut [edit]).unwrap_or_else(|_| data.clone())
}
