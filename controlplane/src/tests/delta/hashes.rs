//! A node that serves what the control plane remembers no more is asked for hashes.

use fleet_proto::{
    delta::known::{self, ENTRIES},
    v1::{KnownHash, KnownHashes},
};

use super::*;

/// The hello of a node that can tell hashes.
fn telling(id: &str, set: &Received) -> Hello {
    Hello {
        hashes: true,
        ..serving(id, set)
    }
}

async fn is_asked(node: &mut FakeNode) {
    loop {
        match node.next().await.unwrap() {
            FromControl::RequestHashes(_) => return,
            FromControl::Heartbeat(_) => {}
            other => panic!("{other:?} instead of a question"),
        }
    }
}

async fn tell(node: &FakeNode, parts: impl IntoIterator<Item = KnownHashes>) {
    for part in parts {
        node.say(FromNode::KnownHashes(part)).await;
    }
}

/// A control plane with so many backends and one node in sync, restarted after a change
/// of one of them: it knows nothing of what the node serves.
async fn forgetful(count: usize) -> (Plane, Received) {
    let plane = Plane::start().await;
    plane.apply(backends(count)).await;
    let mut node = plane.connect(hello_with_deltas("n1")).await;
    let set = receive(&mut node, None).await;
    ack(&node, &set).await;
    plane.until_state("n1", NodeState::Synced).await;
    drop(node);
    plane
        .apply(vec![backend_at("b7", "http://127.0.0.1:1/mcp")])
        .await;
    (plane.restart().await, set)
}

#[tokio::test]
async fn one_change_of_ten_thousand_is_a_few_kib_also_to_a_control_plane_that_has_forgotten() {
    let (plane, set) = forgetful(10_000).await;
    let mut node = plane.connect(telling("n1", &set)).await;
    is_asked(&mut node).await;
    let parts: Vec<_> = known::parts(set.valid.clone()).collect();
    assert_eq!(parts.len(), 10_000_usize.div_ceil(ENTRIES));
    tell(&node, parts).await;
    let changed = receive(&mut node, Some(&set)).await;
    assert_eq!(changed.is(), (SyncMode::Delta, 2, (1, 0)));
    assert!(changed.bytes < 4096, "{} bytes", changed.bytes);
    ack(&node, &changed).await;
    plane.until_state("n1", NodeState::Synced).await;

    // Another node that serves the same need not be asked.
    let mut other = plane.connect(telling("n2", &set)).await;
    let changed = receive(&mut other, Some(&set)).await;
    assert_eq!(changed.is(), (SyncMode::Delta, 2, (1, 0)));
}

#[tokio::test]
async fn a_set_of_another_store_is_a_base_as_well() {
    let (plane, set) = forgetful(20).await;
    let foreign = Hello {
        lineage: "another".to_owned(),
        ..telling("n1", &set)
    };
    let mut node = plane.connect(foreign).await;
    is_asked(&mut node).await;
    tell(&node, known::parts(set.valid.clone())).await;
    let changed = receive(&mut node, Some(&set)).await;
    assert_eq!(changed.is(), (SyncMode::Delta, 2, (1, 0)));
}

#[tokio::test]
async fn an_answer_that_tells_nothing_gets_a_snapshot() {
    let (plane, set) = forgetful(20).await;
    let right: Vec<_> = known::parts(set.valid.clone()).collect();
    let wrong = |change: fn(&mut KnownHashes)| {
        let mut parts = right.clone();
        change(&mut parts[0]);
        parts
    };
    let answers = [
        wrong(|part| part.number = 1),
        wrong(|part| drop(part.hashes.pop())),
        wrong(|part| part.hashes[3].hash = vec![7; 32]),
        wrong(|part| part.hashes[3].hash = vec![7; 31]),
        wrong(|part| part.hashes = vec![KnownHash::default(); ENTRIES + 1]),
    ];
    for answer in answers {
        let mut node = plane.connect(telling("n1", &set)).await;
        is_asked(&mut node).await;
        tell(&node, answer).await;
        let whole = receive(&mut node, Some(&set)).await;
        assert_eq!(whole.is(), (SyncMode::Snapshot, 2, (20, 0)));
    }
    // Who is not asked has nothing to tell.
    let mut node = plane.connect(serving("n1", &set)).await;
    receive(&mut node, Some(&set)).await;
    tell(&node, right).await;
    let status = loop {
        match node.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert!(status.message().contains("nobody"), "{status}");
}

#[tokio::test]
async fn a_node_that_says_nothing_holds_up_nobody_but_itself() {
    let (plane, set) = forgetful(20).await;
    // More than are asked at the same time.
    let mut silent = Vec::new();
    for n in 0..20 {
        silent.push(plane.connect(telling(&format!("silent{n}"), &set)).await);
    }
    is_asked(&mut silent[0]).await;
    let mut node = plane.connect(hello_with_deltas("n1")).await;
    let whole = receive(&mut node, None).await;
    ack(&node, &whole).await;
    plane.until_state("n1", NodeState::Synced).await;
    // One that tells, tells for all that wait for their turn.
    tell(&silent[0], known::parts(set.valid.clone())).await;
    for node in [0, 19] {
        let changed = receive(&mut silent[node], Some(&set)).await;
        assert_eq!(changed.is(), (SyncMode::Delta, 2, (1, 0)));
    }
}
