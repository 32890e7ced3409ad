//! Which kinds of entries have changed: what `list_changed` notifications are made of.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;

use super::Lists;
use crate::table::Gateway;

/// A kind of entries that clients can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// `notifications/tools/list_changed`.
    Tools,
    /// `notifications/prompts/list_changed`.
    Prompts,
    /// `notifications/resources/list_changed`, also of templates.
    Resources,
}

impl Listed {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tools, Self::Prompts, Self::Resources];

    /// The notification.
    #[must_use]
    pub const fn notification(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resources => "notifications/resources/list_changed",
        }
    }

    /// The kind that a notification is about.
    #[must_use]
    pub fn of(method: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.notification().as_bytes() == method)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// How often each kind of one backend's entries has changed.
#[derive(Debug, Default)]
pub(super) struct Versions {
    counts: [AtomicU64; 3],
    /// Kinds of which the backend has said that they change, as bits: the lists that are
    /// asked for behind that are told of, whether they differ or not.
    announced: AtomicU8,
    /// Those that were announced before the backend was asked.
    asked: AtomicU8,
}

impl Versions {
    /// Those of a predecessor: what has not changed since is no news.
    pub(super) fn from(before: &Self) -> Self {
        let count = |kind: Listed| AtomicU64::new(before.count(kind));
        Self {
            counts: Listed::ALL.map(count),
            announced: AtomicU8::default(),
            asked: AtomicU8::default(),
        }
    }

    fn count(&self, kind: Listed) -> u64 {
        self.counts[kind as usize].load(Ordering::Relaxed)
    }

    pub(super) fn announce(&self, kind: Listed) {
        self.announced.fetch_or(kind.bit(), Ordering::Relaxed);
    }

    /// The backend is being asked: what it has announced so far is in what it answers.
    pub(super) fn ask(&self) {
        let announced = self.announced.swap(0, Ordering::Relaxed);
        self.asked.fetch_or(announced, Ordering::Relaxed);
    }

    /// Counts what differs and, where the backend has told, what was announced. Whether
    /// there was any.
    pub(super) fn turn(&self, before: &Lists, after: &Lists, told: bool) -> bool {
        let announced = if told {
            self.asked.swap(0, Ordering::Relaxed)
        } else {
            0
        };
        let differ = |kind| match kind {
            Listed::Tools => before.tools != after.tools,
            Listed::Prompts => before.prompts != after.prompts,
            Listed::Resources => {
                before.resources != after.resources || before.templates != after.templates
            }
        };
        let is_same = std::ptr::eq(before, after);
        let mut turned = false;
        for kind in Listed::ALL {
            if announced & kind.bit() != 0 || !is_same && differ(kind) {
                self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
                turned = true;
            }
        }
        turned
    }
}

/// What tells two states of a gateway's lists apart, for each kind. Made once after a
/// change, and shared by all who listen.
#[derive(Default)]
pub(crate) struct VersionsCell(ArcSwapOption<(u64, [u64; 3])>);

impl VersionsCell {
    pub(crate) fn get(&self, gateway: &Gateway) -> [u64; 3] {
        let epoch = gateway.epoch.load(Ordering::Acquire);
        if let Some(made) = self.0.load_full()
            && made.0 == epoch
        {
            return made.1;
        }
        let made = Listed::ALL.map(|kind| of(gateway, kind));
        self.0.store(Some(Arc::new((epoch, made))));
        made
    }
}

/// Backends that have nothing of the kind do not count: one that comes or goes is no news.
fn of(gateway: &Gateway, kind: Listed) -> u64 {
    let mut hash = DefaultHasher::new();
    (
        format!("{:?}", gateway.naming),
        gateway.resource_owner.is_some(),
    )
        .hash(&mut hash);
    for backend in &gateway.backends {
        let count = backend.catalog.versions.count(kind);
        if count > 0 {
            (backend.name(), count).hash(&mut hash);
        }
    }
    hash.finish()
}
