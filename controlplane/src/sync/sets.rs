//! Secrets, session keys, revocations and peers to one node: what it lacks, in parts.

use std::sync::Arc;

use fleet_proto::v1::{Hello, SetPart, SetVersion};
use tokio::sync::watch;

use crate::{
    peers,
    publish::Snapshot,
    sets::{Current, Shown},
};

/// The sets for one stream.
pub(super) struct Feed {
    sets: Arc<Shown>,
    changed: watch::Receiver<Arc<Current>>,
    /// `None`: the node has no peers.
    peers: Option<watch::Receiver<Arc<peers::Shown>>>,
    /// What the node has, or was sent last, whatever it has answered: the newest is
    /// sent once.
    has: Vec<SetVersion>,
}

impl Feed {
    pub(super) fn new(
        sets: Arc<Shown>,
        peers: watch::Receiver<Arc<peers::Shown>>,
        hello: &Hello,
    ) -> Self {
        Self {
            changed: sets.subscribe(),
            peers: (!hello.peer_address.is_empty()).then_some(peers),
            sets,
            has: hello.sets.clone(),
        }
    }

    /// From now on [`changed`](Self::changed) tells what is newer.
    pub(super) fn mark_unchanged(&mut self) {
        self.changed.mark_unchanged();
        if let Some(peers) = &mut self.peers {
            peers.mark_unchanged();
        }
    }

    /// Returns when a set has changed; never once there can be no change.
    pub(super) async fn changed(&mut self) {
        let changed = async |of: Result<(), watch::error::RecvError>| {
            if of.is_err() {
                std::future::pending().await
            }
        };
        match &mut self.peers {
            None => changed(self.changed.changed().await).await,
            Some(peers) => tokio::select! {
                of = self.changed.changed() => changed(of).await,
                of = peers.changed() => changed(of).await,
            },
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
        self.next_peers()
    }

    fn next_peers(&mut self) -> Option<Arc<[SetPart]>> {
        let shown = Arc::clone(&self.peers.as_ref()?.borrow());
        let has = |has: &&mut SetVersion| has.set == shown.version.set;
        match self.has.iter_mut().find(has) {
            Some(has) if *has == shown.version => return None,
            Some(has) => has.clone_from(&shown.version),
            None => self.has.push(shown.version.clone()),
        }
        Some(Arc::clone(&shown.parts))
    }
}
