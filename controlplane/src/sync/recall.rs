//! What a restarted control plane must not forget: that its newest revision was
//! refused, and which one nodes serve instead.

use std::sync::Arc;

use crate::{
    change::load,
    publish::{Publisher, Snapshot},
    store::{NodeRow, Store, StoreError},
};

/// Brings the verdicts of the nodes back, so that a node that has nothing gets the
/// newest acked revision also after a restart.
pub(crate) async fn recall(
    publisher: &Publisher,
    store: &dyn Store,
    nodes: &[NodeRow],
) -> Result<(), StoreError> {
    let newest = publisher.newest();
    let root = Some(newest.root_hash());
    let refused = nodes.iter().any(|node| node.nacked_root == root);
    let acked = nodes
        .iter()
        .any(|n| n.revision == newest.revision && n.root_hash == root);
    if !refused || acked {
        return Ok(());
    }
    publisher.refused(newest.revision);
    let served = nodes.iter().filter(|node| node.root_hash.is_some());
    let Some(node) = served.max_by_key(|node| node.revision) else {
        return Ok(());
    };
    let revision = node.revision;
    let rows = store.resources_at(revision).await?;
    match tokio::task::spawn_blocking(move || load(rows)).await {
        Ok(Ok((resources, _))) if Some(resources.root_hash()) == node.root_hash => {
            let lineage = Arc::clone(&newest.lineage);
            publisher.acked(&Arc::new(Snapshot {
                lineage,
                revision,
                resources,
            }));
        }
        // Then the newest one is tried: this is a help, not a promise.
        _ => tracing::warn!(
            revision,
            "the newest acked revision cannot be rebuilt by this version"
        ),
    }
    Ok(())
}
