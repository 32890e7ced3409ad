//! [`Known`]: the sessions that have state on a node, within bounds.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use super::{Owner, Session};

/// Sessions whose upstream sessions a node keeps; over it, of who has the most, the longest
/// unused go.
const MOST: usize = 50_000;

/// Ids are some hundred bytes, which only this node can make: no need of a hash that withstands
/// chosen ones.
type ById = HashMap<String, Arc<Session>, foldhash::fast::RandomState>;

/// See the module.
pub(super) struct Known {
    /// By session id as on the wire: an id found here has been opened before.
    by_id: ById,
    most: usize,
    /// With so many, room is made.
    full: usize,
    /// Those that have made room, until their upstream sessions are ended.
    evicted: Vec<Arc<Session>>,
}

impl Default for Known {
    fn default() -> Self {
        Self::with_room_for(MOST)
    }
}

impl Known {
    pub(super) fn with_room_for(most: usize) -> Self {
        Self {
            by_id: ById::default(),
            most,
            full: most,
            evicted: Vec::new(),
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Session>> {
        self.by_id.get(id)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.by_id.values()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Session>)> {
        self.by_id.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Keeps a session. Two requests may have opened the same id at once: the first stays.
    pub(super) fn keep(&mut self, id: String, session: Session) -> Arc<Session> {
        if self.len() >= self.full {
            self.make_room();
        }
        let kept = self.by_id.entry(id);
        kept.or_insert_with(|| Arc::new(session)).clone()
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Arc<Session>> {
        self.by_id.remove(id)
    }

    /// Takes out those of which this is so.
    pub(super) fn take_if(&mut self, is_so: impl Fn(&str, &Session) -> bool) -> Vec<Arc<Session>> {
        let gone = self.by_id.extract_if(|id, session| is_so(id, session));
        gone.map(|(_, session)| session).collect()
    }

    /// Takes those that have made room since the last time.
    pub(super) fn take_evicted(&mut self) -> Vec<Arc<Session>> {
        std::mem::take(&mut self.evicted)
    }

    /// Makes room by a sixteenth: the scan is paid for seldom.
    fn make_room(&mut self) {
        let step = self.most / 16 + 1;
        let mut all: Vec<_> = self
            .by_id
            .iter()
            .map(|(id, session)| {
                // One whose calls or streams are under way would lose what its client is asked.
                let is_idle = Arc::strong_count(session) == 1;
                let used = session.last_used.load(Ordering::Relaxed);
                (session.owner, is_idle, Reverse(used), id)
            })
            .collect();
        all.sort_unstable();
        let mut before: (Option<Owner>, usize) = (None, 0);
        let mut ranked = Vec::with_capacity(all.len());
        for (owner, is_idle, Reverse(used), id) in all {
            let more = if before.0 == Some(owner) {
                before.1 + 1
            } else {
                0
            };
            before = (Some(owner), more);
            // How many of the same owner are in use or were later, then how long ago.
            ranked.push((Reverse(more), used, is_idle, id));
        }
        // Nobody pays for another one's that are in use, but there is an end to it.
        if ranked.len() >= 2 * self.most {
            ranked.retain(|(_, _, is_idle, _)| *is_idle);
        }
        if ranked.len() > step {
            ranked.select_nth_unstable(step);
            ranked.truncate(step);
        }
        let idle = ranked.into_iter().filter(|(_, _, is_idle, _)| *is_idle);
        let gone: Vec<_> = idle.map(|(.., id)| id.clone()).collect();
        let evicted = gone.iter().filter_map(|id| self.by_id.remove(id));
        self.evicted.extend(evicted);
        // Where those are in use, not for each one more.
        self.full = self.most.max(self.len() + step);
    }
}
