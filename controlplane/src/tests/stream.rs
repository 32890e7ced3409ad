//! The stream to the data planes.

use std::collections::BTreeMap;

use fleet_proto::v1::Heartbeat;
use tonic::Code;

use super::*;

#[tokio::test]
async fn an_apply_reaches_a_node_and_its_ack_shows() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a"), gateway("g", &["a"])]).await;
    let labels = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
    let mut node = plane
        .connect(Hello {
            labels: labels.clone(),
            ..hello("n1")
        })
        .await;
    let set = node.set().await;
    assert_eq!((set.revision(), set.names()), (1, vec!["a", "g"]));
    let nodes = plane.until_state("n1", NodeState::Pending).await;
    assert_eq!(
        (nodes.revision, &super::node(&nodes, "n1").labels),
        (1, &labels)
    );
    node.ack(&set).await;
    let nodes = plane.until_state("n1", NodeState::Synced).await;
    assert_eq!((nodes.nodes[0].revision, nodes.nodes[0].apply_us), (1, 42));

    plane.apply(vec![backend("b")]).await;
    let set = node.set().await;
    assert_eq!(
        (set.revision(), set.begin.nonce, set.names()),
        (2, 2, vec!["a", "b", "g"])
    );
    node.ack(&set).await;
    plane
        .until(|n| state(n, "n1") == NodeState::Synced && n.nodes[0].revision == 2)
        .await;
    drop(node);
    plane.until_state("n1", NodeState::Offline).await;
}

#[tokio::test]
async fn a_fresh_control_plane_sends_the_empty_revision_0() {
    let plane = Plane::start().await;
    let (_node, set) = plane.connect_synced("n1").await;
    assert_eq!((set.revision(), set.resources.len()), (0, 0));
}

#[tokio::test]
async fn while_a_set_is_in_flight_only_the_latest_revision_follows() {
    let plane = Plane::start().await;
    let mut node = plane.connect(hello("n1")).await;
    let set = node.set().await;
    for n in 0..5 {
        plane.apply(vec![backend(&format!("b{n}"))]).await;
    }
    node.ack(&set).await;
    let set = node.set().await;
    assert_eq!((set.revision(), set.begin.nonce), (5, 2));
}

#[tokio::test]
async fn a_node_that_reconnects_unchanged_is_sent_nothing() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let (node, set) = plane.connect_synced("n1").await;
    drop(node);
    plane.until_state("n1", NodeState::Offline).await;
    let mut node = plane.connect(hello_serving("n1", &set)).await;
    node.nothing_comes().await;
    plane.until_state("n1", NodeState::Synced).await;
    plane.apply(vec![backend("b")]).await;
    assert_eq!(node.set().await.revision(), 2);
}

#[tokio::test]
async fn a_node_of_another_store_gets_everything() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let first = plane.connect(hello("n1")).await.set().await;
    let other = Hello {
        lineage: "another".to_owned(),
        ..hello_serving("n2", &first)
    };
    let mut node = plane.connect(other).await;
    assert_eq!(node.set().await.revision(), 1);
    let nodes = plane.until_state("n2", NodeState::Pending).await;
    assert_eq!(super::node(&nodes, "n2").revision, 0);
}

#[tokio::test]
async fn a_refused_revision_is_not_sent_again_to_the_same_boot() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let (mut node, good) = plane.connect_synced("n1").await;
    let nodes = plane.apply_refused(&mut node, backend("b")).await;
    let shown = super::node(&nodes, "n1");
    assert_eq!((shown.revision, shown.nacked_revision), (1, 2));
    assert_eq!(shown.errors[0].message, "no");

    // The same boot comes back: the next thing it gets is a newer revision.
    drop(node);
    plane.until_state("n1", NodeState::Offline).await;
    let mut node = plane.connect(hello_serving("n1", &good)).await;
    plane.until_state("n1", NodeState::Nacked).await;
    plane.apply(vec![backend("c")]).await;
    let set = node.set().await;
    assert_eq!(set.revision(), 3);
    node.ack(&set).await;
    let nodes = plane.until_state("n1", NodeState::Synced).await;
    assert_eq!(
        (nodes.nodes[0].nacked_revision, nodes.nodes[0].errors.len()),
        (0, 0)
    );

    // Another boot or version may take what the first one refused.
    plane.apply_refused(&mut node, backend("d")).await;
    let newer = Hello {
        version: "0.2.0".to_owned(),
        ..hello_serving("n1", &set)
    };
    assert_eq!(plane.connect(newer).await.set().await.revision(), 4);
}

