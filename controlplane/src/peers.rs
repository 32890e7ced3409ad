//! The data planes that live, for each other: who they are and where their peer
//! listeners are.
//!
//! On the config way beside `sets`: [`Peers`] works the set out of what the registry
//! knows (`sync/node.rs`), nodes of other control planes included, and the streams look
//! here (`sync/sets.rs`). It is in no database: its tag is a hash of what is in it, so
//! that control planes that see the same nodes send the same set.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fleet_proto::{
    sets::Entries,
    v1::{Peer, SetKind, SetPart, SetVersion},
};
use parking_lot::Mutex;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    identity::Identities,
    sync::node::{PeerNode, Registry},
};

/// A node whose stream has ended stays in the set for so long: it may live, and be back
/// after a restart of its control plane (nodes come back within 15 s). Whether it does
/// is found out by its peers themselves, and sooner.
const GRACE: Duration = Duration::from_secs(30);
/// Between two looks at what no change tells.
const LOOK: Duration = Duration::from_secs(1);
/// Changes within this time make one set, and for each node in it a little longer: every
/// node gets every set.
const GATHER: Duration = Duration::from_millis(100);
const GATHER_EACH: Duration = Duration::from_millis(2);

/// The set, as it is sent.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) version: SetVersion,
    pub(crate) parts: Arc<[SetPart]>,
    count: usize,
}

/// Keeps the set.
pub(crate) struct Peers {
    nodes: Arc<Registry>,
    identities: Arc<Identities>,
    seen: Mutex<Seen>,
    shown: watch::Sender<Arc<Shown>>,
}

impl Peers {
    /// The set of the nodes that are known now. Those of the store count as if they had
    /// just been heard of: their streams may have ended with the last control plane only.
    pub(crate) fn new(nodes: Arc<Registry>, identities: Arc<Identities>) -> Self {
        let peers = Self {
            nodes,
            identities,
            seen: Mutex::new(Seen::new(Instant::now())),
            shown: watch::Sender::new(Arc::new(Shown::of(Vec::new()))),
        };
        peers.look();
        peers
    }

    /// The set, now and at every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Shown>> {
        self.shown.subscribe()
    }

    /// Follows the nodes until the control plane stops.
    pub(crate) async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut changes = self.nodes.subscribe();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = looks.tick() => {}
                _ = shutdown.wait_for(|down| *down) => return,
            }
            self.look();
            let nodes = u32::try_from(self.shown.borrow().count).unwrap_or(u32::MAX);
            sleep(GATHER + GATHER_EACH.saturating_mul(nodes)).await;
        }
    }

    /// Works the set out anew.
    fn look(&self) {
        let nodes = self.nodes.peers().into_iter();
        // One that has been revoked is out at once.
        let good = nodes.filter(|node| {
            let expires_ms = self.identities.expires_ms(&node.peer.node_id);
            expires_ms.is_some_and(|at| at > crate::clock::now_ms())
        });
        let live = self.seen.lock().live(good.collect(), Instant::now());
        let new = Shown::of(live);
        self.shown.send_if_modified(|shown| {
            let differs = shown.version != new.version;
            if differs {
                *shown = Arc::new(new);
            }
            differs
        });
    }
}

impl Shown {
    fn of(peers: Vec<Peer>) -> Self {
        let mut digest = Sha256::new();
        for peer in &peers {
            digest.update(peer.encode_length_delimited_to_vec());
        }
        let version = SetVersion {
            set: SetKind::Peers.into(),
            version: 1,
            tag: digest.finalize()[..16].to_vec(),
        };
        Self {
            count: peers.len(),
            parts: Entries::Peers(peers).parts(&version).into(),
            version,
        }
    }
}

/// A set that never changes, of no nodes.
#[cfg(test)]
pub(crate) fn nobody() -> watch::Receiver<Arc<Shown>> {
    watch::Sender::new(Arc::new(Shown::of(Vec::new()))).subscribe()
}

/// When nodes were last known to be connected.
struct Seen {
    began: Instant,
    last: HashMap<String, Instant>,
}

impl Seen {
    fn new(began: Instant) -> Self {
        Self {
            began,
            last: HashMap::new(),
        }
    }

    /// Those of these nodes, which are in order, that are connected or were a moment ago.
    fn live(&mut self, nodes: Vec<PeerNode>, now: Instant) -> Vec<Peer> {
        let mut last = HashMap::with_capacity(nodes.len());
        let mut live = Vec::with_capacity(nodes.len());
        for PeerNode { peer, online } in nodes {
            let before = self.last.get(&peer.node_id).copied().unwrap_or(self.began);
            let heard = if online { now } else { before };
            last.insert(peer.node_id.clone(), heard);
            if now.saturating_duration_since(heard) < GRACE {
                live.push(peer);
            }
        }
        self.last = last;
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, boot: &str, online: bool) -> PeerNode {
        PeerNode {
            peer: Peer {
                node_id: id.to_owned(),
                boot_id: boot.to_owned(),
                address: format!("{id}:8183"),
            },
            online,
        }
    }

    fn ids(peers: &[Peer]) -> Vec<&str> {
        peers.iter().map(|peer| peer.boot_id.as_str()).collect()
    }

    #[test]
    fn a_node_that_left_stays_a_peer_for_its_way_back_and_no_longer() {
        let start = Instant::now();
        let mut seen = Seen::new(start);
        let later = start + Duration::from_hours(1);
        let live = seen.live(vec![node("a", "1", true), node("b", "1", true)], later);
        assert_eq!(ids(&live), ["1", "1"]);
        let moment = later + Duration::from_secs(20);
        let live = seen.live(vec![node("a", "1", false), node("b", "2", true)], moment);
        assert_eq!(ids(&live), ["1", "2"], "another boot takes its place");
        let over = later + GRACE;
        let live = seen.live(vec![node("a", "1", false), node("b", "2", false)], over);
        assert_eq!(ids(&live), ["2"]);
    }

    #[test]
    fn after_a_start_the_nodes_of_the_store_have_the_time_to_come_back() {
        let start = Instant::now();
        let mut seen = Seen::new(start);
        let stored = || vec![node("a", "1", false)];
        assert_eq!(seen.live(stored(), start + GRACE / 2).len(), 1);
        assert_eq!(seen.live(stored(), start + GRACE).len(), 0);
    }

    #[test]
    fn the_same_nodes_make_the_same_set_at_every_control_plane() {
        let set = |boot| Shown::of(vec![node("a", boot, true).peer]);
        assert_eq!(set("1").version, set("1").version);
        assert_ne!(set("1").version, set("2").version);
        assert_eq!(set("1").parts[0].peers.len(), 1);
        assert!(set("1").parts[0].last);
    }
}
