//! Numbers of the API, in the Prometheus text format.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use fleet_proto::v1::NodeState;

use super::{Api, ApiError};
use crate::change::Outcome;

/// How writes have ended.
const OUTCOMES: [&str; 6] = [
    "changed",
    "unchanged",
    "refused",
    "denied",
    "conflict",
    "failed",
];

/// States of nodes, as they are counted.
const STATES: [(NodeState, &str); 6] = [
    (NodeState::Synced, "synced"),
    (NodeState::Pending, "pending"),
    (NodeState::Nacked, "nacked"),
    (NodeState::Offline, "offline"),
    (NodeState::Cached, "cached"),
    (NodeState::Pinned, "pinned"),
];

/// Counts writes by how they ended. Dry runs are none.
#[derive(Debug, Default)]
pub(crate) struct Writes([AtomicU64; OUTCOMES.len()]);

impl Writes {
    pub(super) fn count(&self, result: &Result<Outcome, ApiError>) {
        let outcome = match result {
            Ok(outcome) if outcome.changed || outcome.secrets_version > 0 => 0,
            Ok(_) => 1,
            Err(ApiError::Denied(_)) => 3,
            Err(ApiError::Conflict(_)) => 4,
            Err(ApiError::Unavailable(_) | ApiError::Internal(_)) => 5,
            Err(_) => 2,
        };
        self.0[outcome].fetch_add(1, Ordering::Relaxed);
    }
}

impl Api {
    /// The answer to `/metrics`.
    pub(super) fn metrics(&self) -> String {
        let newest = self.newest();
        let nodes = self.nodes.states(&newest);
        let mut text = String::new();
        head(&mut text, "revision", "gauge", "The newest revision.");
        let _ = writeln!(text, "mcp_fleet_revision {}", newest.revision);
        head(
            &mut text,
            "resources",
            "gauge",
            "Resources of the newest revision.",
        );
        let _ = writeln!(text, "mcp_fleet_resources {}", newest.resources.len());
        head(&mut text, "nodes", "gauge", "Data planes by state.");
        for (state, name) in STATES {
            let count = nodes.iter().filter(|node| **node == state).count();
            let _ = writeln!(text, "mcp_fleet_nodes{{state=\"{name}\"}} {count}");
        }
        head(
            &mut text,
            "writes_total",
            "counter",
            "Writes by how they ended.",
        );
        for (count, outcome) in self.writes.0.iter().zip(OUTCOMES) {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(
                text,
                "mcp_fleet_writes_total{{outcome=\"{outcome}\"}} {count}"
            );
        }
        text
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(
        text,
        "# HELP mcp_fleet_{name} {help}\n# TYPE mcp_fleet_{name} {kind}"
    );
}
