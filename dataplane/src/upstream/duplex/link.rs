//! What runs over one connection: which calls are in flight, and whose a message is.
//!
//! Every request goes out under an integer of ours, for its id and for its progress token
//! (tokens must be unique over all calls, and callers do not know of each other). The source
//! text of the caller's own comes back into responses and progress notifications; nothing
//! else of a message is touched.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Client, DuplexError, Handle, Hello, OnNotification, Replies, Request, Throttle, hidden::Hidden,
    wire,
};
use crate::{
    call::Era,
    envelope::{self, Kind, Message},
    error::{INTERNAL_ERROR, METHOD_NOT_FOUND, error_message, result_message},
    sealed,
    session::{
        Session,
        asked::{Asker, Unasked, Via},
        inflight::CallId,
    },
};

/// Requests that may wait for the server to read them.
const REQUESTS: usize = 32;
/// Progress notifications that may wait for the caller. More are dropped.
const NOTIFICATIONS: usize = 32;
/// Answers that may wait for the server to read them.
const ANSWERS: usize = 32;
/// Calls without a caller that are remembered, and for how long.
const LEFT: (usize, Duration) = (64, Duration::from_secs(60));

/// A message for the server, and of which call, if of one.
struct Outgoing {
    id: Option<u64>,
    message: Bytes,
}

struct Call {
    id: Box<[u8]>,
    token: Box<[u8]>,
    /// Only a call with a progress token, or whose client can be asked, can get any.
    notifications: Option<mpsc::Sender<Bytes>>,
    response: oneshot::Sender<Result<Bytes, DuplexError>>,
    client: Option<Client>,
    may_ask: bool,
    /// The server has been, or is being, sent the request.
    sent: bool,
    dropped: u64,
}

struct Left {
    key: u64,
    client: Option<Weak<Session>>,
    since: Instant,
}

#[derive(Default)]
struct Calls {
    in_flight: HashMap<u64, Call>,
    /// Whose callers have gone: the server may still work on them, and ask.
    left: VecDeque<Left>,
    /// Set once the connection is lost.
    closed: Option<DuplexError>,
}

impl Calls {
    /// Whether the server may be working for somebody else, too: one who cannot be asked, or who
    /// has gone, counts as well. Nobody is to see, or to answer, what another is asked.
    fn others_than(&self, session: &Arc<Session>) -> bool {
        let is_other = |call: &Call| {
            let client = call.client.as_ref();
            let is_own = client.is_some_and(|client| Arc::ptr_eq(&client.session, session));
            call.sent && call.may_ask && !is_own
        };
        let is_others = |left: &Left| {
            let client = left.client.as_ref();
            let is_own = client.is_some_and(|client| client.as_ptr() == Arc::as_ptr(session));
            left.since.elapsed() < LEFT.1 && !is_own
        };
        self.in_flight.values().any(is_other) || self.left.iter().any(is_others)
    }
}

/// The connection to one server, as its calls see it.
pub(in crate::upstream) struct Link {
    name: String,
    /// Names this connection, and no other one.
    nonce: String,
    next_id: AtomicU64,
    calls: Mutex<Calls>,
    requests: mpsc::Sender<Outgoing>,
    /// Cancellations. Unbounded, because they come from `drop`; at most one for each request
    /// that was written.
    cancellations: mpsc::UnboundedSender<Bytes>,
    /// Answers to requests of the server. When it reads none, the next ones are not given.
    answers: mpsc::Sender<Bytes>,
    broken: watch::Sender<bool>,
    hello: OnceLock<Arc<Hello>>,
    hidden: Hidden,
    on_notification: OnNotification,
}

/// What the writer of a connection reads from.
pub(in crate::upstream) struct Queues {
    cancellations: mpsc::UnboundedReceiver<Bytes>,
    answers: mpsc::Receiver<Bytes>,
    requests: mpsc::Receiver<Outgoing>,
}

impl Queues {
    /// The next message to be written, one line without its end; `None` when nobody is left to
    /// give any. Cancellations and answers go before requests. Nothing is lost when this is
    /// dropped.
    pub(in crate::upstream) async fn next(&mut self, link: &Link) -> Option<Bytes> {
        loop {
            let next = tokio::select! {
                biased;
                Some(message) = self.cancellations.recv() => Outgoing { id: None, message },
                Some(message) = self.answers.recv() => Outgoing { id: None, message },
                Some(request) = self.requests.recv() => request,
                else => return None,
            };
            // Cancelled while it waited here: the server need not hear of it.
            if next.id.is_none_or(|id| link.goes_out(id)) {
                return Some(next.message);
            }
        }
    }

