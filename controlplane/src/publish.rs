//! The newest revision in memory, and what a node is to see of it.
//!
//! On the config way: after the store, before the streams. One watch channel
//! holds everything that streams decide by; no stream has a queue.

use std::sync::Arc;

use fleet_proto::{
    delta::{Delta, known::Known},
    hash::Hash,
    validate::Valid,
};
use tokio::sync::{Semaphore, watch};

pub(crate) mod follow;
mod history;

pub(crate) use history::Base;
use history::History;

/// Nodes that are asked for the hashes of what they serve at the same time: each list
/// takes memory, and after the first one most others need not be asked.
const ASKED: usize = 8;
/// Versions remembered that have refused the newest revision.
const VERSIONS: usize = 16;

/// A revision, whole and immutable.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// UUID of the store.
    pub(crate) lineage: Arc<str>,
    pub(crate) revision: u64,
    pub(crate) resources: Valid,
}

impl Snapshot {
    pub(crate) fn root_hash(&self) -> Hash {
        self.resources.root_hash()
    }
}

/// What is there to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// The newest revision.
    pub(crate) newest: Arc<Snapshot>,
    /// The newest revision that some node has acked.
    acked: Option<Arc<Snapshot>>,
    /// The versions of the nodes that have refused `newest`.
    refused_by: Vec<String>,
}

impl Published {
    /// What a node is to be sent, given whether it serves something and which
    /// root hashes it has refused. `None`: nothing that it could use.
    ///
    /// A node that has nothing does not get a revision which others have refused
    /// and none has acked, but the newest acked one: it starts serving.
    pub(crate) fn target(
        &self,
        serves_something: bool,
        has_refused: impl Fn(Hash) -> bool,
    ) -> Option<&Arc<Snapshot>> {
        let acked = self
            .acked
            .as_ref()
            .filter(|acked| !has_refused(acked.root_hash()));
        let newest_refused = has_refused(self.newest.root_hash());
        if serves_something {
            return Some(&self.newest).filter(|_| !newest_refused);
        }
        if newest_refused || self.is_only_refused() {
            acked.or(Some(&self.newest).filter(|_| !newest_refused))
        } else {
            Some(&self.newest)
        }
    }

    /// Whether nodes have refused the newest revision, and none has acked it.
    fn is_only_refused(&self) -> bool {
        !self.refused_by.is_empty() && !self.is_acked()
    }

    /// Whether a node of this version that was given an older revision for that reason
    /// stays with it: the newest one is only refused, and was so by its version.
    pub(crate) fn holds_back(&self, version: &str) -> bool {
        self.is_only_refused() && self.refused_by.iter().any(|by| by == version)
    }

    fn is_acked(&self) -> bool {
        self.acked
            .as_ref()
            .is_some_and(|acked| acked.revision == self.newest.revision)
    }
}

/// Says what is newest, and what nodes have said to it.
#[derive(Debug)]
pub(crate) struct Publisher {
    state: watch::Sender<Published>,
    history: History,
    asking: Arc<Semaphore>,
}

impl Publisher {
    pub(crate) fn new(newest: Snapshot) -> Self {
        let newest = Arc::new(newest);
        let history = History::default();
        history.add(Arc::clone(&newest));
        Self {
            history,
            asking: Arc::new(Semaphore::new(ASKED)),
            state: watch::Sender::new(Published {
                newest,
                acked: None,
                refused_by: Vec::new(),
            }),
        }
    }

