//! [`Catalog`]: what one backend offers, as it was last told.
//!
//! A backend that is slow or dead keeps its last known lists for a grace
//! period; it never delays another one's. Who reads a catalogue that has grown
//! old starts its renewal and does not wait for it.

pub mod discover;
mod entries;
pub(crate) mod kept;
pub mod params;
pub mod render;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};

use crate::{call::Era, envelope::Span};
use params::ParamHeader;

/// How long lists are taken for fresh when the backend does not say.
const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// A backend that asks for less is asked no more often than this.
const MIN_TTL: Duration = Duration::from_secs(1);
/// How long lists outlive the last success.
const GRACE: Duration = Duration::from_secs(600);

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `name`, or `uri`, or `uriTemplate`: what identifies it.
    pub id: String,
    /// The object as the backend wrote it.
    pub json: Bytes,
    /// Where in `json` its `name` is, with quotes.
    pub name: Span,
}

/// Everything a backend offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// `tools/list`.
    pub tools: Vec<Item>,
    /// `prompts/list`.
    pub prompts: Vec<Item>,
    /// `resources/list`.
    pub resources: Vec<Item>,
    /// `resources/templates/list`.
    pub templates: Vec<Item>,
    /// Parameters that HTTP headers mirror (`x-mcp-header`), by tool.
    pub params: HashMap<String, Vec<ParamHeader>>,
    /// The least `ttlMs` of the lists; `None`: the backend gives no hints.
    pub ttl: Option<Duration>,
    /// Whether every list says `cacheScope: public`.
    pub public: bool,
}

/// What a backend says of itself.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The era it was met in.
    pub era: Option<Era>,
    /// JSON text of its capabilities.
    pub capabilities: Option<Box<RawValue>>,
    /// Its instructions for models.
    pub instructions: Option<String>,
}

/// How far a catalogue can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The backend has not answered yet.
    Unknown,
    /// It has, and nothing has failed since.
    Fresh,
    /// The last attempt failed; what it told before is still shown.
    Stale,
    /// It never told, or too long ago.
    Failed,
}

/// One state of a catalogue.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// How far it can be trusted.
    pub state: State,
    /// What is offered.
    pub lists: Arc<Lists>,
    /// What the backend says of itself.
    pub about: Arc<About>,
    /// When it was last told.
    pub told: Option<Instant>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// What one backend offers.
pub struct Catalog {
    now: ArcSwap<Snapshot>,
    /// Bumped at every change.
    epoch: Arc<AtomicU64>,
    /// Asks for a renewal.
    pub(crate) wanted: Arc<Notify>,
    /// Turns true when the backend has answered, or failed to, for the first time.
    settled: watch::Sender<bool>,
    created: Instant,
    /// When the backend was last asked, in milliseconds from `created`.
    asked: AtomicU64,
}

impl Catalog {
    /// A catalogue that knows nothing, or what a predecessor of the same key knew.
    #[must_use]
    pub fn new(epoch: Arc<AtomicU64>, predecessor: Option<&Self>) -> Self {
        let before = predecessor
            .map(Self::snapshot)
            .filter(|before| before.told.is_some());
        let known = before.is_some();
        let now = match before {
            Some(before) => Snapshot {
                state: State::Stale,
                ..(*before).clone()
            },
            None => Snapshot {
                state: State::Unknown,
                lists: Arc::default(),
                about: Arc::default(),
                told: None,
                error: None,
            },
        };
        Self {
            now: ArcSwap::from_pointee(now),
            epoch,
            wanted: Arc::default(),
            settled: watch::Sender::new(known),
            created: Instant::now(),
            asked: AtomicU64::new(0),
        }
    }

    /// Its state now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.now.load_full()
    }

    /// What the backend offered before this process started; nothing where more is known.
    pub(crate) fn restored(&self, about: About, lists: Lists) {
        if self.snapshot().told.is_none() {
            self.set(Snapshot {
                state: State::Stale,
                lists: Arc::new(lists),
                about: Arc::new(about),
                told: Some(Instant::now()),
                error: None,
            });
        }
    }

    /// The backend has told what it offers.
    pub fn told(&self, about: About, lists: Lists) {
        let before = self.snapshot();
        let lists = if *before.lists == lists {
            before.lists.clone()
        } else {
            Arc::new(lists)
        };
        self.set(Snapshot {
            state: State::Fresh,
            lists,
            about: Arc::new(about),
            told: Some(Instant::now()),
            error: None,
        });
    }

    /// An attempt has failed.
    pub fn failed(&self, error: String) {
        let before = self.snapshot();
        let known = before.told.is_some_and(|told| told.elapsed() < GRACE);
        let mut after = Snapshot {
            error: Some(error),
            ..(*before).clone()
        };
        if known {
            after.state = State::Stale;
        } else {
            after.state = State::Failed;
            after.lists = Arc::default();
        }
        self.set(after);
    }

    fn set(&self, snapshot: Snapshot) {
        let asked = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.asked.store(asked, Ordering::Relaxed);
        let after = Arc::new(snapshot);
        let before = self.now.swap(after.clone());
        // What looks the same needs no new rendering.
        if before.state != after.state
            || before.told.is_some() != after.told.is_some()
            || before.lists != after.lists
        {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        self.settled.send_replace(true);
    }

    /// Starts a renewal where the lists have grown old. A backend that fails is
    /// not asked more often because more clients want its lists.
    pub fn touch(&self) {
        let asked = Duration::from_millis(self.asked.load(Ordering::Relaxed));
        if self.created.elapsed().saturating_sub(asked) < MIN_TTL {
            return;
        }
        let now = self.now.load();
        let old = now
            .told
            .is_some_and(|told| told.elapsed() > fresh_for(&now.lists));
        if old || now.state == State::Failed {
            self.wanted.notify_one();
        }
    }

    /// Waits until the backend has answered or failed once, but not beyond
    /// `patience` from the catalogue's creation.
    pub async fn settled(&self, patience: Duration) {
        let mut settled = self.settled.subscribe();
        if *settled.borrow_and_update() {
            return;
        }
        let until = tokio::time::Instant::from_std(self.created + patience);
        // At the deadline, the list goes out without this backend.
        let _ = tokio::time::timeout_at(until, settled.wait_for(|done| *done)).await;
    }
}

impl Drop for Catalog {
    /// Wakes the discovery task, which ends where its backend is gone.
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

/// How long lists are served without asking the backend again.
fn fresh_for(lists: &Lists) -> Duration {
    lists.ttl.unwrap_or(DEFAULT_TTL).max(MIN_TTL)
}
