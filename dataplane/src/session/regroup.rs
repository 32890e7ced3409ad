//! What a session has at backends, when its gateway has others.

use std::{collections::HashSet, sync::Arc};

use super::{Session, Sessions};

impl Session {
    /// Its gateway has those backends from now on for whose serial numbers this is so. Of
    /// others its client hears nothing more; where it has subscribed to something, that is
    /// to be done again.
    fn regroup(&self, has: impl Fn(u64) -> bool) {
        // Dropped when the lock is not held any more.
        let _gone = self.subscribed.lock().take_unless(&has);
        let mut is_back = false;
        for (serial, slot) in self.upstreams.lock().iter() {
            is_back |= slot.admit(has(*serial));
        }
        if is_back || self.has_subscriptions() {
            self.is_regrouped();
        }
    }

    /// Whether it looks after a subscription to this resource at this backend.
    pub(crate) fn is_subscribed(&self, backend: u64, uri: &str) -> bool {
        let upstreams = self.upstreams.lock();
        let slot = upstreams.iter().find(|(serial, _)| *serial == backend);
        slot.is_some_and(|(_, slot)| slot.is_subscribed(uri))
            || self.subscribed.lock().contains(backend, uri)
    }

    /// Serial numbers of the backends at which it has upstream sessions.
    pub(crate) fn is_at(&self) -> Vec<u64> {
        let upstreams = self.upstreams.lock();
        upstreams.iter().map(|(serial, _)| *serial).collect()
    }
}

impl Sessions {
    /// Some gateways have other backends from now on. `backends` gives the serial numbers of
    /// those of one, by its project and name; `None`: they are as they were.
    pub(crate) fn regroup(&self, backends: impl Fn(&str) -> Option<HashSet<u64>>) {
        let mut all: Vec<Arc<Session>> = self.live.lock().values().cloned().collect();
        all.sort_unstable_by(|a, b| a.gateway.cmp(&b.gateway));
        for of_one in all.chunk_by(|a, b| a.gateway == b.gateway) {
            if let Some(backends) = backends(&of_one[0].gateway) {
                for session in of_one {
                    session.regroup(|serial| backends.contains(&serial));
                }
            }
        }
    }
}
