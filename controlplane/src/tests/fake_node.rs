//! What a data plane would do, by hand.

use std::collections::BTreeMap;

use fleet_proto::{
    hash::{Hash, root_hash},
    key::Key,
    v1::{
        Ack, Begin, ControlMessage, Hello, Nack, NodeMessage, Problem, SetKind, SetPart, SyncMode,
        control_message::Message as FromControl, node_message::Message as FromNode,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Status, Streaming};

use super::PATIENCE;

/// The data plane's end of a stream.
pub(super) struct FakeNode {
    pub(super) id: String,
    pub(super) sender: mpsc::Sender<NodeMessage>,
    pub(super) inbound: Streaming<ControlMessage>,
    /// Parts of sets that came before what was waited for.
    pub(super) parts: Vec<SetPart>,
}

/// A set as received.
pub(super) struct Set {
    pub(super) begin: Begin,
    pub(super) resources: BTreeMap<Key, Vec<u8>>,
    /// Bytes of the largest chunk.
    pub(super) largest: usize,
    pub(super) root: Hash,
}

impl Set {
    pub(super) fn revision(&self) -> u64 {
        self.begin.target.as_ref().unwrap().revision
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.resources.keys().map(|key| key.name.as_str()).collect()
    }
}

impl FakeNode {
    pub(super) async fn say(&self, message: FromNode) {
        self.sender
            .send(NodeMessage {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    /// The next message that is no part of a set.
    pub(super) async fn next(&mut self) -> Result<FromControl, Status> {
        loop {
            match self.next_of_all().await? {
                FromControl::SetPart(part) => self.parts.push(part),
                other => return Ok(other),
            }
        }
    }

    async fn next_of_all(&mut self) -> Result<FromControl, Status> {
        let message = timeout(PATIENCE, self.inbound.message())
            .await
            .expect("no message came");
        Ok(message?.expect("the stream has ended").message.unwrap())
    }

    /// The next part of this set, whether it has come already or not.
    pub(super) async fn part(&mut self, kind: SetKind) -> SetPart {
        let is_of = |part: &SetPart| part.version.as_ref().unwrap().set() == kind;
        loop {
            if let Some(place) = self.parts.iter().position(is_of) {
                return self.parts.remove(place);
            }
            match self.next_of_all().await.unwrap() {
                FromControl::SetPart(part) => self.parts.push(part),
                FromControl::Heartbeat(_) => {}
                other => panic!("{other:?} where a part of a set was to come"),
            }
        }
    }

    /// The control plane says hello back, and has nothing to send.
    pub(super) async fn nothing_comes(&mut self) {
        let message = self.next().await.unwrap();
        assert!(matches!(message, FromControl::Heartbeat(_)), "{message:?}");
    }

    pub(super) async fn is_sent_away(&mut self) {
        let message = self.next().await.unwrap();
        assert!(matches!(message, FromControl::GoAway(_)), "{message:?}");
    }

    /// The next set, whole; checks what every set must keep to.
    pub(super) async fn set(&mut self) -> Set {
        let begin = loop {
            match self.next().await.unwrap() {
                FromControl::Begin(begin) => break begin,
                FromControl::Heartbeat(_) => {}
                other => panic!("{other:?} where a set was to begin"),
            }
        };
        assert_eq!(begin.mode(), SyncMode::Snapshot);
        let mut resources = BTreeMap::new();
        let mut largest = 0;
        let commit = loop {
            match self.next().await.unwrap() {
                FromControl::Chunk(chunk) => {
                    largest = largest.max(prost::Message::encoded_len(&chunk));
                    for resource in chunk.resources {
                        let key = Key::from_wire(&resource.key.unwrap()).unwrap();
                        assert!(resources.insert(key, resource.body).is_none(), "sent twice");
                    }
                }
                FromControl::Commit(commit) => break commit,
                other => panic!("{other:?} inside a set"),
            }
        };
        let root = root_hash(resources.iter().map(|(key, body)| (key, Hash::of(body))));
        assert_eq!(
            commit.root_hash, root.0,
            "the root hash is that of the bytes received"
        );
        assert_eq!(begin.target.as_ref().unwrap().root_hash, root.0);
        Set {
            begin,
            resources,
            largest,
            root,
        }
    }

    pub(super) async fn ack(&self, set: &Set) {
        self.ack_degraded(set, Vec::new()).await;
    }

    pub(super) async fn ack_degraded(&self, set: &Set, degraded: Vec<Problem>) {
        let (nonce, revision) = (set.begin.nonce, set.revision());
        let root_hash = set.root.0.to_vec();
        self.say(FromNode::Ack(Ack {
            nonce,
            revision,
            root_hash,
            apply_us: 42,
            degraded,
        }))
        .await;
    }

    pub(super) async fn nack(&self, set: &Set, message: &str) {
        let problem = Problem {
            message: message.to_owned(),
            ..Default::default()
        };
        self.say(FromNode::Nack(Nack {
            nonce: set.begin.nonce,
            errors: vec![problem],
        }))
        .await;
    }
}

pub(super) fn hello(node_id: &str) -> Hello {
    Hello {
        node_id: node_id.to_owned(),
        boot_id: "boot-1".to_owned(),
        version: "0.1.0".to_owned(),
        ..Default::default()
    }
}

/// The hello of a node that serves a set already.
pub(super) fn hello_serving(node_id: &str, set: &Set) -> Hello {
    let target = set.begin.target.clone().unwrap();
    Hello {
        lineage: target.lineage,
        revision: target.revision,
        root_hash: target.root_hash,
        ..hello(node_id)
    }
}
