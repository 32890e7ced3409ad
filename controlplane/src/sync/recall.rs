//! What a control plane must not forget when it is restarted, and learns from
//! others: that its newest revision was refused, and which one nodes serve instead.

use std::sync::Arc;

use fleet_proto::hash::Hash;

use crate::{
    change::load,
    publish::{Publisher, Snapshot},
    store::{NodeRow, Store, StoreError},
};

/// What a node has acked and refused.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    version: String,
    revision: u64,
    root_hash: Option<Hash>,
    nacked_root: Option<Hash>,
}

impl Verdict {
    pub(crate) fn of(row: &NodeRow) -> Self {
        Self {
            version: row.version.clone(),
            revision: row.revision,
            root_hash: row.root_hash,
            nacked_root: row.nacked_root,
        }
    }
}

/// Brings the verdicts of the nodes back, so that a node that has nothing gets the
/// newest acked revision also after a restart, and wherever it connects.
pub(crate) async fn recall(
    publisher: &Publisher,
    store: &dyn Store,
    verdicts: &[Verdict],
) -> Result<(), StoreError> {
    let newest = publisher.newest();
    let root = Some(newest.root_hash());
    let mut all = verdicts.iter();
    if all.any(|node| node.revision == newest.revision && node.root_hash == root) {
        publisher.acked(&newest);
        return Ok(());
    }
    let mut refusals = verdicts.iter().filter(|node| node.nacked_root == root);
    let Some(first) = refusals.next() else {
        return Ok(());
    };
    for node in std::iter::once(first).chain(refusals) {
        publisher.refused(newest.revision, &node.version);
    }
    let served = verdicts
        .iter()
        .filter(|node| node.root_hash.is_some() && node.revision < newest.revision);
    let Some(node) = served.max_by_key(|node| node.revision) else {
        return Ok(());
    };
    let revision = node.revision;
    if publisher.acked_revision() >= Some(revision) {
        return Ok(());
    }
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
