//! What is sent to a node that can apply deltas.

use fleet_proto::{
    delta::Incoming,
    v1::{
        Ack, Begin, ControlMessage, DeleteRequest, Nack, SyncMode,
        control_message::Message as FromControl,
    },
    validate::Valid,
};

use prost::Message as _;

use super::*;

mod hashes;

/// A set that has arrived at a node which keeps what it serves.
struct Received {
    begin: Begin,
    valid: Valid,
    /// Resources put and removed.
    counts: (usize, usize),
    /// Of all its messages.
    bytes: usize,
}

impl Received {
    fn revision(&self) -> u64 {
        self.begin.target.as_ref().unwrap().revision
    }

    fn is(&self) -> (SyncMode, u64, (usize, usize)) {
        (self.begin.mode(), self.revision(), self.counts)
    }
}

fn hello_with_deltas(id: &str) -> Hello {
    Hello {
        deltas: true,
        ..hello(id)
    }
}

/// The hello of a node that serves what it has received.
fn serving(id: &str, set: &Received) -> Hello {
    let target = set.begin.target.clone().unwrap();
    Hello {
        lineage: target.lineage,
        revision: target.revision,
        root_hash: target.root_hash,
        ..hello_with_deltas(id)
    }
}

async fn receive(node: &mut FakeNode, served: Option<&Received>) -> Received {
    let begin = loop {
        match node.next().await.unwrap() {
            FromControl::Begin(begin) => break begin,
            FromControl::Heartbeat(_) => {}
            other => panic!("{other:?} where a set was to begin"),
        }
    };
    let mut incoming = Incoming::new(begin.clone(), served.map(|s| &s.valid)).unwrap();
    let mut counts = (0, 0);
    let mut bytes = begin.encoded_len();
    let commit = loop {
        match node.next().await.unwrap() {
            FromControl::Chunk(chunk) => {
                bytes += chunk.encoded_len();
                counts.0 += chunk.resources.len();
                counts.1 += chunk.removed.len();
                incoming.add(chunk).unwrap();
            }
            FromControl::Commit(commit) => break commit,
            other => panic!("{other:?} inside a set"),
        }
    };
    Received {
        begin,
        bytes: bytes + commit.encoded_len(),
        valid: incoming.finish(&commit).unwrap(),
        counts,
    }
}

async fn answer(node: &FakeNode, set: &Received, refused: bool) {
    let nonce = set.begin.nonce;
    node.say(if refused {
        let errors = vec![Problem::default()];
        FromNode::Nack(Nack { nonce, errors })
    } else {
        FromNode::Ack(Ack {
            nonce,
            revision: set.revision(),
            root_hash: set.valid.root_hash().0.to_vec(),
            ..Default::default()
        })
    })
    .await;
}

async fn ack(node: &FakeNode, set: &Received) {
    answer(node, set, false).await;
}

fn backends(count: usize) -> Vec<Resource> {
    (0..count).map(|n| backend(&format!("b{n}"))).collect()
}

async fn remove(plane: &Plane, numbers: std::ops::Range<usize>) {
    let keys = numbers.map(|n| wire_key(Kind::Backend, &format!("b{n}")));
    let request = DeleteRequest {
        keys: keys.collect(),
        ..Default::default()
    };
    plane.client().await.delete(request).await.unwrap();
}

#[tokio::test]
async fn a_node_gets_what_differs_from_what_it_has_acked() {
    let plane = Plane::start().await;
    plane.apply(backends(100)).await;
    let mut node = plane.connect(hello_with_deltas("n1")).await;
    let first = receive(&mut node, None).await;
    assert_eq!(first.is(), (SyncMode::Snapshot, 1, (100, 0)));
    ack(&node, &first).await;

    plane
        .apply(vec![backend_at("b7", "http://127.0.0.1:1/mcp")])
        .await;
    let changed = receive(&mut node, Some(&first)).await;
    assert_eq!(changed.is(), (SyncMode::Delta, 2, (1, 0)));
    // Refused: the next delta goes out from what was acked.
    answer(&node, &changed, true).await;
    plane.until_state("n1", NodeState::Nacked).await;
    plane.apply(vec![backend("new")]).await;
    let both = receive(&mut node, Some(&first)).await;
    assert_eq!(both.is(), (SyncMode::Delta, 3, (2, 0)));
    ack(&node, &both).await;
    plane.until_state("n1", NodeState::Synced).await;
}

