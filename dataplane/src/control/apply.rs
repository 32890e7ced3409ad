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
    let by_id = |table: &'_ RouteTable| -> HashMap<String, Arc<Gateway>> {
        let gateways = table.gateways().cloned();
        gateways.map(|own| (own.id.clone(), own)).collect()
    };
    let (before, now) = (by_id(before), by_id(now));
    let all = before.keys().chain(now.keys());
    let all = all.map(|id| (&**id, (before.get(id), now.get(id))));
    // Both are in the order of their names.
    let changed = all.filter(|(_, (before, now))| !serials(*before).eq(serials(*now)));
    let changed: HashMap<_, _> = changed.collect();
    if !changed.is_empty() {
        let serials = |(_, now): &(_, Option<&Arc<Gateway>>)| serials(*now).collect();
        node.sessions.regroup(&changed, serials);
    }
}

fn serials(gateway: Option<&Arc<Gateway>>) -> impl Iterator<Item = u64> {
    let backends = gateway.into_iter().flat_map(|own| &own.backends);
    backends.map(|own| own.serial)
}
