//! Which nodes learn of each other.

use fleet_proto::v1::{Peer, SetKind, SetVersion};

use super::*;

fn reachable(node_id: &str, boot: &str) -> Hello {
    Hello {
        boot_id: boot.to_owned(),
        peer_address: address(node_id),
        ..hello(node_id)
    }
}

fn address(node_id: &str) -> String {
    format!("{node_id}.example:8183")
}

/// A stream of a node that serves what it is to serve.
async fn synced(fleet: &Fleet, node: &Node, hello: Hello) -> FakeNode {
    let mut stream = fleet.stream(node, hello).await.unwrap();
    let set = stream.set().await;
    stream.ack(&set).await;
    stream
}

/// Waits until a node is sent peers of these ids and boots; gives the version of the set.
async fn told(node: &mut FakeNode, wanted: &[(&str, &str)]) -> SetVersion {
    loop {
        let part = node.part(SetKind::Peers).await;
        assert!(part.last && part.number == 0, "{part:?}");
        let is_so = |(peer, (id, boot)): (&Peer, &(&str, &str))| {
            peer.node_id == *id && peer.boot_id == *boot && peer.address == address(id)
        };
        if part.peers.len() == wanted.len() && part.peers.iter().zip(wanted).all(is_so) {
            return part.version.unwrap();
        }
    }
}

#[tokio::test]
async fn nodes_with_certificates_and_peer_addresses_learn_of_each_other() {
    let fleet = Fleet::start().await;
    let (one, two) = (fleet.joined("n1").await, fleet.joined("n2").await);
    let mut a = synced(&fleet, &one, reachable("n1", "1")).await;
    told(&mut a, &[("n1", "1")]).await;
    let mut b = synced(&fleet, &two, reachable("n2", "1")).await;
    told(&mut a, &[("n1", "1"), ("n2", "1")]).await;
    told(&mut b, &[("n1", "1"), ("n2", "1")]).await;
    // Its process was started again: it is another peer, in its old place.
    drop(b);
    let mut b = synced(&fleet, &two, reachable("n2", "2")).await;
    told(&mut a, &[("n1", "1"), ("n2", "2")]).await;
    told(&mut b, &[("n1", "1"), ("n2", "2")]).await;
    // Out at once, and not only when its stream has been gone for a while.
    fleet.revoke("n2").await;
    told(&mut a, &[("n1", "1")]).await;
    let api =
        ConfigServiceClient::with_interceptor(fleet.channel().await, bearer(&fleet.plane.admin));
    let nodes = api.clone().nodes(NodesRequest {}).await.unwrap();
    let shown = node(nodes.get_ref(), "n1").peer_address.clone();
    assert_eq!(shown, address("n1"));
}

#[tokio::test]
async fn a_peer_whose_stream_broke_off_stays_a_peer_for_its_way_back() {
    let fleet = Fleet::start().await;
    let (one, two) = (fleet.joined("n1").await, fleet.joined("n2").await);
    let a = synced(&fleet, &one, reachable("n1", "1")).await;
    let mut b = synced(&fleet, &two, reachable("n2", "1")).await;
    told(&mut b, &[("n1", "1"), ("n2", "1")]).await;
    drop(a);
    let three = fleet.joined("n3").await;
    let _c = synced(&fleet, &three, reachable("n3", "1")).await;
    told(&mut b, &[("n1", "1"), ("n2", "1"), ("n3", "1")]).await;
}

#[tokio::test]
async fn a_node_without_certificate_or_without_address_has_no_peers() {
    let fleet = Fleet::start().await;
    let (one, two) = (fleet.joined("n1").await, fleet.joined("n2").await);
    let mut a = synced(&fleet, &one, reachable("n1", "1")).await;
    let silent = synced(&fleet, &two, hello("n2")).await;
    let mut by_token =
        FleetSyncClient::with_interceptor(fleet.channel().await, bearer(&fleet.plane.node));
    let (sender, receiver) = mpsc::channel(8);
    let first = NodeMessage {
        message: Some(FromNode::Hello(reachable("n3", "1"))),
    };
    sender.send(first).await.unwrap();
    let inbound = by_token.sync(ReceiverStream::new(receiver)).await.unwrap();
    let mut by_token = FakeNode {
        id: "n3".to_owned(),
        sender,
        inbound: inbound.into_inner(),
        parts: Vec::new(),
    };
    // Whatever there is for these two has come before what they are to serve.
    let set = by_token.set().await;
    by_token.ack(&set).await;
    let four = fleet.joined("n4").await;
    let _d = synced(&fleet, &four, reachable("n4", "1")).await;
    told(&mut a, &[("n1", "1"), ("n4", "1")]).await;
    let of_peers = |node: &FakeNode| {
        let mut parts = node.parts.iter();
        parts.any(|part| part.version.as_ref().unwrap().set() == SetKind::Peers)
    };
    assert!(!of_peers(&silent) && !of_peers(&by_token));
}

#[tokio::test]
async fn nodes_of_several_control_planes_over_one_database_learn_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    let url = cluster().database(name).await.unwrap();
    let plane = plane_of(secured(on(&url))).await;
    let other = start(secured(on(&url))).await.unwrap();
    let fleet = Fleet {
        ca: ca_of(&plane).await,
        plane,
        _folder: folder,
    };
    let (one, two) = (fleet.joined("n1").await, fleet.joined("n2").await);
    let mut a = synced(&fleet, &one, reachable("n1", "1")).await;
    let mut b = stream(other.grpc_addr(), &fleet.ca, &two, reachable("n2", "1"))
        .await
        .unwrap();
    let set = b.set().await;
    b.ack(&set).await;
    let both = [("n1", "1"), ("n2", "1")];
    let (at_one, at_other) = (told(&mut a, &both).await, told(&mut b, &both).await);
    assert_eq!(at_one, at_other, "who changes over has nothing to learn");
    // Its control plane stops: it is no less a peer for that.
    other.shutdown().await;
    let three = fleet.joined("n3").await;
    let _c = synced(&fleet, &three, reachable("n3", "1")).await;
    told(&mut a, &[("n1", "1"), ("n2", "1"), ("n3", "1")]).await;
}
