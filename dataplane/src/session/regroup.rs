//! What a session has at backends, when its gateway has others.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Session, Sessions};

impl Session {
    /// Its gateway has those backends now for whose serial numbers this is so. Of others its
    /// client hears nothing more. Whether there is anything to be done at those that it has.
    pub(crate) fn regroup(&self, has: impl Fn(u64) -> bool) -> bool {
        // Dropped when the lock is not held any more.
        let _gone = self.subscribed.lock().take_unless(&has);
        let mut is_back = false;
        self.upstreams.lock().retain(|(serial, slot)| {
            let has = has(*serial);
            is_back |= slot.admit(has);
            has || slot.live().is_some() || Arc::strong_count(slot) > 1
        });
        is_back || self.has_subscriptions()
    }

    /// Whether it looks after a subscription to this resource at this backend.
    pub(crate) fn is_subscribed(&self, backend: u64, uri: &str) -> bool {
        let upstreams = self.upstreams.lock();
        let slot = upstreams.iter().find(|(serial, _)| *serial == backend);
        slot.is_some_and(|(_, slot)| slot.is_subscribed(uri))
            || self.subscribed.lock().contains(backend, uri)
    }

    /// Its client wants to hear of this resource no longer, wherever it is.
    pub(super) fn unsubscribe(&self, uri: &str) {
        // Dropped when the lock is not held any more.
        let _gone = self.subscribed.lock().take(uri);
        for (_, slot) in self.upstreams.lock().iter() {
            slot.subscribed(uri, false);
        }
    }
}

impl Sessions {
    /// Some gateways, by project and name, have other backends from now on: `backends` gives the
    /// serial numbers of those of one.
    pub(crate) fn regroup<'a, G>(
        &self,
        gateways: &'a HashMap<&str, G>,
        backends: impl Fn(&'a G) -> HashSet<u64>,
    ) {
        let mut concerned = HashMap::<_, Vec<_>>::new();
        for session in self.live.lock().values() {
            if let Some((id, _)) = gateways.get_key_value(session.gateway()) {
                concerned.entry(*id).or_default().push(session.clone());
            }
        }
        for (id, sessions) in concerned {
            let backends = backends(&gateways[id]);
            for session in sessions {
                if session.regroup(|serial| backends.contains(&serial)) {
                    session.falls_behind();
                }
            }
        }
    }
}
