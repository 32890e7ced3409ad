//! Who is connected and how each node stands: what `Nodes` and `WatchNodes` show.
//!
//! One row per node and no queues. Rows are written to the store in batches
//! (`sync/node/persist.rs`), so that a restarted control plane knows its nodes and
//! what they have refused; those of other control planes come from there
//! (`sync/node/others.rs`).

use std::{
    collections::{BTreeMap, HashSet, btree_map},
    sync::Arc,
    time::Duration,
};

use fleet_proto::{
    hash::Hash,
    v1::{self, Hello, NodeState, Problem},
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::{clock::now_ms, publish::Snapshot, store::NodeRow};

mod others;
mod persist;
mod sets;

/// Refused root hashes remembered per node: only a target can come up again,
/// and old targets come back by rollback at most.
const REFUSALS: usize = 16;
/// A node that stays away for so long is forgotten.
const FORGET: Duration = Duration::from_hours(24);
/// Offline nodes remembered at most.
const MOST_OFFLINE: usize = 10_000;
/// Problems kept per node and list, and the length of their texts.
const PROBLEMS: usize = 100;
const LONGEST_TEXT: usize = 2048;
const LONGEST_KEY: usize = 253;

/// All nodes that are known.
pub(crate) struct Registry {
    nodes: Mutex<Nodes>,
    /// Counts visible changes.
    version: watch::Sender<u64>,
    /// One write of the nodes at a time: an older row must not replace a newer one.
    saving: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Nodes {
    known: BTreeMap<String, Node>,
    /// Forgotten, and still in the store.
    gone: Vec<String>,
    sessions: u64,
    /// Other control planes that live.
    live: HashSet<String>,
}

struct Node {
    row: NodeRow,
    /// By this boot and version.
    refused: Vec<Hash>,
    connection: Option<Connection>,
    /// This boot serves what it had on disk, and has acked nothing.
    cached: bool,
    /// It is given no newer revision because the one of this root hash was refused.
    pinned: Option<Hash>,
    /// The other control plane that holds its stream.
    owner: Option<String>,
    /// Not yet in the store.
    dirty: bool,
    /// When its last stream was opened; of two, the newer one stays.
    since_ms: u64,
    /// Number of the last write that is known of.
    stored: u64,
    /// When it was last seen, as far as the store knows.
    stored_seen_ms: u64,
}

/// A node that others can reach.
pub(crate) struct PeerNode {
    pub(crate) peer: v1::Peer,
    /// Some control plane holds its stream.
    pub(crate) online: bool,
}

struct Connection {
    session: u64,
    /// Tells the stream that another one has taken its place.
    _replaced: oneshot::Sender<()>,
}

impl Registry {
    /// Nodes as they were left in the store, all offline.
    pub(crate) fn new(rows: Vec<NodeRow>) -> Self {
        let known = rows
            .into_iter()
            .map(|row| (row.node_id.clone(), Node::stored(row)));
        let nodes = Nodes {
            known: known.collect(),
            ..Nodes::default()
        };
        Self {
            nodes: Mutex::new(nodes),
            version: watch::Sender::new(0),
            saving: tokio::sync::Mutex::default(),
        }
    }

    /// Enters a node that has said hello. The receiver ends when another stream
    /// of the same node id takes the place of this one.
    pub(crate) fn connect(
        self: &Arc<Self>,
        hello: &Hello,
        lineage: &str,
    ) -> (Session, oneshot::Receiver<()>) {
        let (sender, replaced) = oneshot::channel();
        let mut nodes = self.nodes.lock();
        nodes.sessions += 1;
        let session = nodes.sessions;
        nodes.forget(now_ms());
        let node = match nodes.known.entry(hello.node_id.clone()) {
            btree_map::Entry::Occupied(entry) => entry.into_mut(),
            btree_map::Entry::Vacant(entry) => entry.insert(Node::stored(NodeRow {
                node_id: hello.node_id.clone(),
                ..NodeRow::default()
            })),
        };
        if node.connection.is_some() {
            tracing::warn!(
                node = hello.node_id,
                boot = hello.boot_id,
                before = node.row.boot_id,
                "a node id is connected twice: the newer stream stays; if these are two data planes, \
                 give each its own id"
            );
        }
        node.connection = Some(Connection {
            session,
            _replaced: sender,
        });
        node.owner = None;
        // Clocks differ: this stream is newer than any that is known of.
        node.since_ms = now_ms().max(node.since_ms + 1);
        node.hello(hello, lineage);
        drop(nodes);
        self.bump();
        let node_id = hello.node_id.clone();
        (
            Session {
                registry: Arc::clone(self),
                node_id,
                session,
            },
            replaced,
        )
    }

    /// Changes whenever [`view`](Self::view) does for reasons of a node.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// How each node stands towards the newest revision.
    pub(crate) fn states(&self, newest: &Snapshot) -> Vec<NodeState> {
        let nodes = self.nodes.lock();
        let known = nodes.known.values();
        known.map(|node| node.state(newest, &nodes.live)).collect()
    }

    /// All nodes by id, and how they stand towards the newest revision.
    pub(crate) fn view(&self, newest: &Snapshot) -> Vec<v1::Node> {
        let nodes = self.nodes.lock();
        let known = nodes.known.values();
        known.map(|node| node.view(newest, &nodes.live)).collect()
    }

    /// The nodes that others can reach, by id.
    pub(crate) fn peers(&self) -> Vec<PeerNode> {
        let nodes = self.nodes.lock();
        let known = nodes.known.values();
        let reachable = known.filter(|node| !node.row.peer_address.is_empty());
        let peer = |node: &Node| PeerNode {
            peer: v1::Peer {
                node_id: node.row.node_id.clone(),
                boot_id: node.row.boot_id.clone(),
                address: node.row.peer_address.clone(),
            },
            online: node.is_online(&nodes.live),
        };
        reachable.map(peer).collect()
    }

    /// Whether another control plane holds the stream of this node.
    pub(crate) fn is_elsewhere(&self, node_id: &str) -> bool {
        let nodes = self.nodes.lock();
        let node = nodes.known.get(node_id);
        node.is_some_and(|node| node.connection.is_none() && node.is_online(&nodes.live))
    }

    fn bump(&self) {
        self.version.send_modify(|version| *version += 1);
    }
}

impl Nodes {
    fn forget(&mut self, now: u64) {
        let before = now.saturating_sub(FORGET.as_millis() as u64);
        let known = self.known.values();
        let offline = known.filter(|node| !node.is_online(&self.live));
        let mut offline: Vec<_> = offline
            .map(|node| (node.row.last_seen_ms, node.row.node_id.clone()))
            .collect();
        offline.sort_unstable();
        let surplus = offline.len().saturating_sub(MOST_OFFLINE);
        for (number, (seen, id)) in offline.into_iter().enumerate() {
            if number < surplus || seen < before {
                self.known.remove(&id);
                self.gone.push(id);
            }
        }
    }
}

impl Node {
    /// As it was left in the store.
    fn stored(row: NodeRow) -> Self {
        Self {
            refused: row.nacked_root.into_iter().collect(),
            connection: None,
            cached: false,
            pinned: None,
            owner: None,
            dirty: false,
            since_ms: 0,
            stored: 0,
            stored_seen_ms: row.last_seen_ms,
            row,
        }
    }

    fn is_online(&self, live: &HashSet<String>) -> bool {
        let elsewhere = self
            .owner
            .as_ref()
            .is_some_and(|owner| live.contains(owner));
        self.connection.is_some() || elsewhere
    }

    fn hello(&mut self, hello: &Hello, lineage: &str) {
        // A later stream of the same boot has reached us before, and says so.
        self.cached = hello.from_disk || (self.cached && self.row.boot_id == hello.boot_id);
        self.pinned = None;
        let row = &mut self.row;
        if row.boot_id != hello.boot_id || row.version != hello.version {
            // Another process or program: what the last one refused, this one may take.
            self.refused.clear();
            row.nacked_revision = 0;
            row.nacked_root = None;
            row.errors.clear();
            row.apply_us = 0;
        }
        row.boot_id.clone_from(&hello.boot_id);
        row.version.clone_from(&hello.version);
        row.labels.clone_from(&hello.labels);
        row.peer_address.clone_from(&hello.peer_address);
        // A revision of another store means nothing here.
        let ours = hello.lineage == lineage;
        row.revision = if ours { hello.revision } else { 0 };
        row.root_hash = Hash::from_wire(&hello.root_hash).filter(|_| ours);
        row.degraded = bounded(hello.degraded.clone());
        row.sets = sets::known(&hello.sets);
        row.set_problems.clear();
        row.last_seen_ms = now_ms();
        self.dirty = true;
    }

    fn view(&self, newest: &Snapshot, live: &HashSet<String>) -> v1::Node {
        let row = &self.row;
        v1::Node {
            node_id: row.node_id.clone(),
            boot_id: row.boot_id.clone(),
            version: row.version.clone(),
            labels: row.labels.clone(),
            state: self.state(newest, live).into(),
            revision: row.revision,
            last_seen_ms: row.last_seen_ms,
            nacked_revision: row.nacked_revision,
            errors: row.errors.clone(),
            degraded: row
                .degraded
                .iter()
                .chain(&row.set_problems)
                .cloned()
                .collect(),
            apply_us: row.apply_us,
            sets: row.sets.clone(),
            certificate_expires_ms: 0,
            peer_address: row.peer_address.clone(),
        }
    }

    fn state(&self, newest: &Snapshot, live: &HashSet<String>) -> NodeState {
        let root = Some(newest.root_hash());
        if !self.is_online(live) {
            NodeState::Offline
        } else if self.row.revision == newest.revision && self.row.root_hash == root {
            NodeState::Synced
        } else if self.refused.iter().any(|refused| Some(*refused) == root) {
            NodeState::Nacked
        } else if self.pinned.is_some() && self.pinned == root {
            NodeState::Pinned
        } else if self.cached {
            NodeState::Cached
        } else {
            NodeState::Pending
        }
    }
}

/// A connected node. Dropping it takes the node offline, unless another stream
/// has taken its place.
pub(crate) struct Session {
    registry: Arc<Registry>,
    node_id: String,
    session: u64,
}

impl Session {
    pub(crate) fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The node has said something.
    pub(crate) fn heard(&self) {
        self.with(|node| node.row.last_seen_ms = now_ms());
    }

    /// Whether this boot of the node has refused a root hash.
    pub(crate) fn has_refused(&self, root: Hash) -> bool {
        self.with(|node| node.refused.contains(&root))
            .unwrap_or(false)
    }

    /// The node serves a revision.
    pub(crate) fn acked(&self, snapshot: &Snapshot, apply_us: u64, degraded: Vec<Problem>) {
        self.with(|node| {
            let row = &mut node.row;
            row.revision = snapshot.revision;
            row.root_hash = Some(snapshot.root_hash());
            row.nacked_revision = 0;
            row.nacked_root = None;
            row.errors.clear();
            row.degraded = bounded(degraded);
            row.apply_us = apply_us.min(i64::MAX as u64);
            node.cached = false;
            node.dirty = true;
        });
        self.registry.bump();
    }

    /// The node stays with an older revision because the one of this root hash was
    /// refused; `None`: it does not.
    pub(crate) fn pin(&self, root: Option<Hash>) {
        let changed = self.with(|node| {
            let changed = node.pinned != root;
            node.pinned = root;
            changed
        });
        if changed == Some(true) {
            self.registry.bump();
        }
    }

    /// The node has refused a revision.
    pub(crate) fn nacked(&self, snapshot: &Snapshot, errors: Vec<Problem>) {
        self.with(|node| {
            let root = snapshot.root_hash();
            node.row.nacked_revision = snapshot.revision;
            node.row.nacked_root = Some(root);
            node.row.errors = bounded(errors);
            if node.refused.len() == REFUSALS {
                node.refused.remove(0);
            }
            node.refused.push(root);
            node.dirty = true;
        });
        self.registry.bump();
    }

    /// The node, while this session is the one that speaks for it.
    fn with<T>(&self, change: impl FnOnce(&mut Node) -> T) -> Option<T> {
        let mut nodes = self.registry.nodes.lock();
        let node = nodes.known.get_mut(&self.node_id)?;
        let current = node
            .connection
            .as_ref()
            .is_some_and(|c| c.session == self.session);
        current.then(|| change(node))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let left = self.with(|node| {
            node.connection = None;
            node.row.last_seen_ms = now_ms();
            node.dirty = true;
        });
        if left.is_some() {
            self.registry.bump();
        }
    }
}

/// A node must not fill the memory of the control plane with its complaints.
fn bounded(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.truncate(PROBLEMS);
    for problem in &mut problems {
        if let Some(key) = &mut problem.key {
            for text in [&mut key.project, &mut key.kind, &mut key.name] {
                text.truncate(text.floor_char_boundary(LONGEST_KEY));
            }
        }
        for text in [&mut problem.path, &mut problem.message] {
            text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        }
    }
    problems
}