#[tokio::test]
async fn a_node_with_nothing_gets_the_newest_acked_revision_while_the_newest_is_only_refused() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let (mut first, _) = plane.connect_synced("n1").await;
    plane.apply_refused(&mut first, backend("b")).await;

    let mut second = plane.connect(hello("n2")).await;
    let fallback = second.set().await;
    assert_eq!(fallback.revision(), 1);
    second.ack(&fallback).await;
    // Its own version has refused the newest: it stays with what it has.
    let nodes = plane.until_state("n2", NodeState::Pinned).await;
    assert_eq!(node(&nodes, "n2").revision, 1);

    // Another version has not: it starts with what is good, then tries the newest.
    let newer = Hello {
        version: "0.2.0".to_owned(),
        ..hello("n4")
    };
    let mut third = plane.connect(newer).await;
    let fallback = third.set().await;
    assert_eq!(fallback.revision(), 1);
    third.ack(&fallback).await;
    let newest = third.set().await;
    assert_eq!(newest.revision(), 2);
    third.ack(&newest).await;
    plane.until_state("n4", NodeState::Synced).await;
    // That has proved it good, for all.
    let newest = second.set().await;
    assert_eq!(newest.revision(), 2);
    second.ack(&newest).await;
    plane.until_state("n2", NodeState::Synced).await;
    assert_eq!(plane.connect(hello("n3")).await.set().await.revision(), 2);
}

#[tokio::test]
async fn a_node_that_is_held_back_gets_the_next_revision() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let (mut first, _) = plane.connect_synced("n1").await;
    plane.apply_refused(&mut first, backend("b")).await;
    let mut second = plane.connect(hello("n2")).await;
    let fallback = second.set().await;
    second.ack(&fallback).await;
    plane.until_state("n2", NodeState::Pinned).await;
    plane.apply(vec![backend("c")]).await;
    let next = second.set().await;
    assert_eq!(next.revision(), 3);
    second.ack(&next).await;
    plane.until_state("n2", NodeState::Synced).await;
}

#[tokio::test]
async fn a_node_that_serves_from_disk_is_shown_as_such_until_it_has_acked_something() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let (node, set) = plane.connect_synced("n1").await;
    drop(node);
    plane.apply(vec![backend("b")]).await;
    let restarted = Hello {
        boot_id: "boot-2".to_owned(),
        from_disk: true,
        ..hello_serving("n1", &set)
    };
    let mut node = plane.connect(restarted.clone()).await;
    plane.until_state("n1", NodeState::Cached).await;
    drop(node);
    plane.until_state("n1", NodeState::Offline).await;
    // It has reached us before, and still has acked nothing.
    let again = Hello {
        from_disk: false,
        ..restarted
    };
    node = plane.connect(again).await;
    plane.until_state("n1", NodeState::Cached).await;
    let newest = node.set().await;
    node.ack(&newest).await;
    plane.until_state("n1", NodeState::Synced).await;
    plane.apply(vec![backend("c")]).await;
    plane.until_state("n1", NodeState::Pending).await;
}

#[tokio::test]
async fn degraded_resources_of_a_node_are_shown() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let mut node = plane.connect(hello("n1")).await;
    let set = node.set().await;
    let problem = Problem {
        key: Some(wire_key(Kind::Backend, "a")),
        path: "http.url".to_owned(),
        message: "TOKEN is not set".to_owned(),
    };
    node.ack_degraded(&set, vec![problem.clone()]).await;
    let nodes = plane.until_state("n1", NodeState::Synced).await;
    assert_eq!(nodes.nodes[0].degraded, [problem]);
}

