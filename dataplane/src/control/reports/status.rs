//! How the node does, as it is reported.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use fleet_proto::{
    hash::Hash,
    v1::{BackendStatus, CatalogueState, NodeStatus},
};

use crate::{backend::Backend, catalog::State, node::Node};

/// A status is sent at least this often.
const EVERY: Duration = Duration::from_secs(10);
/// Backends in one status.
const BACKENDS: usize = 10_000;
/// Longest error, in bytes: there may be as many as backends.
const LONGEST: usize = 256;

/// What was reported last.
#[derive(Default)]
pub(super) struct Watch {
    last: Option<Last>,
}

struct Last {
    at: Instant,
    /// Changes with the catalogues and with the table.
    seen: (u64, Option<Hash>),
}

impl Watch {
    /// The status, where backends have changed or the last one is old.
    pub(super) fn look(&mut self, node: &Node) -> Option<NodeStatus> {
        let table = node.table.load();
        let seen = (node.epoch.load(Ordering::Acquire), table.root_hash);
        let known = self.last.as_ref();
        if known.is_some_and(|last| last.seen == seen && last.at.elapsed() < EVERY) {
            return None;
        }
        let at = Instant::now();
        self.last = Some(Last { at, seen });
        let calls = node.metrics.calls();
        let backends = table.backends().take(BACKENDS);
        Some(NodeStatus {
            uptime_seconds: node.started.elapsed().as_secs(),
            connections: u32::try_from(node.connections()).unwrap_or(u32::MAX),
            calls: calls.all,
            errors: calls.failed,
            memory_bytes: memory(),
            backends: backends.map(|(_, backend)| status(backend)).collect(),
        })
    }
}

fn status(backend: &Backend) -> BackendStatus {
    let now = backend.catalog.snapshot();
    let state = match now.state {
        State::Unknown => CatalogueState::Unspecified,
        State::Fresh => CatalogueState::Fresh,
        State::Stale => CatalogueState::Stale,
        State::Failed => CatalogueState::Failed,
    };
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let mut error = now.error.clone().unwrap_or_default();
    error.truncate(error.floor_char_boundary(LONGEST));
    BackendStatus {
        project: backend.key.project.clone(),
        name: backend.key.name.clone(),
        state: state.into(),
        tools: count(now.lists.tools.len()),
        resources: count(now.lists.resources.len() + now.lists.templates.len()),
        prompts: count(now.lists.prompts.len()),
        error,
    }
}

/// Resident memory (proc(5), `VmRSS`); 0: the system does not say.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
