//! Writes what is known of the nodes to the store, in batches.

use std::{mem, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::Registry;
use crate::{
    clock::now_ms,
    store::{
        Store, StoreError,
        shared::{NodeChange, Saved},
    },
};

/// Changes of nodes within this time are written to the store together.
const GATHER: Duration = Duration::from_millis(200);
/// Other control planes learn no later than this that a node was heard of.
const SEEN: Duration = Duration::from_secs(30);

impl Registry {
    /// Writes what has changed to the store. A failure is logged; what was to be
    /// written then is, the next time.
    pub(crate) async fn flush(&self, store: &dyn Store) {
        if let Err(error) = self.save(store).await {
            tracing::error!(%error, "the state of the nodes could not be stored; it is kept in memory");
        }
    }

    /// Like [`flush`](Self::flush), and gives the failure back.
    pub(crate) async fn save(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _one = self.saving.lock().await;
        let (changed, gone) = self.unsaved();
        if changed.is_empty() && gone.is_empty() {
            return Ok(());
        }
        match store.save_nodes(changed.clone(), gone.clone()).await {
            Ok(saved) => {
                self.saved(&changed, &saved);
                Ok(())
            }
            Err(error) => {
                let mut nodes = self.nodes.lock();
                nodes.gone.extend(gone);
                for change in changed {
                    if let Some(node) = nodes.known.get_mut(&change.row.node_id) {
                        node.dirty = true;
                    }
                }
                Err(error)
            }
        }
    }

    fn unsaved(&self) -> (Vec<NodeChange>, Vec<String>) {
        let mut nodes = self.nodes.lock();
        let gone = mem::take(&mut nodes.gone);
        let changed = nodes.known.values_mut().filter_map(|node| {
            mem::take(&mut node.dirty).then(|| NodeChange {
                row: node.row.clone(),
                connected: node.connection.is_some(),
                since_ms: node.since_ms,
            })
        });
        (changed.collect(), gone)
    }

    fn saved(&self, changed: &[NodeChange], saved: &Saved) {
        let mut nodes = self.nodes.lock();
        for change in changed {
            if let Some(node) = nodes.known.get_mut(&change.row.node_id) {
                node.stored_seen_ms = change.row.last_seen_ms;
            }
        }
        for id in &saved.written {
            if let Some(node) = nodes.known.get_mut(id) {
                node.stored = node.stored.max(saved.version);
            }
        }
    }

    /// Has connected nodes written again that the store has not heard of for long:
    /// others show when they were last seen.
    pub(crate) fn refresh(&self) {
        let before = now_ms().saturating_sub(SEEN.as_millis() as u64);
        for node in self.nodes.lock().known.values_mut() {
            node.dirty |= node.connection.is_some() && node.stored_seen_ms < before;
        }
    }

    /// Writes changes to the store, in batches, until the control plane stops.
    pub(crate) async fn persist(
        self: Arc<Self>,
        store: Arc<dyn Store>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let mut changes = self.subscribe();
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = shutdown.wait_for(|down| *down) => return,
            }
            tokio::time::sleep(GATHER).await;
            self.flush(&*store).await;
        }
    }
}
