//! [`Catalog`]: what one backend offers, as it was last told.
//!
//! A backend that is slow or dead keeps its last known lists for a grace
//! period; it never delays another one's. Who reads a catalogue that has grown
//! old starts its renewal and does not wait for it.

pub mod announce;
pub mod discover;
mod entries;
pub mod epoch;
pub(crate) mod feed;
pub(crate) mod kept;
pub mod list;
pub mod params;
pub mod render;
pub(crate) mod schedule;
pub mod versions;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::call::Era;
use epoch::Epoch;
use list::List;
use params::ParamHeader;
use schedule::Urgency;
use versions::{Listed, Versions};

/// How long lists are taken for fresh when the backend does not say.
const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// A backend that asks for less is asked no more often than this.
const MIN_TTL: Duration = Duration::from_secs(1);
/// How long lists outlive the last success.
const GRACE: Duration = Duration::from_secs(600);

/// Everything a backend offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// `tools/list`.
    pub tools: List,
    /// `prompts/list`.
    pub prompts: List,
    /// `resources/list`.
    pub resources: List,
    /// `resources/templates/list`.
    pub templates: List,
    /// Parameters that HTTP headers mirror (`x-mcp-header`), by tool.
    pub params: HashMap<String, Vec<ParamHeader>>,
    /// The least `ttlMs` of the lists; `None`: the backend gives no hints.
    pub ttl: Option<Duration>,
    /// Whether every list says `cacheScope: public`.
    pub public: bool,
}

impl Lists {
    /// How many entries there are in all of them.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.tools.len() + self.prompts.len() + self.resources.len() + self.templates.len()
    }
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
    /// Turned at every change.
    epoch: Arc<Epoch>,
    /// What `list_changed` notifications are made of.
    versions: Versions,
    /// Hears of changes, while somebody wants to know.
    feed: feed::Feed,
    /// Its place among those that are asked.
    place: schedule::Place,
    /// Whether the backend has answered, or failed to, at least once.
    settled: AtomicBool,
    /// Wakes those who wait for that.
    settling: Notify,
    created: Instant,
    /// When the backend was last asked, in milliseconds from `created`.
    asked: AtomicU64,
}

impl Catalog {
    /// A catalogue that knows nothing, or what a predecessor of the same key knew.
    #[must_use]
    pub fn new(epoch: Arc<Epoch>, predecessor: Option<&Self>) -> Self {
        let before = predecessor
            .map(Self::snapshot)
            .filter(|before| before.told.is_some());
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
        let versions = predecessor.map_or_else(Versions::default, |p| Versions::from(&p.versions));
        Self::of(epoch, Arc::new(now), versions)
    }

    /// The catalogue of a backend that takes over all that its predecessor has open: what that
    /// has told still holds.
    #[must_use]
    pub(crate) fn taken_over(predecessor: &Self) -> Self {
        let versions = Versions::from(&predecessor.versions);
        let after = Self::of(predecessor.epoch.clone(), predecessor.snapshot(), versions);
        let settled = predecessor.settled.load(Ordering::Acquire);
        let asked = predecessor.asked.load(Ordering::Relaxed);
        Self {
            created: predecessor.created,
            settled: AtomicBool::new(settled),
            asked: AtomicU64::new(asked),
            ..after
        }
    }

    fn of(epoch: Arc<Epoch>, now: Arc<Snapshot>, versions: Versions) -> Self {
        let settled = AtomicBool::new(now.told.is_some());
        Self {
            now: ArcSwap::new(now),
            epoch,
            versions,
            feed: feed::Feed::default(),
            place: schedule::Place::default(),
            settled,
            settling: Notify::new(),
            created: Instant::now(),
            asked: AtomicU64::new(0),
        }
    }

    /// Its state now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.now.load_full()
    }

    /// The lists, where any of the tools has parameters that headers mirror.
    pub(crate) fn mirrored(&self) -> Option<Arc<Lists>> {
        let now = self.now.load();
        (!now.lists.params.is_empty()).then(|| now.lists.clone())
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
        let told = after.state == State::Fresh;
        let turned = self.versions.turn(&before.lists, &after.lists, told);
        // What looks the same needs no new rendering.
        if turned
            || before.state != after.state
            || before.told.is_some() != after.told.is_some()
            || before.lists != after.lists
        {
            self.epoch.turn();
        }
        if !self.settled.swap(true, Ordering::AcqRel) {
            self.settling.notify_waiters();
        }
    }

    /// The backend says that its lists have changed: it is asked for them anew.
    pub(crate) fn want(&self) {
        self.place.want(Urgency::Now);
    }

    /// Has the backend asked for the first time: at leisure, where something is known of it.
    pub(crate) fn ask(&self) {
        let urgency = if self.is_told() {
            Urgency::AtLeisure
        } else {
            Urgency::Now
        };
        self.place.want(urgency);
    }

    /// Whether anything is known.
    pub(crate) fn is_told(&self) -> bool {
        self.now.load().told.is_some()
    }

    /// Whether it is being asked, or about to be.
    pub(crate) fn is_wanted(&self) -> bool {
        self.place.is_wanted()
    }

    /// It is being asked now.
    pub(crate) fn asking(&self) {
        self.versions.ask();
    }

    /// The backend says that entries of this kind have changed: they are asked for anew,
    /// and who listens is told when they are there.
    pub(crate) fn announced(&self, kind: Listed) {
        self.versions.announce(kind);
        self.want();
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
            self.place.want(Urgency::AtLeisure);
        }
    }

    /// Waits until the backend has answered or failed once, but not beyond
    /// `patience` from the catalogue's creation.
    pub async fn settled(&self, patience: Duration) {
        // From here on it hears of a change that comes before it waits.
        let settling = self.settling.notified();
        if self.settled.load(Ordering::Acquire) {
            return;
        }
        let until = tokio::time::Instant::from_std(self.created + patience);
        // At the deadline, the list goes out without this backend.
        let _ = tokio::time::timeout_at(until, settling).await;
    }
}

/// How long lists are served without asking the backend again.
fn fresh_for(lists: &Lists) -> Duration {
    lists.ttl.unwrap_or(DEFAULT_TTL).max(MIN_TTL)
}
