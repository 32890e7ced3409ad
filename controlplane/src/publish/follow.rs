//! Follows a store that other control planes write to as well.
//!
//! On the config way beside `change`: what this control plane has not written
//! itself is read from the store and published. It looks at every notification
//! and once a second; a look that fails changes nothing, and the next one goes on.

use std::{collections::HashSet, mem, sync::Arc, time::Duration};

use fleet_proto::hash::Hash;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Publisher, Snapshot};
use crate::{
    change::load,
    sets::Sets,
    store::{
        Store, StoreError,
        shared::{GONE, Shared},
    },
    sync::{
        node::Registry,
        recall::{Verdict, recall},
    },
};

/// Between two looks: what no notification has told is seen by then.
const LOOK: Duration = Duration::from_secs(1);

/// One control plane's view of what all of them write.
pub(crate) struct Follow {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) nodes: Arc<Registry>,
    sets: Arc<Sets>,
    progress: Progress,
}

#[derive(Default)]
struct Progress {
    /// Nodes are known up to this number.
    nodes: u64,
    /// The control planes that lived at the last look.
    live: HashSet<String>,
    /// The last look failed.
    failing: bool,
    /// When looks began to work again.
    recovered: Option<Instant>,
    /// A revision that cannot be served, so that it is logged once.
    unusable: Option<(u64, Hash)>,
}

impl Follow {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        publisher: Arc<Publisher>,
        nodes: Arc<Registry>,
        sets: Arc<Sets>,
    ) -> Self {
        Self {
            store,
            publisher,
            nodes,
            sets,
            progress: Progress::default(),
        }
    }

    /// Looks until the control plane stops.
    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let store = Arc::clone(&self.store);
        let Some(shared) = store.shared() else {
            return;
        };
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = shared.changed() => {}
                _ = shutdown.wait_for(|down| *down) => return,
            }
            let looked = tokio::select! {
                looked = self.look() => looked,
                _ = shutdown.wait_for(|down| *down) => return,
            };
            let was_failing = mem::replace(&mut self.progress.failing, looked.is_err());
            match looked {
                Ok(()) if was_failing => tracing::info!("the database is back"),
                Err(error) if !was_failing => {
                    tracing::error!(%error, "the database cannot be followed; trying again");
                }
                _ => {}
            }
        }
    }

    /// Takes over what is new. Does nothing where nobody else can write.
    pub(crate) async fn look(&mut self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let Some(shared) = store.shared() else {
            return Ok(());
        };
        let live = shared.beat().await?;
        let live = self.live(live);
        let published = self.configuration(shared).await?;
        // Also those that came without a revision.
        self.sets.follow().await?;
        let (number, seen) = shared.nodes_since(self.progress.nodes).await?;
        if published || !seen.is_empty() {
            let mut verdicts = self.nodes.verdicts();
            verdicts.extend(seen.iter().map(|node| Verdict::of(&node.row)));
            // First: who sees what a node has said also finds it heeded.
            recall(&self.publisher, &*self.store, &verdicts).await?;
        }
        self.nodes.merge(shared.id(), seen, live);
        self.progress.nodes = number;
        self.nodes.refresh();
        // What could not be written before.
        self.nodes.save(&*self.store).await
    }

    /// After an outage of the database nobody has been heard of: others are given
    /// the time to say that they live.
    fn live(&mut self, mut live: HashSet<String>) -> HashSet<String> {
        let progress = &mut self.progress;
        if progress.failing {
            progress.recovered = Some(Instant::now());
        }
        if progress.recovered.is_some_and(|at| at.elapsed() < GONE) {
            live.extend(progress.live.iter().cloned());
        }
        progress.live.clone_from(&live);
        live
    }

    /// Publishes the newest revision, if it is not published yet.
    async fn configuration(&mut self, shared: &dyn Shared) -> Result<bool, StoreError> {
        // Read before the head: what was published by then is in the store.
        let before = self.publisher.newest();
        let head = shared.head().await?;
        let same = |revision, root: Hash, lineage: &str| {
            revision == head.revision && root == head.root_hash && lineage == head.lineage
        };
        if same(before.revision, before.root_hash(), &before.lineage)
            || self.progress.unusable == Some((head.revision, head.root_hash))
        {
            return Ok(false);
        }
        let (head, rows) = shared.newest().await?;
        // After the rows, and shown before them: no revision without the values it names.
        self.sets.follow().await?;
        let loaded = tokio::task::spawn_blocking(move || load(rows)).await;
        let reason = match loaded {
            Ok(Ok((resources, _))) if resources.root_hash() == head.root_hash => {
                let snapshot = Snapshot {
                    lineage: head.lineage.as_str().into(),
                    revision: head.revision,
                    resources,
                };
                self.publish(&before, snapshot);
                return Ok(true);
            }
            Ok(Ok(_)) => "it holds more than this version knows".to_owned(),
            Ok(Err(problems)) => problems
                .first()
                .map(ToString::to_string)
                .unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            revision = head.revision,
            reason,
            "a revision of another control plane cannot be served; the one before stays: \
             upgrade this control plane"
        );
        self.progress.unusable = Some((head.revision, head.root_hash));
        Ok(false)
    }

    fn publish(&mut self, before: &Arc<Snapshot>, snapshot: Snapshot) {
        self.progress.unusable = None;
        if before.lineage == snapshot.lineage && before.revision < snapshot.revision {
            tracing::info!(
                revision = snapshot.revision,
                "new revision by another control plane"
            );
            self.publisher.publish(snapshot);
        } else if Arc::ptr_eq(before, &self.publisher.newest()) {
            tracing::error!(
                was = before.revision,
                is = snapshot.revision,
                "the database was set back: what it holds now is served"
            );
            self.publisher.replace(snapshot);
        }
    }
}
