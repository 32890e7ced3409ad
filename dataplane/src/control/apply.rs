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
    node.epoch.turn();
    node.metrics.keep(|key| table.backend(key).is_some());
    node.configured.send_replace(true);
    tracing::info!(
        revision = table.revision,
        backends = table.backends().count(),
        gateways = table.gateways().count(),
        degraded = degraded.len(),
        "serving"
    );
    // Backends that are in it no more are closed once their last call is over.
    drop(before);
    degraded
}
