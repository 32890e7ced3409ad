//! [`Stream`]: events for a client that outlive the connection they are sent on.
//!
//! Between what makes them (a call, or the backends of a session) and a connection
//! that reads them lies a bounded queue. What was sent stays in it for a while, so that
//! a client which has lost its connection can go on behind the last event it has seen
//! (2025-11-25, Transports: Resumability and Redelivery). One connection reads at a
//! time: a newer one takes over.
//!
//! Memory: per stream, [`WAITING`] unread and [`KEPT`] sent events, [`BYTES`] of each,
//! and one message more.

mod reader;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::OnceLock,
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use reader::Reader;

use super::{resume::StreamId, streams::Kept};

/// Events that may wait for their reader.
pub const WAITING: usize = 64;
/// Events that are kept after they were sent.
pub const KEPT: usize = 64;
/// Bytes that may wait, and bytes that are kept.
pub const BYTES: usize = 256 << 10;

/// A stream of events for a client.
pub struct Stream {
    /// Names it within its session.
    pub id: StreamId,
    /// How long it waits for a reader.
    grace: Duration,
    state: Mutex<State>,
    /// What it holds of the node's memory beyond its end.
    pub(super) kept: OnceLock<Kept>,
    /// Tells who feeds the stream that there is room, or that a reader has come or gone.
    moved: Notify,
}

struct State {
    events: VecDeque<Bytes>,
    /// Number of the first of them; the first event of all has number 1.
    first: u64,
    /// Number of the next one to be sent.
    next: u64,
    /// Bytes of events that were sent, and of those that were not.
    sent_bytes: usize,
    waiting_bytes: usize,
    end: End,
    /// Counts readers: the newest one reads.
    reader: u64,
    /// When the last reader went; `None`: there is one.
    gone: Option<Instant>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// More events will come.
    Open,
    /// More will come, but the reader is to come back for them.
    LetGo,
    /// No more will come.
    Done,
    /// Nothing is sent any more.
    Closed,
}

impl Stream {
    /// A stream without a reader yet. It lives on for `grace` when its reader is gone.
    #[must_use]
    pub fn new(id: StreamId, grace: Duration) -> Self {
        Self {
            id,
            grace,
            state: Mutex::new(State {
                events: VecDeque::new(),
                first: 1,
                next: 1,
                sent_bytes: 0,
                waiting_bytes: 0,
                end: End::Open,
                reader: 0,
                gone: Some(Instant::now()),
                waker: None,
            }),
            kept: OnceLock::new(),
            moved: Notify::new(),
        }
    }

    /// Adds an event, however many wait: who feeds the stream waits for [room](Self::room).
    pub fn push(&self, event: Bytes) {
        self.change(|state| {
            if matches!(state.end, End::Open | End::LetGo) {
                state.waiting_bytes += event.len();
                state.events.push_back(event);
            }
        });
    }

    /// Adds an event if there is room and somebody to read it. A reader that does not
    /// keep up loses the stream.
    pub fn offer(&self, event: Bytes) -> bool {
        if self.is_over() {
            self.close();
            return false;
        }
        if self.has_ended() {
            return false;
        }
        if !self.state.lock().has_room() {
            tracing::debug!("a client that does not read has lost its stream");
            self.close();
            return false;
        }
        self.push(event);
        true
    }

    /// Waits until there is room for an event.
    pub async fn room(&self) {
        self.until(|state| state.has_room() || state.end == End::Closed)
            .await;
    }

    /// Says that no more events will come.
    pub fn done(&self) {
        self.change(|state| {
            if state.end != End::Closed {
                state.end = End::Done;
            }
        });
    }

    /// Lets the reader go when it has read what there is: it will come back for the
    /// rest (2025-11-25, Transports: Sending Messages to the Server, item 6).
    pub fn let_go(&self) {
        self.change(|state| {
            if state.end == End::Open {
                state.end = End::LetGo;
            }
        });
    }