    /// Whether nothing waits.
    pub(in crate::upstream) fn are_empty(&self) -> bool {
        self.cancellations.is_empty() && self.answers.is_empty() && self.requests.is_empty()
    }
}

impl Link {
    /// A link and the queues that its writer is to empty.
    pub(in crate::upstream) fn new(
        name: &str,
        hidden: Hidden,
        on_notification: OnNotification,
    ) -> (Arc<Self>, Queues) {
        let (requests, requests_out) = mpsc::channel(REQUESTS);
        let (cancellations, cancellations_out) = mpsc::unbounded_channel();
        let (answers, answers_out) = mpsc::channel(ANSWERS);
        let link = Self {
            name: name.to_owned(),
            nonce: sealed::random::<9>().map(hex::encode).unwrap_or_default(),
            next_id: AtomicU64::new(1),
            calls: Mutex::default(),
            requests,
            cancellations,
            answers,
            broken: watch::Sender::new(false),
            hello: OnceLock::new(),
            hidden,
            on_notification,
        };
        let queues = Queues {
            cancellations: cancellations_out,
            answers: answers_out,
            requests: requests_out,
        };
        (Arc::new(link), queues)
    }

    /// The start of what the server wrote, for the log.
    pub(in crate::upstream) fn excerpt(&self, text: &[u8]) -> String {
        let text = String::from_utf8_lossy(text);
        wire::excerpt(self.hidden.out_of(&text).as_bytes())
    }

    /// The backend, for messages.
    pub(in crate::upstream) fn name(&self) -> &str {
        &self.name
    }

    /// What the server said. Only links that have been greeted are handed out.
    pub(super) fn hello(&self) -> Arc<Hello> {
        self.hello
            .get()
            .expect("a link is handed out after the handshake")
            .clone()
    }

    pub(super) fn greeted(&self, hello: Hello) -> Arc<Hello> {
        self.hello.get_or_init(|| Arc::new(hello)).clone()
    }

    /// Queues a request. `keep` keeps the connection alive for as long as the call is.
    pub(super) async fn request(
        self: &Arc<Self>,
        request: Request,
        keep: Option<Arc<Handle>>,
    ) -> Result<Replies, DuplexError> {
        let Request {
            body,
            id,
            progress_token,
            client,
            may_ask,
        } = request;
        let key = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (response, response_out) = oneshot::channel();
        let (notifications, notifications_out) = (progress_token.is_some() || client.is_some())
            .then(|| mpsc::channel(NOTIFICATIONS))
            .unzip();
        let call = Call {
            id: body[id.clone()].into(),
            token: progress_token
                .clone()
                .map_or_else(Default::default, |at| body[at].into()),
            notifications,
            response,
            client,
            may_ask,
            sent: false,
            dropped: 0,
        };
        let ours = key.to_string();
        let mut edits: Vec<_> = std::iter::once(id)
            .chain(progress_token)
            .map(|at| (at, ours.as_bytes()))
            .collect();
        let message = wire::line(wire::splice(&body, &mut edits));
        drop(body);

        self.admit(key, call)?;
        let replies = Replies::new(key, self.clone(), notifications_out, response_out, keep);
        // Failing means that the connection is being lost; the replies will say why.
        let _ = self
            .requests
            .send(Outgoing {
                id: Some(key),
                message,
            })
            .await;
        Ok(replies)
    }

    /// Queues a notification.
    pub(super) async fn notify(&self, message: &[u8]) -> Result<(), DuplexError> {
        let message = wire::line(message.to_vec());
        let sent = self.requests.send(Outgoing { id: None, message }).await;
        match self.calls.lock().closed.clone() {
            Some(error) => Err(error),
            None => sent.map_err(|_| DuplexError::Closed),
        }
    }

    fn admit(&self, key: u64, call: Call) -> Result<(), DuplexError> {
        let mut calls = self.calls.lock();
        if let Some(error) = &calls.closed {
            return Err(error.clone());
        }
        calls.in_flight.insert(key, call);
        Ok(())
    }

