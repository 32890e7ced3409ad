//! What lately was newest, and the way from there to what is newest now.
//!
//! Sets that follow one another share their resources: an old one costs its keys.

use std::{collections::VecDeque, sync::Arc};

use fleet_proto::{
    delta::{self, Delta, known::Known},
    hash::Hash,
};
use parking_lot::Mutex;

use super::Snapshot;

/// Revisions kept for nodes that come back with them; an older one gets a snapshot.
const REVISIONS: usize = 16;
/// Deltas kept: most nodes go the same way at the same time.
const DELTAS: usize = 8;

/// Sets kept of which only the hashes are known: nodes that come back with the same one
/// are not all asked for them.
const HASHES: usize = 4;

/// What a node serves, as far as that is known here.
#[derive(Clone, Debug)]
pub(crate) enum Base {
    Set(Arc<Snapshot>),
    /// As the node, or another one that serves the same, has told.
    Hashes(Arc<Known>),
}

impl Base {
    /// The revision, where it is known whole.
    pub(crate) fn revision(&self) -> Option<&Arc<Snapshot>> {
        match self {
            Self::Set(snapshot) => Some(snapshot),
            Self::Hashes(_) => None,
        }
    }

    fn root_hash(&self) -> Hash {
        match self {
            Self::Set(snapshot) => snapshot.root_hash(),
            Self::Hashes(known) => known.root_hash(),
        }
    }
}

/// A delta with the root hashes of its ends; no base: a whole set.
type Way = (Option<Hash>, Hash, Arc<Delta>);

/// The last revisions, and the last deltas that were asked for.
#[derive(Debug, Default)]
pub(super) struct History {
    revisions: Mutex<VecDeque<Arc<Snapshot>>>,
    deltas: Mutex<VecDeque<Way>>,
    hashes: Mutex<VecDeque<Arc<Known>>>,
}

impl History {
    pub(super) fn add(&self, snapshot: Arc<Snapshot>) {
        let mut revisions = self.revisions.lock();
        revisions.truncate(REVISIONS - 1);
        revisions.push_front(snapshot);
    }

    /// A node has told what it serves.
    pub(super) fn told(&self, known: Arc<Known>) {
        let mut hashes = self.hashes.lock();
        if hashes.iter().all(|k| k.root_hash() != known.root_hash()) {
            hashes.truncate(HASHES - 1);
            hashes.push_front(known);
        }
    }

    /// A set of these contents, whichever revision that was.
    pub(super) fn find(&self, root: Hash) -> Option<Base> {
        let revisions = self.revisions.lock();
        let found = revisions.iter().find(|known| known.root_hash() == root);
        if let Some(found) = found {
            return Some(Base::Set(Arc::clone(found)));
        }
        drop(revisions);
        let hashes = self.hashes.lock();
        let found = hashes.iter().find(|known| known.root_hash() == root);
        found.cloned().map(Base::Hashes)
    }

    /// From one set to another, whichever way is shorter.
    pub(super) fn delta(&self, base: Option<&Base>, target: &Snapshot) -> Arc<Delta> {
        let ends = (base.map(Base::root_hash), target.root_hash());
        // Streams that ask for the same wait for the first one instead of computing it too.
        let mut deltas = self.deltas.lock();
        let known = deltas.iter().find(|(from, to, _)| (*from, *to) == ends);
        if let Some((_, _, known)) = known {
            return Arc::clone(known);
        }
        let target = &target.resources;
        let delta = match base {
            Some(Base::Set(base)) => Delta::smaller(&base.resources, target),
            Some(Base::Hashes(known)) => delta::from_known(known, target).or_whole(target),
            None => Delta::snapshot(target),
        };
        let delta = Arc::new(delta);
        deltas.truncate(DELTAS - 1);
        deltas.push_front((ends.0, ends.1, Arc::clone(&delta)));
        delta
    }
}