    /// The newest revision.
    pub(crate) fn newest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.borrow().newest)
    }

    /// Everything, now and at every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Published> {
        self.state.subscribe()
    }

    /// Shows a newer revision; an older one changes nothing.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        // One that was read from the store shares nothing yet with its neighbours.
        let resources = snapshot.resources.sharing(&self.newest().resources);
        let snapshot = Arc::new(Snapshot {
            resources,
            ..snapshot
        });
        self.state.send_if_modified(|state| {
            let newer = snapshot.revision > state.newest.revision;
            if newer {
                // Known before any node can have it.
                self.history.add(Arc::clone(&snapshot));
                state.newest = snapshot;
                state.refused_by.clear();
            }
            newer
        });
    }

    /// Shows another state of the store, which is not newer: it was set back.
    pub(crate) fn replace(&self, snapshot: Snapshot) {
        let newest = Arc::new(snapshot);
        self.history.add(Arc::clone(&newest));
        self.state.send_replace(Published {
            newest,
            acked: None,
            refused_by: Vec::new(),
        });
    }

    /// The newest revision that some node has acked.
    pub(crate) fn acked_revision(&self) -> Option<u64> {
        let state = self.state.borrow();
        state.acked.as_ref().map(|acked| acked.revision)
    }

    /// One of the last revisions, or what a node has told, by what it holds.
    pub(crate) fn known(&self, root: Hash) -> Option<Base> {
        self.history.find(root)
    }

    /// A node has told what it serves.
    pub(crate) fn told(&self, known: Arc<Known>) {
        self.history.told(known);
    }

    /// Held while a node is asked what it serves.
    pub(crate) fn asking(&self) -> Arc<Semaphore> {
        Arc::clone(&self.asking)
    }

    /// What makes `target` out of `base`; without a base, the whole of it.
    pub(crate) fn delta(&self, base: Option<&Base>, target: &Snapshot) -> Arc<Delta> {
        self.history.delta(base, target)
    }

    /// A node serves this revision.
    pub(crate) fn acked(&self, snapshot: &Arc<Snapshot>) {
        self.state.send_if_modified(|state| {
            let newer = state
                .acked
                .as_ref()
                .is_none_or(|a| a.revision < snapshot.revision);
            if newer {
                state.acked = Some(Arc::clone(snapshot));
            }
            newer
        });
    }

    /// A node of this version has refused this revision.
    pub(crate) fn refused(&self, revision: u64, version: &str) {
        self.state.send_if_modified(|state| {
            let by = &mut state.refused_by;
            let news = state.newest.revision == revision
                && by.len() < VERSIONS
                && by.iter().all(|known| known != version);
            if news {
                by.push(version.to_owned());
            }
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use fleet_proto::{
        v1::{Backend, HttpBackend, Resource, backend, resource},
        validate::validate,
    };

    use super::*;

    fn snapshot(revision: u64) -> Snapshot {
        let url = "http://127.0.0.1:1/mcp".to_owned();
        let backend = Backend {
            name: format!("b{revision}"),
            transport: Some(backend::Transport::Http(HttpBackend {
                url,
                ..Default::default()
            })),
            ..Default::default()
        };
        let resource = Resource {
            kind: Some(resource::Kind::Backend(backend)),
        };
        Snapshot {
            lineage: "l".into(),
            revision,
            resources: validate([resource]).unwrap(),
        }
    }

    fn target(publisher: &Publisher, serves: bool, refused: &[Hash]) -> Option<u64> {
        let state = publisher.state.borrow();
        state
            .target(serves, |hash| refused.contains(&hash))
            .map(|s| s.revision)
    }

    #[test]
    fn a_node_with_nothing_gets_the_newest_acked_revision_while_the_newest_is_only_refused() {
        let publisher = Publisher::new(snapshot(1));
        let refused = snapshot(2).root_hash();
        publisher.acked(&publisher.newest());
        publisher.publish(snapshot(2));
        assert_eq!(target(&publisher, false, &[]), Some(2));
        publisher.refused(2, "1");
        assert_eq!(
            target(&publisher, false, &[]),
            Some(1),
            "refused and acked by nobody"
        );
        assert_eq!(
            target(&publisher, true, &[]),
            Some(2),
            "it serves something: may try"
        );
        assert_eq!(
            target(&publisher, true, &[refused]),
            None,
            "never again what it refused"
        );
        publisher.acked(&publisher.newest());
        assert_eq!(target(&publisher, false, &[]), Some(2), "acked by somebody");
        assert_eq!(
            target(&publisher, false, &[refused]),
            None,
            "it refused the only one acked"
        );
    }

    #[test]
    fn without_an_acked_revision_a_refused_one_is_still_tried() {
        let publisher = Publisher::new(snapshot(1));
        publisher.refused(1, "1");
        assert_eq!(target(&publisher, false, &[]), Some(1));
    }

    #[test]
    fn an_older_revision_or_verdict_changes_nothing() {
        let publisher = Publisher::new(snapshot(1));
        let old = publisher.newest();
        publisher.publish(snapshot(3));
        publisher.acked(&publisher.newest());
        let mut watch = publisher.subscribe();
        watch.mark_unchanged();
        publisher.publish(snapshot(2));
        publisher.acked(&old);
        publisher.refused(1, "1");
        assert!(!watch.has_changed().unwrap());
        assert_eq!(publisher.newest().revision, 3);
    }
}
