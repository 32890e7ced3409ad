//! What data planes report: their last status, and their log while somebody follows it.
//!
//! Beside the config way. Each node has one stream (`reports/stream.rs`); what it says is
//! kept here in memory, and goes to whoever follows. Nothing of it is stored.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
    time::Duration,
};

use fleet_proto::v1::{LogLine, LogLines, NodeStatus};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::now_ms;

pub(crate) mod stream;

/// Backends of one status, and the longest text of an error.
const BACKENDS: usize = 10_000;
const LONGEST: usize = 512;
/// Bytes of all statuses. One for which there is no room is kept without its backends.
const BYTES: usize = 128 << 20;
/// Nodes that are remembered without a stream, and for how long.
const MOST_GONE: usize = 10_000;
const FORGET: Duration = Duration::from_hours(24);
/// Batches of lines that wait for one who follows.
const BATCHES: usize = 64;

/// How much of a log: each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl Level {
    const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// As the contract writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

/// The reports of all nodes.
#[derive(Default)]
pub(crate) struct Reports {
    nodes: Mutex<Nodes>,
}

#[derive(Default)]
struct Nodes {
    known: BTreeMap<String, Node>,
    /// Streams and followers so far.
    count: u64,
    /// Of all statuses.
    bytes: usize,
}

struct Node {
    status: Option<Reported>,
    stream: Option<Connected>,
    seen_ms: u64,
}

/// A status and when it came.
#[derive(Clone)]
pub(crate) struct Reported {
    pub(crate) status: Arc<NodeStatus>,
    pub(crate) at_ms: u64,
    bytes: usize,
}

struct Connected {
    stream: u64,
    followers: Vec<Follower>,
    /// The most that any of them wants.
    wanted: watch::Sender<Option<Level>>,
    /// Tells the stream that another one has taken its place.
    _replaced: oneshot::Sender<()>,
}

struct Follower {
    number: u64,
    level: Level,
    lines: mpsc::Sender<LogLines>,
    /// Left out since the last batch.
    dropped: u64,
}

impl Connected {
    /// The node is asked for what its followers want.
    fn ask(&self) {
        let wanted = self.followers.iter().map(|f| f.level).max();
        self.wanted.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }
}

impl Reports {
    /// The last status of a node, and whether its stream is here.
    pub(crate) fn status(&self, node_id: &str) -> (Option<Reported>, bool) {
        let nodes = self.nodes.lock();
        let node = nodes.known.get(node_id);
        let is_here = node.is_some_and(|node| node.stream.is_some());
        (node.and_then(|node| node.status.clone()), is_here)
    }

    /// Follows a node's log; `None`: its stream is not here.
    pub(crate) fn follow(self: &Arc<Self>, node_id: &str, level: Level) -> Option<Following> {
        let mut nodes = self.nodes.lock();
        nodes.count += 1;
        let number = nodes.count;
        let node = nodes.known.get_mut(node_id)?;
        let connected = node.stream.as_mut()?;
        let (sender, lines) = mpsc::channel(BATCHES);
        connected.followers.push(Follower {
            number,
            level,
            lines: sender,
            dropped: 0,
        });
        connected.ask();
        Some(Following {
            reports: Arc::clone(self),
            node_id: node_id.to_owned(),
            number,
            lines,
        })
    }

    /// Enters the stream of a node. The receivers say which level of its log is wanted,
    /// and when another stream has taken its place.
    fn connect(
        self: &Arc<Self>,
        node_id: &str,
    ) -> (
        Session,
        watch::Receiver<Option<Level>>,
        oneshot::Receiver<()>,
    ) {
        let (wanted, wants) = watch::channel(None);
        let (replace, replaced) = oneshot::channel();
        let mut nodes = self.nodes.lock();
        nodes.forget(now_ms());
        nodes.count += 1;
        let stream = nodes.count;
        let node = match nodes.known.entry(node_id.to_owned()) {
            btree_map::Entry::Occupied(entry) => entry.into_mut(),
            btree_map::Entry::Vacant(entry) => entry.insert(Node {
                status: None,
                stream: None,
                seen_ms: 0,
            }),
        };
        node.seen_ms = now_ms();
        // Whoever followed the stream before is told that it has ended.
        node.stream = Some(Connected {
            stream,
            followers: Vec::new(),
            wanted,
            _replaced: replace,
        });
        drop(nodes);
        let session = Session {
            reports: Arc::clone(self),
            node_id: node_id.to_owned(),
            stream,
        };
        (session, wants, replaced)
    }
}