    /// Says that the request is being written; `false` when its caller has gone meanwhile.
    fn goes_out(&self, key: u64) -> bool {
        let mut calls = self.calls.lock();
        let call = calls.in_flight.get_mut(&key);
        call.map(|call| call.sent = true).is_some()
    }

    /// Gives a call up, and tells the server if `cancel`.
    pub(super) fn forget(&self, key: u64, cancel: bool) {
        let mut calls = self.calls.lock();
        let Some(call) = calls.in_flight.remove(&key).filter(|call| call.sent) else {
            return;
        };
        if call.may_ask {
            if calls.left.len() == LEFT.0 {
                calls.left.pop_front();
            }
            calls.left.push_back(Left {
                key,
                client: call.client.map(|client| Arc::downgrade(&client.session)),
                since: Instant::now(),
            });
        }
        drop(calls);
        if cancel {
            self.tell_cancelled(key);
        }
    }

    /// Says that one end of the connection has closed.
    pub(in crate::upstream) fn breaks(&self) {
        self.broken.send_replace(true);
    }

    /// Waits until one end of the connection has closed.
    pub(in crate::upstream) async fn broken(&self) {
        // The sender is ours, so it cannot have gone.
        let _ = self.broken.subscribe().wait_for(|broken| *broken).await;
    }

    /// Fails every call in flight and all that follow. The first reason stays.
    pub(in crate::upstream) fn close(&self, error: &DuplexError) {
        let lost = {
            let mut calls = self.calls.lock();
            calls.closed.get_or_insert_with(|| error.clone());
            std::mem::take(&mut calls.in_flight)
        };
        for call in lost.into_values() {
            let _ = call.response.send(Err(error.clone()));
        }
    }

    /// Takes a message of the server to whom it belongs.
    pub(in crate::upstream) fn take(&self, message: Bytes, throttle: &mut Throttle) {
        if let Err(problem) = self.incoming(message) {
            self.complain(problem, throttle);
        }
    }

    /// Logs what is wrong with a message.
    pub(in crate::upstream) fn complain(&self, problem: String, throttle: &mut Throttle) {
        if let Some(suppressed) = throttle.admit() {
            tracing::warn!(target: "mcp::upstream", backend = self.name, suppressed, "{problem}");
        }
    }

