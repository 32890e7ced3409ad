//! What runs over one connection: which calls are in flight, and whose a message is.
//!
//! Every request goes out under an integer of ours, for its id and for its progress token
//! (tokens must be unique over all calls, and callers do not know of each other). The source
//! text of the caller's own comes back into responses and progress notifications; nothing
//! else of a message is touched.

mod calls;
mod incoming;
mod own;
mod queues;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Client, DuplexError, HEARD, Handle, Hello, OnNotification, Replies, Request,
    hidden::Hidden,
    waiting::{MESSAGES, waiting},
    watched::Watched,
    wire,
};
use crate::{
    sealed,
    session::{Session, inflight::CallId},
    upstream::message::logs::{Level, Logs},
};
use calls::{Call, Calls};
use queues::Outgoing;
pub(in crate::upstream) use queues::Queues;

/// Requests that may wait for the server to read them.
const REQUESTS: usize = 32;
/// Answers that may wait for the server to read them.
const ANSWERS: usize = 32;

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
    /// That of a server of the legacy era, where anybody has asked for one.
    level: Level,
    /// What is subscribed to at a server of the legacy era.
    pub(super) watched: Watched,
    hidden: Hidden,
    on_notification: OnNotification,
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
            level: Level::default(),
            watched: Watched::new(),
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
            listens,
            logs,
        } = request;
        let key = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (response, response_out) = oneshot::channel();
        let (notifications, notifications_out) =
            (progress_token.is_some() || client.is_some() || listens || logs != Logs::None)
                .then(|| waiting(if listens { HEARD } else { MESSAGES }))
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
            listens,
            logs,
            sent: false,
            cancelled: false,
            dropped: 0,
        };
        if let Some(level) = logs.level() {
            self.logs_for(level).await;
        }
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
            calls.leave(key, &call);
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
        self.watched.close();
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
        let mut calls = self.calls.lock();
        let is_it =
            |client: &Client| std::ptr::eq(&*client.session, session) && client.call == call;
        let found = calls
            .in_flight
            .iter_mut()
            .find(|(_, call)| call.sent && call.client.as_ref().is_some_and(is_it));
        if let Some((key, call)) = found
            && !std::mem::replace(&mut call.cancelled, true)
        {
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
