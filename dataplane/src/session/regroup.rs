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
        let (mut is_back, mut withdrawn) = (false, Vec::new());
        self.upstreams.lock().retain(|(serial, slot)| {
            let has = has(*serial);
            is_back |= slot.admit(has);
            let stays = has || slot.live().is_some() || Arc::strong_count(slot) > 1;
            if stays && !has {
                withdrawn.push((*serial, slot.clone()));
            }
            stays
        });
        // What a withdrawn one is subscribed to it is still, should it come back.
        self.unmake(|at, uri| {
            let mut all = withdrawn.iter();
            has(at) || all.any(|(serial, slot)| *serial == at && slot.is_subscribed(uri))
        });
        is_back || self.has_subscriptions()
    }

    /// Gives up its subscriptions to a resource, wherever it has any `but` at this backend.
    pub(crate) fn leave(&self, worker: WorkerId, uri: &str, but: Option<u64>) {
        let gone = self.subscribed.lock().take(uri, but);
        drop(gone);
        for (serial, slot) in self.upstreams.lock().iter() {
            if Some(*serial) != but {
                unsubscribe(worker, slot, uri);
            }
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
