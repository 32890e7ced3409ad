//! Answers that the proxy itself waits for: it has asked a client what a backend of the modern
//! era wants to know.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Session, asked::Asked};
use crate::sealed;

/// Who waits, by a name that nobody can guess.
#[derive(Default)]
pub(super) struct Waiters(Vec<(String, mpsc::UnboundedSender<Given>)>);

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
        waiters.0.retain(|(_, to)| !to.is_closed());
        waiters.0.push((name.clone(), to));
        Some(Waiting { name, answers })
    }

    /// Gives an answer to the one who waits for it. `false`: nobody does, or no longer.
    pub(crate) fn give(&self, name: &str, asked: &Asked, answer: Bytes) -> bool {
        if !self.owes(asked) {
            return false;
        }
        let question = serde_json::from_str(asked.own.get()).unwrap_or_default();
        let waiters = self.waiters.lock();
        let to = waiters.0.iter().find(|(own, _)| own == name);
        to.is_some_and(|(_, to)| to.send((question, answer)).is_ok())
    }
}
