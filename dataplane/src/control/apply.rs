//! A received set becomes the table in use: compiled aside, swapped once.

use std::sync::Arc;

use fleet_proto::validate::{Problem, Valid};

use crate::{
    node::Node,
    table::compile::{Version, compile},
};

/// Swaps in the table for this set. Returns what does not work on this node.
pub fn apply(node: &Arc<Node>, version: Version, set: &Valid) -> Vec<Problem> {
    let before = node.table.load_full();
    let table = Arc::new(compile(node, version, set, &before));
    let degraded = table.degraded.clone();
    node.table.store(table.clone());
    node.metrics.keep(|key| table.backend(key).is_some());
    node.configured.send_replace(true);
    tracing::info!(
        revision = table.revision,
        backends = table.backends().count(),
        gateways = table.gateways().count(),
        degraded = degraded.len(),
        "serving"
    );
    close_removed(node, &before, &table);
    degraded
}

/// Backends that are in the new table no more end their upstream sessions and
/// processes once the last call that uses them is over.
fn close_removed(
    node: &Arc<Node>,
    before: &crate::table::RouteTable,
    after: &crate::table::RouteTable,
) {
    for (key, backend) in before.backends() {
        let kept = after.backend(key).is_some_and(|b| Arc::ptr_eq(b, backend));
        if kept {
            continue;
        }
        let (backend, worker) = (backend.clone(), node.background_worker());
        node.background
            .spawn(async move { backend.retire(worker).await });
    }
}
