//! [`Slot`]: the place of one upstream session of a legacy backend. The session
//! is opened on first use, and again when the backend has forgotten it.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderValue;
use parking_lot::Mutex;

use super::{http::Inner, message::logs::Severity};

/// An open upstream session.
pub struct Live {
    /// `Mcp-Session-Id`; `None`: the server keeps no sessions.
    pub id: Option<HeaderValue>,
    /// The negotiated version, for `MCP-Protocol-Version`.
    pub version: HeaderValue,
    /// JSON text of the `InitializeResult`.
    pub result: Bytes,
    /// Whether the backend has a level of logs to be set.
    pub(super) logs: bool,
    /// The level that it has; held while it is being set.
    pub(super) level: tokio::sync::Mutex<Option<Severity>>,
    /// A level waits to be set.
    pub(crate) level_waits: AtomicBool,
    /// The backend has no stream of what it says by itself in it.
    pub(super) has_no_stream: AtomicBool,
    /// The backend it is at.
    pub(super) backend: Weak<Inner>,
}

/// The place of one upstream session.
#[derive(Default)]
pub struct Slot {
    live: ArcSwapOption<Live>,
    /// Held while a session is being opened: the others wait for it.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// Whether somebody reads what comes in the session outside of calls.
    listened: AtomicBool,
    /// Such a stream was open once: the backend offers it.
    pub(super) offers_stream: AtomicBool,
    /// The client's gateway has the backend no longer: nothing of it is for the client.
    withdrawn: AtomicBool,
    /// Which of its client's subscriptions are there, by the hash of the URI.
    subscriptions: Mutex<BTreeSet<u64>>,
}

/// Subscriptions of a session at one backend that are made again.
const MOST: usize = 1_000;

impl Slot {
    /// The open session, if there is one.
    #[must_use]
    pub fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    pub(super) fn set(&self, live: Arc<Live>) {
        self.live.store(Some(live));
    }

    /// Forgets this very session; one that was opened meanwhile stays.
    pub(super) fn forget(&self, gone: &Arc<Live>) {
        self.live.compare_and_swap(gone, None);
    }

    /// Takes the session out, to end it.
    #[must_use]
    pub fn take(&self) -> Option<Arc<Live>> {
        self.live.swap(None)
    }

    /// The client has subscribed to a resource there, or to it no longer. Whether it was before.
    pub(crate) fn subscribed(&self, uri: &str, begins: bool) -> bool {
        let mut all = self.subscriptions.lock();
        if !begins {
            all.remove(&hash(uri))
        } else if all.len() < MOST {
            !all.insert(hash(uri))
        } else {
            all.contains(&hash(uri))
        }
    }

    /// Whether its client has subscribed to this resource there.
    pub(crate) fn is_subscribed(&self, uri: &str) -> bool {
        self.subscriptions.lock().contains(&hash(uri))
    }

    /// Those of these that it is subscribed to there.
    pub(super) fn subscriptions(&self, all: Vec<Box<str>>) -> Vec<Box<str>> {
        let own = self.subscriptions.lock();
        all.into_iter()
            .filter(|uri| own.contains(&hash(uri)))
            .collect()
    }

    /// The client's gateway has the backend from now on, or not. Whether it has it again.
    pub(crate) fn admit(&self, has: bool) -> bool {
        self.withdrawn.swap(!has, Ordering::Relaxed) && has
    }

    /// Takes it on oneself to listen in it, if there is anything to and nobody does.
    pub(super) fn take_listening(&self) -> bool {
        let live = self.live();
        live.is_some_and(|live| !live.has_no_stream.load(Ordering::Relaxed))
            && !self.is_withdrawn()
            && !self.listened.swap(true, Ordering::AcqRel)
    }

    /// Nobody listens in it any more.
    pub(super) fn leave_listening(&self) {
        self.listened.store(false, Ordering::Release);
    }

    /// Whether the client's gateway has the backend no longer.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Whether there are any.
    pub(super) fn has_subscriptions(&self) -> bool {
        !self.subscriptions.lock().is_empty()
    }

    /// Whether its backend is gone.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.live
            .load()
            .as_ref()
            .is_some_and(|live| live.backend.strong_count() == 0)
    }
}

fn hash(uri: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    uri.hash(&mut hasher);
    hasher.finish()
}
