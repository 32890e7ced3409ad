//! Counters, sharded per worker, and their Prometheus text (version 0.0.4).

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crossbeam_utils::CachePadded;
use fleet_proto::key::Key;
use parking_lot::Mutex;

use crate::{
    call::{Reply, WorkerId},
    catalog::State,
    error::CallError,
    node::Node,
};

/// Upper bounds of the latency histogram, in microseconds.
const BOUNDS: [u64; 12] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
    30_000_000,
];
/// Names of outcomes, in the order of [`Shard::outcomes`].
const OUTCOMES: [&str; 7] = [
    "ok",
    "backend_error",
    "unavailable",
    "timeout",
    "bad_answer",
    "gone",
    "refused",
];

/// All counters of a node.
pub struct Metrics {
    workers: usize,
    backends: Mutex<BTreeMap<Arc<Key>, Arc<BackendMetrics>>>,
    /// Of backends that are in no table any more.
    gone: Mutex<Calls>,
}

/// Tool calls, and how many of them the data plane itself has answered with an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// All of them.
    pub all: u64,
    /// Those that no backend has answered.
    pub failed: u64,
}

impl Calls {
    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.failed += other.failed;
    }
}

/// Counters of one backend's tool calls. Made with the first call: most of ten thousand backends
/// get none.
pub struct BackendMetrics {
    workers: usize,
    shards: OnceLock<Box<[CachePadded<Shard>]>>,
}

#[derive(Default)]
struct Shard {
    outcomes: [AtomicU64; OUTCOMES.len()],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Metrics {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            backends: Mutex::default(),
            gone: Mutex::default(),
        }
    }

    /// The counters of a backend: a changed one goes on with those of its predecessor.
    #[must_use]
    pub fn backend(&self, key: &Arc<Key>) -> Arc<BackendMetrics> {
        let mut backends = self.backends.lock();
        let made = || Arc::new(BackendMetrics::new(self.workers));
        backends.entry(key.clone()).or_insert_with(made).clone()
    }

    /// Forgets backends that are in no table any more.
    pub fn keep(&self, kept: impl Fn(&Key) -> bool) {
        let mut backends = self.backends.lock();
        backends.retain(|key, backend| {
            let kept = kept(key);
            if !kept {
                self.gone.lock().add(backend.calls());
            }
            kept
        });
    }

    /// Tool calls since the start.
    #[must_use]
    pub fn calls(&self) -> Calls {
        let backends = self.backends.lock();
        let mut sum = *self.gone.lock();
        backends.values().for_each(|one| sum.add(one.calls()));
        sum
    }
}

impl BackendMetrics {
    const fn new(workers: usize) -> Self {
        Self {
            workers,
            shards: OnceLock::new(),
        }
    }

    fn shards(&self) -> &[CachePadded<Shard>] {
        let made = || (0..=self.workers).map(|_| CachePadded::default()).collect();
        self.shards.get_or_init(made)
    }

    /// Counts a call.
    pub fn record(&self, worker: WorkerId, took: Duration, answer: &Result<Reply, CallError>) {
        let outcome = match answer {
            Ok(Reply::Whole(answer)) if answer.error.is_some() => "backend_error",
            Ok(_) => "ok",
            Err(error) => error.kind(),
        };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let shard = &self.shards()[worker.0.min(self.workers)];
        let place = OUTCOMES.iter().position(|o| *o == outcome).unwrap_or(0);
        shard.outcomes[place].fetch_add(1, Relaxed);
        shard.buckets[BOUNDS.partition_point(|bound| *bound < micros)].fetch_add(1, Relaxed);
        shard.micros.fetch_add(micros, Relaxed);
    }

    fn calls(&self) -> Calls {
        let mut calls = Calls::default();
        for (place, outcome) in OUTCOMES.iter().enumerate() {
            let count = self.sum(|shard| &shard.outcomes[place]);
            calls.all += count;
            if !["ok", "backend_error"].contains(outcome) {
                calls.failed += count;
            }
        }
        calls
    }

    fn sum(&self, of: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        let shards = self.shards.get().into_iter().flatten();
        shards.map(|shard| of(shard).load(Relaxed)).sum()
    }

