//! What waits for the caller of a call before its response: bounded in number and in bytes.
//! The connection is shared, so a caller that reads slowly is not waited for.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Messages that may wait for the caller of a call.
pub(super) const MESSAGES: usize = 256;
/// Their bytes. One that is longer waits alone.
const BYTES: usize = 2 << 20;
/// What log messages leave of both for progress and questions: one part of so many.
const NOT_FOR_LOGS: usize = 8;

/// Where messages are given to a caller.
#[derive(Clone)]
pub(super) struct Waiting {
    to: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// Where the caller takes them.
pub(super) struct Waited {
    from: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// Room for so many messages.
pub(super) fn waiting(messages: usize) -> (Waiting, Waited) {
    let (to, from) = mpsc::channel(messages);
    let bytes = Arc::<AtomicUsize>::default();
    let waiting = Waiting {
        to,
        bytes: bytes.clone(),
    };
    (waiting, Waited { from, bytes })
}

impl Waiting {
    /// Gives the caller a message, unless too much waits for it already.
    pub(super) fn offer(&self, message: Bytes) -> bool {
        self.offer_within(message, BYTES)
    }

    /// The same for a log message.
    pub(super) fn offer_log(&self, message: Bytes) -> bool {
        self.to.capacity() > self.to.max_capacity() / NOT_FOR_LOGS
            && self.offer_within(message, BYTES - BYTES / NOT_FOR_LOGS)
    }

    fn offer_within(&self, message: Bytes, most: usize) -> bool {
        let size = message.len();
        // Only the reader of the connection adds.
        let waits = self.bytes.load(Ordering::Relaxed);
        if waits > 0 && waits + size > most {
            return false;
        }
        self.bytes.fetch_add(size, Ordering::Relaxed);
        let taken = self.to.try_send(message).is_ok();
        if !taken {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        taken
    }
}

impl Waited {
    /// The next message; `None`: there will be none.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next message; `None`: there will be none.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let message = ready!(self.from.poll_recv(cx));
        let size = message.as_ref().map_or(0, Bytes::len);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
        Poll::Ready(message)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn next(waited: &mut Waited) -> Option<Bytes> {
        waited.next().now_or_never().flatten()
    }

    #[test]
    fn as_much_waits_as_there_is_room_for_and_logs_leave_some() {
        let (to, mut from) = waiting(MESSAGES);
        let small = Bytes::from_static(b"{}");
        let logs = (0..MESSAGES).filter(|_| to.offer_log(small.clone()));
        assert_eq!(logs.count(), MESSAGES - MESSAGES / NOT_FOR_LOGS);
        let others = (0..MESSAGES).filter(|_| to.offer(small.clone()));
        assert_eq!(others.count(), MESSAGES / NOT_FOR_LOGS);
        while next(&mut from).is_some() {}

        // A message longer than all that may wait goes alone.
        let large = Bytes::from(vec![b' '; BYTES + 1]);
        assert!(to.offer(large.clone()) && !to.offer(small.clone()));
        assert!(next(&mut from).is_some());
        let half = large.slice(..BYTES / 2);
        assert!(to.offer_log(half.clone()) && !to.offer_log(half.clone()));
        assert!(to.offer(half.clone()) && !to.offer(small.clone()));
        while next(&mut from).is_some() {}
        assert!(to.offer(large));
    }
}
