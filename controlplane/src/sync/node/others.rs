//! Nodes whose streams other control planes hold.
//!
//! A node belongs to the control plane that it connected to last. Each writes only
//! its own; what others have written is taken over from the store.

use std::{collections::HashSet, mem};

use super::{Node, Nodes, Registry};
use crate::{store::shared::SeenNode, sync::recall::Verdict};

impl Registry {
    /// Takes over what others have written, and which of them live.
    pub(crate) fn merge(&self, me: &str, seen: Vec<SeenNode>, live: HashSet<String>) {
        let mut nodes = self.nodes.lock();
        let mut visible = nodes.live != live;
        nodes.live = live;
        for seen in seen {
            visible |= nodes.merge(me, seen);
        }
        drop(nodes);
        if visible {
            self.bump();
        }
    }

    /// What all nodes have acked and refused.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let nodes = self.nodes.lock();
        nodes.known.values().map(|n| Verdict::of(&n.row)).collect()
    }
}

impl Nodes {
    /// Whether that changed anything.
    fn merge(&mut self, me: &str, seen: SeenNode) -> bool {
        let SeenNode {
            row,
            owner,
            since_ms,
            version,
        } = seen;
        let node = self
            .known
            .entry(row.node_id.clone())
            .or_insert_with(|| Node::stored(row.clone()));
        if version <= node.stored {
            return false;
        }
        if owner.as_deref() == Some(me) {
            // Written here a moment ago.
            node.stored = version;
            return false;
        }
        if node.connection.is_some() {
            let newer = |owner| (since_ms, owner) > (node.since_ms, me);
            if !owner.as_deref().is_some_and(newer) {
                // The newer stream is here: that is written over it.
                node.dirty = true;
                return false;
            }
            tracing::warn!(
                node = row.node_id,
                "a node has connected to another control plane: the newer stream stays; if these \
                 are two data planes, give each its own id"
            );
            // Ends the stream.
            node.connection = None;
        }
        let same = node.row.boot_id == row.boot_id && node.row.version == row.version;
        let refused = if same {
            mem::take(&mut node.refused)
        } else {
            Vec::new()
        };
        let dirty = node.dirty && owner.is_none();
        *node = Node::stored(row);
        for root in refused {
            if !node.refused.contains(&root) {
                node.refused.insert(0, root);
            }
        }
        node.owner = owner;
        node.since_ms = since_ms;
        node.stored = version;
        node.dirty = dirty;
        true
    }
}
