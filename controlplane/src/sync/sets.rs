//! Secrets, session keys and revocations to one node: what it lacks, in parts.

use std::sync::Arc;

use fleet_proto::v1::{Hello, SetPart, SetVersion};
use tokio::sync::watch;

use crate::{
    publish::Snapshot,
    sets::{Current, Shown},
};

/// The sets for one stream.
pub(super) struct Feed {
    sets: Arc<Shown>,
    changed: watch::Receiver<Arc<Current>>,
    /// What the node has, or was sent last, whatever it has answered: the newest is
    /// sent once.
    has: Vec<SetVersion>,
}

impl Feed {
    pub(super) fn new(sets: Arc<Shown>, hello: &Hello) -> Self {
        Self {
            changed: sets.subscribe(),
            sets,
            has: hello.sets.clone(),
        }
    }

    /// From now on [`changed`](Self::changed) tells what is newer.
    pub(super) fn mark_unchanged(&mut self) {
        self.changed.mark_unchanged();
    }

    /// Returns when a set has changed; never once there can be no change.
    pub(super) async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// The parts of the next set that a node of these revisions lacks.
    pub(super) fn next<'a>(
        &mut self,
        revisions: impl IntoIterator<Item = &'a Arc<Snapshot>>,
    ) -> Option<Arc<[SetPart]>> {
        let wanted = self.sets.wanted(revisions);
        for (place, version) in wanted.versions().iter().enumerate() {
            let mut has = self.has.iter_mut().filter(|has| has.set == version.set);
            match has.next() {
                Some(has) if has == version => continue,
                Some(has) => has.clone_from(version),
                // Nothing was ever in it.
                None if version.version == 0 => continue,
                None => self.has.push(version.clone()),
            }
            return Some(wanted.parts(place));
        }
        None
    }
}