#[tokio::test]
async fn what_was_removed_is_in_a_delta_unless_the_rest_is_less() {
    let plane = Plane::start().await;
    plane.apply(backends(20)).await;
    let mut node = plane.connect(hello_with_deltas("n1")).await;
    let first = receive(&mut node, None).await;
    ack(&node, &first).await;
    remove(&plane, 1..3).await;
    let fewer = receive(&mut node, Some(&first)).await;
    assert_eq!(fewer.is(), (SyncMode::Delta, 2, (0, 2)));
    ack(&node, &fewer).await;
    remove(&plane, 3..20).await;
    let rest = receive(&mut node, Some(&fewer)).await;
    assert_eq!(rest.is(), (SyncMode::Snapshot, 3, (1, 0)));
}

#[tokio::test]
async fn a_node_that_comes_back_gets_a_delta_to_a_revision_that_is_remembered() {
    let plane = Plane::start().await;
    plane.apply(backends(10)).await;
    let mut node = plane.connect(hello_with_deltas("n1")).await;
    let first = receive(&mut node, None).await;
    drop(node);
    plane.apply(vec![backend("new")]).await;
    let mut node = plane.connect(serving("n1", &first)).await;
    let second = receive(&mut node, Some(&first)).await;
    assert_eq!(second.is(), (SyncMode::Delta, 2, (1, 0)));
    drop(node);

    let wary = Hello {
        want_snapshot: true,
        ..serving("n1", &first)
    };
    let mut node = plane.connect(wary).await;
    let whole = receive(&mut node, Some(&first)).await;
    assert_eq!(whole.is(), (SyncMode::Snapshot, 2, (11, 0)));
    ack(&node, &whole).await;
    plane.apply(vec![backend("newer")]).await;
    let next = receive(&mut node, Some(&whole)).await;
    assert_eq!(next.is(), (SyncMode::Delta, 3, (1, 0)));
    drop(node);

    // A restarted control plane knows only the newest one.
    let plane = plane.restart().await;
    let mut node = plane.connect(serving("n1", &first)).await;
    let whole = receive(&mut node, Some(&first)).await;
    assert_eq!(whole.is(), (SyncMode::Snapshot, 3, (12, 0)));
}

#[tokio::test]
async fn a_node_that_resumes_after_a_restart_still_shows_what_is_degraded_on_it() {
    let plane = Plane::start().await;
    plane.apply(backends(1)).await;
    let mut node = plane.connect(hello_with_deltas("n1")).await;
    let set = receive(&mut node, None).await;
    ack(&node, &set).await;
    drop(node);
    let problem = Problem {
        path: "http.url".to_owned(),
        ..Default::default()
    };
    let restarted = Hello {
        boot_id: "boot-2".to_owned(),
        from_disk: true,
        degraded: vec![problem.clone()],
        ..serving("n1", &set)
    };
    let mut node = plane.connect(restarted).await;
    node.nothing_comes().await;
    let nodes = plane.until_state("n1", NodeState::Synced).await;
    let shown = super::node(&nodes, "n1");
    assert_eq!(
        (&*shown.boot_id, &*shown.degraded),
        ("boot-2", &[problem][..])
    );
}

#[tokio::test]
async fn a_slow_node_sees_two_sets_while_a_hundred_revisions_pass() {
    let plane = Plane::start().await;
    plane.apply(backends(200)).await;
    let mut node = plane.connect(hello_with_deltas("slow")).await;
    let first = receive(&mut node, None).await;
    for n in 0..100 {
        plane.apply(vec![backend(&format!("new{n}"))]).await;
    }
    ack(&node, &first).await;
    let second = receive(&mut node, Some(&first)).await;
    assert_eq!(second.is(), (SyncMode::Delta, 101, (100, 0)));
    assert_eq!(second.begin.nonce, 2);
    ack(&node, &second).await;
    plane.until_state("slow", NodeState::Synced).await;
    let quiet = timeout(Duration::from_millis(50), node.inbound.message()).await;
    let is_beat =
        |message: &ControlMessage| matches!(message.message, Some(FromControl::Heartbeat(_)));
    let quiet = quiet.map_or(true, |m| m.unwrap().is_some_and(|m| is_beat(&m)));
    assert!(quiet, "nothing else was queued");
}
