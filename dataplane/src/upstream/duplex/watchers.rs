//! Who has subscribed to which resource: the server has one connection, and so one subscriber.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{envelope, session::Session};

/// Resources that one session may watch, and all of them together.
const MOST: (usize, usize) = (1_000, 10_000);
/// Longest URI that is watched, in bytes.
const LONGEST: usize = 8 << 10;

/// Sessions by URI.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<HashMap<String, Vec<Weak<Session>>>>);

impl Watchers {
    /// A session wants to know of this resource. Whether there is room for that.
    pub(super) fn add(&self, uri: &str, session: &Arc<Session>) -> bool {
        let mut all = self.0.lock();
        if all.len() >= MOST.0 && !all.contains_key(uri) {
            all.retain(|_, watching| {
                watching.retain(|own| own.strong_count() > 0);
                !watching.is_empty()
            });
            let is_own = |watching: &&Vec<_>| watching.iter().any(|own| is(own, session));
            if all.len() >= MOST.1 || all.values().filter(is_own).count() >= MOST.0 {
                return false;
            }
        }
        if uri.len() > LONGEST {
            return false;
        }
        let watching = all.entry(uri.to_owned()).or_default();
        watching.retain(|own| own.strong_count() > 0 && !is(own, session));
        watching.push(Arc::downgrade(session));
        true
    }

    /// It does no longer. Whether nobody does.
    pub(super) fn remove(&self, uri: &str, session: &Session) -> bool {
        let mut all = self.0.lock();
        let Some(watching) = all.get_mut(uri) else {
            return true;
        };
        watching.retain(|own| own.strong_count() > 0 && !is(own, session));
        let is_last = watching.is_empty();
        if is_last {
            all.remove(uri);
        }
        is_last
    }

    /// Passes `notifications/resources/updated` on to whom it concerns.
    pub(crate) fn updated(&self, notification: &Bytes) {
        let uri = envelope::scan(notification).ok().and_then(|m| m.uri);
        let uri = uri.and_then(|uri| envelope::string_value(notification, uri));
        let watching = uri.and_then(|uri| self.0.lock().get(&*uri).cloned());
        let watching = watching.unwrap_or_default();
        for session in watching.iter().filter_map(Weak::upgrade) {
            session.unsolicited(notification.clone());
        }
    }
}

fn is(own: &Weak<Session>, session: &Session) -> bool {
    std::ptr::eq(own.as_ptr(), session)
}