#[tokio::test]
async fn the_newer_of_two_streams_with_one_node_id_stays() {
    let plane = Plane::start().await;
    let mut old = plane.connect(hello("n1")).await;
    old.set().await;
    let mut new = plane
        .connect(Hello {
            boot_id: "boot-2".to_owned(),
            ..hello("n1")
        })
        .await;
    let set = new.set().await;
    old.is_sent_away().await;
    assert!(old.inbound.message().await.unwrap().is_none(), "closed");
    new.ack(&set).await;
    let nodes = plane.until_state("n1", NodeState::Synced).await;
    assert_eq!(
        (nodes.nodes.len(), nodes.nodes[0].boot_id.as_str()),
        (1, "boot-2")
    );
}

#[tokio::test]
async fn a_stream_that_breaks_the_protocol_is_ended_with_the_reason() {
    let plane = Plane::start().await;
    let refused = async |hello: Hello, then: Option<FromNode>| {
        let mut node = plane.connect(hello).await;
        if let Some(message) = then {
            node.set().await;
            node.say(message).await;
        }
        let status = node.next().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        status.message().to_owned()
    };
    assert!(refused(Hello::default(), None).await.contains("node_id"));
    let ack = FromNode::Ack(Ack {
        nonce: 7,
        ..Default::default()
    });
    assert!(refused(hello("n1"), Some(ack)).await.contains("nonce 7"));
    let ack = FromNode::Ack(Ack {
        nonce: 1,
        revision: 0,
        ..Default::default()
    });
    assert!(refused(hello("n1"), Some(ack)).await.contains("root hash"));
    let again = FromNode::Hello(hello("n1"));
    assert!(
        refused(hello("n1"), Some(again))
            .await
            .contains("second hello")
    );

    let mut client = FleetSyncClient::with_interceptor(plane.channel().await, bearer(&plane.node));
    let first = NodeMessage {
        message: Some(FromNode::Heartbeat(Heartbeat {})),
    };
    let mut stream = client
        .sync(tokio_stream::iter([first]))
        .await
        .unwrap()
        .into_inner();
    let status = stream.message().await.unwrap_err();
    assert!(status.message().contains("must be a hello"), "{status}");
}

#[tokio::test]
async fn a_shutdown_sends_nodes_and_watchers_away() {
    let plane = Plane::start().await;
    let mut node = plane.connect(hello("n1")).await;
    node.set().await;
    let mut watch = plane
        .client()
        .await
        .watch_nodes(NodesRequest {})
        .await
        .unwrap()
        .into_inner();
    watch.message().await.unwrap().unwrap();
    plane.running.shutdown().await;
    node.is_sent_away().await;
    while let Ok(Some(_)) = watch.message().await {}
}

/// Acks all it gets, and leaves after every third set to come back with what it
/// has. Ends with the last revision, still connected.
async fn follow(plane: &Plane, id: String, last: u64) -> FakeNode {
    let mut serving = hello(&id);
    loop {
        let mut node = plane.connect(serving.clone()).await;
        for _ in 0..3 {
            if serving.revision == last {
                return node;
            }
            let set = node.set().await;
            node.ack(&set).await;
            serving = hello_serving(&id, &set);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_come_and_go_while_writes_race_all_end_at_the_newest_revision() {
    const WRITES: u64 = 40;
    const NODES: usize = 8;
    let plane = Plane::start().await;
    let write = |n| {
        let plane = &plane;
        async move { plane.apply(vec![backend(&format!("b{n}"))]).await }
    };
    let nodes = (0..NODES).map(|n| follow(&plane, format!("n{n}"), WRITES));
    let writes = futures_util::future::join_all((0..WRITES).map(write));
    let (connected, revisions) = tokio::join!(futures_util::future::join_all(nodes), writes);
    assert_eq!(revisions.into_iter().max(), Some(WRITES));
    let synced = |n: &NodesResponse| n.nodes.iter().all(|n| n.state() == NodeState::Synced);
    let nodes = plane.until(synced).await;
    assert_eq!((nodes.nodes.len(), connected.len()), (NODES, NODES));
}