    /// Ends it at once, and forgets its events.
    pub fn close(&self) {
        self.change(|state| {
            state.end = End::Closed;
            state.events = VecDeque::new();
            (state.sent_bytes, state.waiting_bytes) = (0, 0);
        });
    }

    /// Waits until it has no reader any more and none comes back in time, or it is closed.
    pub async fn abandoned(&self) {
        loop {
            self.until(|state| state.gone.is_some() || state.end == End::Closed)
                .await;
            let left = {
                let state = self.state.lock();
                if state.end == End::Closed {
                    return;
                }
                match state.gone {
                    Some(gone) => self.grace.saturating_sub(gone.elapsed()),
                    None => continue,
                }
            };
            if left.is_zero() {
                return;
            }
            let back = self.until(|state| state.gone.is_none() || state.end == End::Closed);
            let _ = tokio::time::timeout(left, back).await;
        }
    }

    /// Whether nobody can read it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let state = self.state.lock();
        let late = |gone: Instant| gone.elapsed() >= self.grace;
        state.end == End::Closed || state.reader > 0 && state.gone.is_some_and(late)
    }

    /// Whether it has a reader now.
    #[must_use]
    pub fn is_read(&self) -> bool {
        let state = self.state.lock();
        state.gone.is_none() && state.end != End::Closed
    }

    /// Waits until no more events come.
    pub(super) async fn ended(&self) {
        self.until(|state| matches!(state.end, End::Done | End::Closed))
            .await;
    }

    /// Whether no more events come.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state.lock().end, End::Done | End::Closed)
    }

    pub(super) fn bytes(&self) -> usize {
        let state = self.state.lock();
        state.sent_bytes + state.waiting_bytes
    }

    /// A connection that reads on: behind this event, or where the last one was. The
    /// reader before loses it.
    fn attach(&self, after: Option<u64>) -> Option<u64> {
        if self.is_over() {
            return None;
        }
        let mut number = 0;
        self.change(|state| {
            if let Some(after) = after {
                state.go_back_to(after.saturating_add(1));
            }
            if state.end == End::LetGo {
                state.end = End::Open;
            }
            state.gone = None;
            state.reader += 1;
            number = state.reader;
        });
        Some(number)
    }

    fn detach(&self, number: u64) {
        self.change(|state| {
            if state.reader == number {
                state.gone = Some(Instant::now());
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.state.lock();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        self.moved.notify_waiters();
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let moved = self.moved.notified();
            if is_so(&self.state.lock()) {
                return;
            }
            moved.await;
        }
    }
}

impl State {
    fn has_room(&self) -> bool {
        let end = self.first + self.events.len() as u64;
        let waiting = end.saturating_sub(self.next);
        waiting < WAITING as u64 && self.waiting_bytes < BYTES
    }

    /// The next event and its number.
    fn take(&mut self, keep: bool) -> Option<(u64, Bytes)> {
        let at = usize::try_from(self.next - self.first).ok()?;
        let event = self.events.get(at)?.clone();
        let number = self.next;
        self.next += 1;
        self.waiting_bytes -= event.len();
        self.sent_bytes += event.len();
        let is_too_much = |state: &Self| {
            let sent = state.next - state.first;
            sent > KEPT as u64 || (sent > 1 && state.sent_bytes > BYTES)
        };
        while self.first < self.next && (!keep || is_too_much(self)) {
            let Some(gone) = self.events.pop_front() else {
                break;
            };
            self.sent_bytes -= gone.len();
            self.first += 1;
        }
        Some((number, event))
    }

    /// Has this event sent next, or the first after it that is still there.
    fn go_back_to(&mut self, event: u64) {
        let to = event.max(self.first);
        while self.next > to {
            self.next -= 1;
            let at = usize::try_from(self.next - self.first).unwrap_or_default();
            let length = self.events.get(at).map_or(0, Bytes::len);
            self.sent_bytes -= length;
            self.waiting_bytes += length;
        }
    }
}
