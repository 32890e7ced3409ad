//! What a session has at backends, when its gateway has others.

use std::{collections::HashMap, sync::Arc};

use super::{Session, Sessions};
use crate::{
    call::WorkerId,
    table::Gateway,
    upstream::{http::Http, slot::Slot},
};

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

    /// Gives up its subscription to a resource at a backend.
    pub(crate) fn leave(&self, worker: WorkerId, backend: u64, uri: &str) {
        let gone = self.subscribed.lock().take_one(backend, uri);
        drop(gone);
        let upstreams = self.upstreams.lock();
        let slot = upstreams.iter().find(|(serial, _)| *serial == backend);
        if let Some((_, slot)) = slot {
            unsubscribe(worker, slot, uri);
        }
    }

    /// Gives up its subscriptions to a resource, wherever it has any.
    pub(crate) fn leave_all(&self, worker: WorkerId, uri: &str) {
        let gone = self.subscribed.lock().take(uri);
        drop(gone);
        for (_, slot) in self.upstreams.lock().iter() {
            unsubscribe(worker, slot, uri);
        }
    }
}

fn unsubscribe(worker: WorkerId, slot: &Slot, uri: &str) {
    if !slot.subscribed(uri, false) {
        return;
    }
    let live = slot.live();
    let http = live.as_ref().and_then(|live| Http::of(live));
    if let (Some(live), Some(http)) = (live, http) {
        let uri = uri.to_owned();
        tokio::spawn(async move { http.unsubscribe(worker, &live, &uri).await });
    }
}

impl Sessions {
    /// These gateways, by project and name, have other backends from now on, or are gone.
    pub(crate) fn regroup(&self, gateways: &HashMap<&str, Option<&Gateway>>) {
        let all: Vec<Arc<Session>> = self.live.lock().values().cloned().collect();
        for session in all {
            let Some(gateway) = gateways.get(session.gateway()) else {
                continue;
            };
            if session.regroup(|serial| gateway.is_some_and(|own| own.has(serial))) {
                session.falls_behind();
            }
        }
    }
}
