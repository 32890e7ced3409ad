//! A received set becomes the table in use: compiled aside, swapped once.

use std::{collections::HashMap, sync::Arc};

use fleet_proto::validate::{Problem, Valid};

use crate::{
    node::Node,
    table::{
        Gateway, RouteTable,
        compile::{Version, compile},
    },
};

/// Swaps in the table for this set. Returns what does not work on this node.
pub fn apply(node: &Arc<Node>, version: Version, set: &Valid) -> Vec<Problem> {
    let before = node.table.load_full();
    let table = Arc::new(compile(node, version, set, &before));
    let degraded = table.degraded.clone();
    node.table.store(table.clone());
    node.epoch.turn();
    regroup(node, &before, &table);
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

/// Tells the sessions of gateways that have other backends now.
fn regroup(node: &Node, before: &RouteTable, now: &RouteTable) {
    if node.sessions.is_empty() {
        return;
    }
    let (before, now) = (by_id(before), by_id(now));
    let all = before.keys().chain(now.keys());
    let all = all.map(|id| (before.get(id), now.get(id).copied(), *id));
    let changed = all
        .filter(|(before, now, _)| before.map(|own| &own.serials) != now.map(|own| &own.serials));
    let changed: HashMap<_, _> = changed.map(|(_, now, id)| (id, now)).collect();
    if !changed.is_empty() {
        node.sessions.regroup(&changed);
    }
}

fn by_id(table: &RouteTable) -> HashMap<&str, &Gateway> {
    let gateways = table.gateways();
    gateways.map(|own| (&*own.id, &**own)).collect()
}
