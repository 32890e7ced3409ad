//! The calls of a connection: in flight, and given up.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::{Client, DuplexError, waiting::Waiting};
use crate::{session::Session, upstream::message::logs::Logs};

/// Calls without a caller that are remembered, and for how long.
const LEFT: (usize, Duration) = (1024, Duration::from_secs(60));

pub(super) struct Call {
    pub(super) id: Box<[u8]>,
    pub(super) token: Box<[u8]>,
    /// Only a call with a progress token, or whose client can be asked, can get any.
    pub(super) notifications: Option<Waiting>,
    pub(super) response: oneshot::Sender<Result<Bytes, DuplexError>>,
    pub(super) client: Option<Client>,
    pub(super) may_ask: bool,
    pub(super) listens: bool,
    pub(super) logs: Logs,
    /// The server has been, or is being, sent the request.
    pub(super) sent: bool,
    /// The server has been told that its answer is not wanted.
    pub(super) cancelled: bool,
    pub(super) dropped: u64,
}

pub(super) struct Left {
    pub(super) key: u64,
    pub(super) client: Option<Weak<Session>>,
    pub(super) since: Instant,
}

#[derive(Default)]
pub(super) struct Calls {
    pub(super) in_flight: HashMap<u64, Call>,
    /// Whose callers have gone, in that order: the server may still work on them, and ask.
    pub(super) left: VecDeque<Left>,
    /// When the newest one was left that there was no room for: nobody knows whose it is.
    forgotten: Option<Instant>,
    /// Set once the connection is lost.
    pub(super) closed: Option<DuplexError>,
}

impl Calls {
    /// Whether the server may be working for somebody else, too: one who cannot be asked, or who
    /// has gone, counts as well. Nobody is to see, or to answer, what another is asked. Those who
    /// have gone long ago have to be [forgotten](Self::forget_old) before.
    pub(super) fn others_than(&self, session: &Arc<Session>) -> bool {
        let is_other = |call: &Call| {
            let client = call.client.as_ref();
            let is_own = client.is_some_and(|client| Arc::ptr_eq(&client.session, session));
            call.sent && call.may_ask && !is_own
        };
        let is_others = |left: &Left| {
            let client = left.client.as_ref();
            let is_own = client.is_some_and(|client| client.as_ptr() == Arc::as_ptr(session));
            !is_own
        };
        self.forgotten.is_some()
            || self.in_flight.values().any(is_other)
            || self.left.iter().any(is_others)
    }

    /// The one call that the server may be working on, if it is only one. `asked`: who has not
    /// asked for log messages does not count, as the server says nothing of its call.
    pub(super) fn only(&mut self, asked: bool) -> Option<&mut Call> {
        self.forget_old();
        if self.forgotten.is_some() || !self.left.is_empty() {
            return None;
        }
        let counts = |call: &&mut Call| {
            call.sent
                && if asked {
                    call.logs != Logs::None
                } else {
                    call.may_ask
                }
        };
        let mut all = self.in_flight.values_mut().filter(counts);
        all.next().filter(|_| all.next().is_none())
    }

    /// Forgets those that the server does no longer work on.
    pub(super) fn forget_old(&mut self) {
        let now = Instant::now();
        let is_old = |since: Instant| now.duration_since(since) >= LEFT.1;
        self.forgotten.take_if(|since| is_old(*since));
        while self.left.pop_front_if(|left| is_old(left.since)).is_some() {}
    }

    /// Remembers a call whose caller has gone.
    pub(super) fn leave(&mut self, key: u64, call: &Call) {
        if self.left.len() == LEFT.0 {
            self.forgotten = self.left.pop_front().map(|left| left.since);
        }
        self.left.push_back(Left {
            key,
            client: call
                .client
                .as_ref()
                .map(|client| Arc::downgrade(&client.session)),
            since: Instant::now(),
        });
    }
}