    fn write(&self, key: &Key, calls: &mut String, times: &mut String) {
        let labels = format!("project=\"{}\",backend=\"{}\"", key.project, key.name);
        for (place, outcome) in OUTCOMES.iter().enumerate() {
            let count = self.sum(|s| &s.outcomes[place]);
            let _ = writeln!(
                calls,
                "mcp_fleet_tool_calls_total{{{labels},outcome=\"{outcome}\"}} {count}"
            );
        }
        let mut below = 0;
        for (place, bound) in BOUNDS.iter().enumerate() {
            below += self.sum(|s| &s.buckets[place]);
            let seconds = *bound as f64 / 1e6;
            let _ = writeln!(
                times,
                "mcp_fleet_tool_call_seconds_bucket{{{labels},le=\"{seconds}\"}} {below}"
            );
        }
        below += self.sum(|s| &s.buckets[BOUNDS.len()]);
        let seconds = self.sum(|s| &s.micros) as f64 / 1e6;
        let _ = writeln!(
            times,
            "mcp_fleet_tool_call_seconds_bucket{{{labels},le=\"+Inf\"}} {below}"
        );
        let _ = writeln!(
            times,
            "mcp_fleet_tool_call_seconds_sum{{{labels}}} {seconds}"
        );
        let _ = writeln!(
            times,
            "mcp_fleet_tool_call_seconds_count{{{labels}}} {below}"
        );
    }
}

/// The text of `/metrics`.
#[must_use]
pub fn render(node: &Node) -> String {
    let table = node.table.load();
    let (mut calls, mut times, mut states) = (String::new(), String::new(), String::new());
    for (key, backend) in table.backends() {
        backend.metrics.write(key, &mut calls, &mut times);
        let fresh = u8::from(backend.catalog.snapshot().state == State::Fresh);
        let _ = writeln!(
            states,
            "mcp_fleet_backend_fresh{{project=\"{}\",backend=\"{}\"}} {fresh}",
            key.project, key.name
        );
    }
    // Nothing is shown where nothing is to be kept.
    let saved = node.control.is_saved().map(|saved| {
        let name = "mcp_fleet_last_good_saved";
        (
            name,
            "gauge",
            "1 when what is served is on disk.",
            gauge(name, saved.into()),
        )
    });
    let (known, reached) = node.peers.counts();
    let peers = [("yes", reached), ("no", known - reached)];
    let peers = peers.map(|(is, count)| format!("mcp_fleet_peers{{reached=\"{is}\"}} {count}\n"));
    let peers = peers.concat();
    let mut out = String::new();
    for (name, kind, help, lines) in [
        (
            "mcp_fleet_tool_calls_total",
            "counter",
            "Tool calls by backend and outcome.",
            calls,
        ),
        (
            "mcp_fleet_tool_call_seconds",
            "histogram",
            "Time to a tool call's answer, or to the first message of its stream.",
            times,
        ),
        (
            "mcp_fleet_backend_fresh",
            "gauge",
            "1 when the backend's lists are up to date.",
            states,
        ),
        (
            "mcp_fleet_sessions",
            "gauge",
            "Sessions of legacy clients with state on this node.",
            gauge("mcp_fleet_sessions", node.sessions.len() as u64),
        ),
        (
            "mcp_fleet_peers",
            "gauge",
            "Other data planes of the fleet, by whether they can be reached.",
            peers,
        ),
        (
            "mcp_fleet_relayed_total",
            "counter",
            "Requests of sessions that live on other data planes, sent on to them.",
            gauge("mcp_fleet_relayed_total", node.peers.relayed()),
        ),
        (
            "mcp_fleet_revision",
            "gauge",
            "Revision being served.",
            gauge("mcp_fleet_revision", table.revision),
        ),
        (
            "mcp_fleet_ready",
            "gauge",
            "1 when this node takes traffic.",
            gauge("mcp_fleet_ready", node.is_ready().into()),
        ),
        (
            "mcp_fleet_from_disk",
            "gauge",
            "1 while what was kept on disk is served and no control plane has been reached.",
            gauge("mcp_fleet_from_disk", node.control.is_from_disk().into()),
        ),
    ]
    .into_iter()
    .chain(saved)
    {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
    }
    out
}

fn gauge(name: &str, value: u64) -> String {
    format!("{name} {value}\n")
}
