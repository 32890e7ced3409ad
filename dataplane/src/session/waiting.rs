//! What the proxy itself waits for, on behalf of a backend of the modern era: answers of a client
//! that it has asked, and its word that a call is not wanted any more.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{Session, asked::Asked, inflight::CallId};
use crate::sealed;

/// Who waits, by a name that nobody can guess.
#[derive(Default)]
pub(super) struct Waiters {
    answers: Vec<(String, mpsc::UnboundedSender<Given>)>,
    /// Calls that end when the client says so.
    calls: Vec<(CallId, oneshot::Sender<()>)>,
}

/// An answer: to what, and the whole message.
pub(crate) type Given = (String, Bytes);

/// Receives the answers of one call's client.
pub(crate) struct Waiting {
    /// Its name.
    pub(crate) name: String,
    /// Each question is answered once at most.
    pub(crate) answers: mpsc::UnboundedReceiver<Given>,
}

impl Session {
    /// Waits for answers from now on, until what is returned is dropped.
    pub(crate) fn wait(&self) -> Option<Waiting> {
        let name = hex::encode(sealed::random::<12>().ok()?);
        let (to, answers) = mpsc::unbounded_channel();
        let mut waiters = self.waiters.lock();
        waiters.answers.retain(|(_, to)| !to.is_closed());
        waiters.answers.push((name.clone(), to));
        Some(Waiting { name, answers })
    }

    /// Turns out when the client cancels this call; is an error when that can be no longer.
    pub(crate) fn cancellation(&self, call: CallId) -> oneshot::Receiver<()> {
        let (to, cancelled) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        waiters.calls.retain(|(_, to)| !to.is_closed());
        waiters.calls.push((call, to));
        cancelled
    }

    /// The client cancels a call.
    pub(crate) fn cancel(&self, call: CallId) {
        let mut waiters = self.waiters.lock();
        if let Some(at) = waiters.calls.iter().position(|(own, _)| *own == call) {
            let _ = waiters.calls.swap_remove(at).1.send(());
        }
    }

    /// Gives an answer to the one who waits for it. `false`: nobody does, or no longer.
    pub(crate) fn give(&self, name: &str, asked: &Asked, answer: Bytes) -> bool {
        if !self.owes(asked) {
            return false;
        }
        let question = serde_json::from_str(asked.own.get()).unwrap_or_default();
        let waiters = self.waiters.lock();
        let to = waiters.answers.iter().find(|(own, _)| own == name);
        to.is_some_and(|(_, to)| to.send((question, answer)).is_ok())
    }
}
