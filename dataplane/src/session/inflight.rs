//! [`InFlight`]: which backend serves which request of a session, for
//! `notifications/cancelled`.
//!
//! Every call of a legacy client enters here and leaves again, so this is made to
//! cost next to nothing: a shard for each worker, whose lock nobody else asks for
//! but a cancellation; entries of three numbers, in a list that keeps its room.
//! What is rare, the search, goes through all of them.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::Session;
use crate::call::WorkerId;

/// Workers beyond this many share shards.
const SHARDS: usize = 32;

/// A request of a session: a hash of its id's source text. That two requests of one
/// session share it is next to impossible, and harmless: the backend that is told of
/// the wrong one knows no request of that id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(u64);

impl CallId {
    /// The request of this id (source text).
    #[must_use]
    pub fn of(id: &[u8]) -> Self {
        // FNV-1a: ids have a few bytes.
        let hash = id.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Address of the session, which lives at least as long; 0: a free entry.
    session: usize,
    call: CallId,
    /// Serial number of the backend.
    backend: u64,
}

#[derive(Debug, Default)]
struct Shard {
    entries: Vec<Entry>,
    free: Vec<usize>,
}

/// The calls of legacy clients that are in flight on this node.
#[derive(Debug)]
pub(super) struct InFlight(Box<[CachePadded<Mutex<Shard>>]>);

impl Default for InFlight {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| CachePadded::default()).collect())
    }
}

/// A call's entry, given up when dropped.
pub struct Place {
    session: Arc<Session>,
    shard: usize,
    entry: usize,
}

fn address(session: &Session) -> usize {
    std::ptr::from_ref(session).addr()
}

impl Session {
    /// Notes that this backend (by its serial number) serves a request, until the
    /// place is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, worker: WorkerId, call: CallId, backend: u64) -> Place {
        let number = worker.0 % SHARDS;
        let entry = Entry {
            session: address(self),
            call,
            backend,
        };
        let mut shard = self.shared.calls.0[number].lock();
        let at = match shard.free.pop() {
            Some(at) => {
                shard.entries[at] = entry;
                at
            }
            None => {
                shard.entries.push(entry);
                shard.entries.len() - 1
            }
        };
        Place {
            session: self.clone(),
            shard: number,
            entry: at,
        }
    }

    /// The serial number of the backend that serves a request now.
    #[must_use]
    pub fn serves(&self, call: CallId) -> Option<u64> {
        let own = address(self);
        self.shared.calls.0.iter().find_map(|shard| {
            let shard = shard.lock();
            let is_it = |entry: &&Entry| entry.session == own && entry.call == call;
            shard.entries.iter().find(is_it).map(|entry| entry.backend)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.session.shared.calls.0[self.shard].lock();
        shard.entries[self.entry].session = 0;
        shard.free.push(self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::ProtocolVersion, sealed::KeyRing, session::Sessions};

    #[test]
    fn a_call_is_found_while_it_is_in_flight_and_by_its_own_session_only() {
        let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
        let session = || {
            let version = ProtocolVersion::V2025_06_18;
            let id = sessions.create("p/a", "p", version, b"{}", b"{}").unwrap();
            sessions.find(&id, "p/a", "p").unwrap()
        };
        let (one, other) = (session(), session());
        let (first, second) = (CallId::of(b"1"), CallId::of(b"\"1\""));
        let place = one.enter(WorkerId(0), first, 7);
        let beside = one.enter(WorkerId(1), second, 8);
        assert_eq!((one.serves(first), one.serves(second)), (Some(7), Some(8)));
        assert_eq!(other.serves(first), None);
        drop(place);
        let again = other.enter(WorkerId(0), first, 9);
        assert_eq!((one.serves(first), other.serves(first)), (None, Some(9)));
        drop((beside, again));
        assert_eq!((one.serves(second), other.serves(first)), (None, None));
        let shards = &sessions.shared.calls.0;
        assert!(shards.iter().all(|shard| shard.lock().entries.len() <= 1));
    }
}
