//! What waits for the server to read it.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Link;

/// A message for the server, and of which call, if of one.
pub(super) struct Outgoing {
    pub(super) id: Option<u64>,
    pub(super) message: Bytes,
}

/// What the writer of a connection reads from.
pub(in crate::upstream) struct Queues {
    pub(super) cancellations: mpsc::UnboundedReceiver<Bytes>,
    pub(super) answers: mpsc::Receiver<Bytes>,
    pub(super) requests: mpsc::Receiver<Outgoing>,
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