impl Nodes {
    fn forget(&mut self, now: u64) {
        let before = now.saturating_sub(FORGET.as_millis() as u64);
        let gone = self.known.iter().filter(|(_, node)| node.stream.is_none());
        let mut gone: Vec<_> = gone.map(|(id, node)| (node.seen_ms, id.clone())).collect();
        gone.sort_unstable();
        let surplus = gone.len().saturating_sub(MOST_GONE);
        for (number, (seen, id)) in gone.into_iter().enumerate() {
            if (number < surplus || seen < before)
                && let Some(node) = self.known.remove(&id)
            {
                self.bytes -= node.status.map_or(0, |status| status.bytes);
            }
        }
    }
}

/// The stream of a node. Dropping it ends what follows its log, unless another stream has
/// taken its place; the last status stays.
struct Session {
    reports: Arc<Reports>,
    node_id: String,
    stream: u64,
}

impl Session {
    /// The node has said how it does.
    fn status(&self, status: NodeStatus) {
        let mut status = bounded(status);
        let mut nodes = self.reports.nodes.lock();
        let Nodes { known, bytes, .. } = &mut *nodes;
        let Some(node) = known.get_mut(&self.node_id) else {
            return;
        };
        if node.stream.as_ref().map(|s| s.stream) != Some(self.stream) {
            return;
        }
        *bytes -= node.status.take().map_or(0, |before| before.bytes);
        let mut size = status.encoded_len();
        if *bytes + size > BYTES {
            tracing::warn!(
                node = self.node_id,
                "too many backends on too many nodes: the status of this one is kept without them"
            );
            status.backends = Vec::new();
            size = status.encoded_len();
        }
        *bytes += size;
        node.seen_ms = now_ms();
        node.status = Some(Reported {
            status: Arc::new(status),
            at_ms: node.seen_ms,
            bytes: size,
        });
    }

    /// Lines of its log: each follower gets its own. A slow one loses some.
    fn log(&self, lines: &LogLines) {
        self.with(|connected| {
            connected.followers.retain_mut(|follower| {
                let wanted = |line: &&LogLine| {
                    Level::parse(&line.level).is_some_and(|level| level <= follower.level)
                };
                let own: Vec<_> = lines.lines.iter().filter(wanted).cloned().collect();
                let count = own.len() as u64;
                let dropped = follower.dropped + lines.dropped;
                if own.is_empty() && dropped == 0 {
                    return true;
                }
                let batch = LogLines {
                    lines: own,
                    dropped,
                };
                follower.dropped = match follower.lines.try_send(batch) {
                    Ok(()) => 0,
                    Err(mpsc::error::TrySendError::Full(_)) => dropped + count,
                    Err(mpsc::error::TrySendError::Closed(_)) => return false,
                };
                true
            });
        });
    }

    /// The stream, while it is the one that speaks for its node.
    fn with(&self, change: impl FnOnce(&mut Connected)) {
        let mut nodes = self.reports.nodes.lock();
        let node = nodes.known.get_mut(&self.node_id);
        let connected = node.and_then(|node| node.stream.as_mut());
        if let Some(connected) = connected.filter(|c| c.stream == self.stream) {
            change(connected);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut nodes = self.reports.nodes.lock();
        if let Some(node) = nodes.known.get_mut(&self.node_id)
            && node.stream.as_ref().map(|s| s.stream) == Some(self.stream)
        {
            node.stream = None;
            node.seen_ms = now_ms();
        }
    }
}

/// Somebody who follows a node's log. Dropped, they do so no longer.
pub(crate) struct Following {
    reports: Arc<Reports>,
    node_id: String,
    number: u64,
    lines: mpsc::Receiver<LogLines>,
}

impl Following {
    /// The next lines; `None`: the node's stream has ended.
    pub(crate) async fn next(&mut self) -> Option<LogLines> {
        self.lines.recv().await
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut nodes = self.reports.nodes.lock();
        let node = nodes.known.get_mut(&self.node_id);
        if let Some(connected) = node.and_then(|node| node.stream.as_mut()) {
            connected.followers.retain(|f| f.number != self.number);
            connected.ask();
        }
    }
}

/// A node must not fill the memory of the control plane.
fn bounded(mut status: NodeStatus) -> NodeStatus {
    status.backends.truncate(BACKENDS);
    for backend in &mut status.backends {
        for text in [&mut backend.project, &mut backend.name, &mut backend.error] {
            text.truncate(text.floor_char_boundary(LONGEST));
        }
    }
    status
}