    fn incoming(&self, line: Bytes) -> Result<(), String> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let message = match envelope::scan(&line) {
            Ok(message) => message,
            Err(error) => {
                let reason = error.to_string();
                let what = format!("not a JSON-RPC message ({reason}): {}", self.excerpt(&line));
                // When it says whose answer it is meant to be, that caller need not wait on.
                if let Some(call) = error.id().and_then(|id| self.answered(id.of(&line))) {
                    let _ = call.response.send(Err(DuplexError::Garbage { reason }));
                }
                return Err(what);
            }
        };
        match message.kind {
            Kind::Response | Kind::Error => self.response(&line, &message),
            Kind::Notification => {
                self.notification(line, &message);
                Ok(())
            }
            Kind::Request => self.asked(&line, &message),
        }
    }

    fn response(&self, line: &Bytes, message: &Message) -> Result<(), String> {
        let call = message
            .id
            .and_then(|id| Some((id, self.answered(id.of(line))?)));
        let Some((id, call)) = call else {
            // Usually the answer to a call that has been cancelled, which may cross.
            tracing::debug!(
                backend = self.name,
                "answer to no call: {}",
                self.excerpt(line)
            );
            return Ok(());
        };
        if call.dropped > 0 {
            tracing::debug!(
                backend = self.name,
                dropped = call.dropped,
                "progress notifications dropped: the client reads too slowly"
            );
        }
        let restored = wire::splice(line, &mut [(id.range(), &call.id)]);
        let _ = call.response.send(Ok(restored.into()));
        Ok(())
    }

    fn answered(&self, id: &[u8]) -> Option<Call> {
        let key = key(id)?;
        let mut calls = self.calls.lock();
        let found = calls.in_flight.remove(&key);
        if found.is_none() {
            calls.left.retain(|left| left.key != key);
        }
        found
    }

    fn notification(&self, line: Bytes, message: &Message) {
        let method = message.method.map_or(&b""[..], |method| method.of(&line));
        let token = message.params_progress_token;
        if let (b"notifications/progress", Some(at)) = (method, token)
            && let Some(key) = key(at.of(&line))
        {
            // Progress that comes after the response belongs to nobody.
            if let Some(call) = self.calls.lock().in_flight.get_mut(&key)
                && let Some(notifications) = &call.notifications
            {
                let restored = wire::splice(&line, &mut [(at.range(), &call.token)]);
                if notifications.try_send(restored.into()).is_err() {
                    call.dropped += 1;
                }
            }
            return;
        }
        let method = String::from_utf8_lossy(method).into_owned();
        (self.on_notification)(&method, line);
    }

    /// A request of the server. `ping` is answered as it must be; all else is asked of the client
    /// whose call the server works on. To a modern server nothing may be answered, and it may not
    /// ask.
    fn asked(&self, line: &Bytes, message: &Message) -> Result<(), String> {
        let modern = self
            .hello
            .get()
            .is_some_and(|hello| hello.era == Era::Modern);
        let (Some(id), Some(method), false) = (message.id, message.method, modern) else {
            return Err(format!(
                "request from the server ignored: {}",
                self.excerpt(line)
            ));
        };
        let id = id.of(line);
        let answer = match method.of(line) {
            b"ping" => result_message(id, b"{}"),
            _ => match self.ask(line, message) {
                Ok(()) => return Ok(()),
                Err((code, why)) => error_message(id, code, &why, None),
            },
        };
        self.answers
            .try_send(wire::line(answer.to_vec()))
            .map_err(|_| "request from the server ignored: it does not read the answers".to_owned())
    }

    /// Asks a client. The protocol does not say for which call the server asks: where several
    /// clients that could be meant wait for it, none of them is asked.
    fn ask(&self, line: &Bytes, message: &Message) -> Result<(), (i64, String)> {
        let method = message.method.map_or(&b""[..], |method| method.of(line));
        let calls = self.calls.lock();
        let mut able = calls.in_flight.iter().filter_map(|(key, call)| {
            let client = call.client.as_ref().filter(|_| call.sent)?;
            let able = client.session.has_declared(method);
            able.then_some((*key, client, call.notifications.as_ref()?))
        });
        let none = || (METHOD_NOT_FOUND, Unasked::NotDeclared.to_string());
        let (mut key, mut client, mut to) = able.next().ok_or_else(none)?;
        for (other_key, other, others) in able {
            if other_key > key {
                (key, client, to) = (other_key, other, others);
            }
        }
        if calls.others_than(&client.session) {
            let what = "several clients are served: it cannot be told which one is asked";
            return Err((INTERNAL_ERROR, what.to_owned()));
        }
        let asker = Asker {
            backend: &self.name,
            via: Via::Child {
                child: self.nonce.clone(),
            },
            call: Some(client.call),
        };
        let failed = |why: &Unasked| match why {
            Unasked::NotDeclared => (METHOD_NOT_FOUND, why.to_string()),
            Unasked::TooMany | Unasked::Unwritten => (INTERNAL_ERROR, why.to_string()),
        };
        let question = client.session.question(&asker, line, message);
        let question = question.map_err(|why| failed(&why))?;
        to.try_send(question).map_err(|_| failed(&Unasked::TooMany))
    }

    /// Gives the server what answers a question that it has asked over this connection.
    pub(super) fn deliver(&self, connection: &str, message: &Bytes) -> bool {
        !self.nonce.is_empty()
            && self.nonce == connection
            && self.answers.try_send(wire::line(message.to_vec())).is_ok()
    }

    /// Tells the server that a client has cancelled a call. What it answers all the same is
    /// passed on.
    pub(super) fn cancel(&self, session: &Session, call: CallId) {
        let calls = self.calls.lock();
        let is_it =
            |client: &Client| std::ptr::eq(&*client.session, session) && client.call == call;
        let found = calls
            .in_flight
            .iter()
            .find(|(_, call)| call.sent && call.client.as_ref().is_some_and(is_it));
        if let Some((key, _)) = found {
            self.tell_cancelled(*key);
        }
    }

    fn tell_cancelled(&self, key: u64) {
        let message = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{key},"reason":"cancelled by the client"}}}}"#
        );
        let _ = self.cancellations.send(wire::line(message.into_bytes()));
    }
}

/// The key that a server gives back as id or token. Only the text that was sent is taken:
/// `"7"`, `7.0` and `07` are none of ours.
fn key(text: &[u8]) -> Option<u64> {
    let key: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (text.first() != Some(&b'+') && (key == 0 || text.first() != Some(&b'0'))).then_some(key)
}
