//! [`Node`]: what all workers of a data plane share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};

use crate::{
    auth::{Principal, revoked::Revoked},
    bridge::held::Held,
    call::WorkerId,
    catalog::{epoch::Epoch, kept::Kept, schedule::Discovery},
    control,
    listen::tls::Tls,
    peer::Peers,
    secrets::Secrets,
    session::Sessions,
    settings::Settings,
    table::{Gateway, RouteTable},
    telemetry::Metrics,
};

/// Backends listened to at the same time: of more, the lists are renewed by their age.
const FEEDS: usize = 1_024;

/// What all workers of a data plane share.
pub struct Node {
    /// What it was told at boot.
    pub settings: Settings,
    /// TLS of what listens.
    pub tls: Option<Arc<Tls>>,
    /// How many workers serve.
    pub workers: usize,
    /// The table in use. A request loads it once and keeps it to its end.
    pub table: ArcSwap<RouteTable>,
    /// The values of Secrets that the next table is made with.
    pub secrets: ArcSwap<Secrets>,
    /// Tokens that are not accepted, whatever the table says.
    pub revoked: ArcSwap<Revoked>,
    /// Grows with every change of any backend's catalogue: rendered lists of an
    /// older epoch are made anew.
    pub epoch: Arc<Epoch>,
    /// Catalogues on disk; `None`: none are kept.
    pub(crate) kept: Option<Kept>,
    /// Sessions of legacy clients.
    pub sessions: Sessions,
    /// The other data planes.
    pub peers: Peers,
    /// Counters.
    pub metrics: Metrics,
    /// Calls that wait for their clients.
    pub(crate) held: Held,
    /// Where control stream, discovery and child processes live.
    pub background: Handle,
    /// Bounds how many backends are listened to for changes of their lists.
    pub(crate) feeds: Arc<Semaphore>,
    /// Who is asked next what it offers.
    pub discoveries: Arc<Discovery>,
    /// Turns true with the first table, and changes with each one more and with who is let in.
    pub configured: watch::Sender<bool>,
    /// How it stands towards its source of configuration.
    pub control: control::Status,
    /// Set on shutdown: not ready, but still serving.
    pub draining: AtomicBool,
    /// The same, for those who wait for it.
    pub drain: watch::Sender<bool>,
    /// When it was made.
    pub started: Instant,
    /// Client connections, by worker.
    pub(crate) loads: Box<[Arc<AtomicUsize>]>,
    serials: AtomicU64,
}

impl Node {
    /// A node that serves nothing yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        tls: Option<Arc<Tls>>,
        workers: usize,
        sessions: Sessions,
        peers: Peers,
        background: Handle,
    ) -> Self {
        Self {
            metrics: Metrics::new(workers),
            table: ArcSwap::from_pointee(RouteTable::default()),
            secrets: ArcSwap::default(),
            revoked: ArcSwap::default(),
            epoch: Arc::default(),
            held: Held::default(),
            feeds: Arc::new(Semaphore::new(FEEDS)),
            discoveries: Arc::default(),
            configured: watch::Sender::new(false),
            control: control::Status::default(),
            draining: AtomicBool::new(false),
            drain: watch::Sender::new(false),
            started: Instant::now(),
            loads: (0..workers).map(|_| Arc::default()).collect(),
            serials: AtomicU64::new(1),
            kept: Kept::of(&settings),
            tls,
            settings,
            workers,
            sessions,
            peers,
            background,
        }
    }

    /// The gateway at a path as it is now, if it is still this one and lets this principal in.
    #[must_use]
    pub(crate) fn still_admitting(
        &self,
        path: &str,
        id: &str,
        principal: &Principal,
    ) -> Option<Arc<Gateway>> {
        let gateway = self.table.load().gateway(path).cloned()?;
        let revoked = self.revoked.load();
        let is_let_in =
            gateway.id == id && (gateway.auth).still_admits(principal, gateway.project(), &revoked);
        is_let_in.then_some(gateway)
    }

    /// The shard of tasks on the background runtime.
    #[must_use]
    pub const fn background_worker(&self) -> WorkerId {
        WorkerId(self.workers)
    }

    /// A number that no other backend of this process has.
    #[must_use]
    pub fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins to leave: not ready, but still serving.
    pub fn leave(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.drain.send_replace(true);
    }

    /// Whether it serves a configuration and is not about to stop.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.table.load().is_configured() && !self.draining.load(Ordering::Relaxed)
    }

    /// Client connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        let loads = self.loads.iter();
        loads.map(|load| load.load(Ordering::Relaxed)).sum()
    }

    /// Whether MCP clients can only come from this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.settings.listen.ip().is_loopback()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.discoveries.close();
    }
}
