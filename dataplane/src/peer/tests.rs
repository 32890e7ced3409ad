use super::*;
use crate::{call::ProtocolVersion, sealed::KeyRing, session::Sessions};

const NODES: [&str; 4] = ["a", "b", "c", "d"];

fn home(node: &str) -> Home {
    Home {
        node: node.to_owned(),
        boot: format!("{node}-1"),
    }
}

fn peer(node: &str) -> v1::Peer {
    v1::Peer {
        node_id: node.to_owned(),
        boot_id: home(node).boot,
        address: format!("{node}.example:8183"),
    }
}

/// A node that knows these others.
fn peers(me: &str, others: &[&str]) -> Peers {
    let peers = Peers::new(home(me), None);
    let watched = |node: &&str| Watched {
        peer: Arc::new(Peer::new(&peer(node), 1).unwrap()),
        _task: Arc::new(Task(tokio::spawn(async {}).abort_handle())),
    };
    peers
        .others
        .store(Arc::new(others.iter().map(watched).collect()));
    peers
}

fn fleet() -> Vec<Peers> {
    let others = |me: &str| NODES.into_iter().filter(|n| *n != me).collect::<Vec<_>>();
    NODES.map(|me| peers(me, &others(me))).into()
}

/// A session of this home.
fn session(at: Option<Home>) -> Arc<Session> {
    let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
    let sessions = match at {
        Some(home) => sessions.at(home),
        None => sessions,
    };
    let version = ProtocolVersion::V2025_06_18;
    let id = sessions.create("p/a", "p", version, b"{}", b"{}").unwrap();
    // As a node opens it that has never met it.
    let there = Sessions::new(KeyRing::of(&[[1; 32]]));
    there.find(&id, "p/a", "p").unwrap()
}

fn at(peers: &Peers, session: &Session) -> String {
    match peers.place(session) {
        Place::Here => peers.me().node.clone(),
        Place::At(peer) => peer.home.node.clone(),
    }
}

fn leave(peers: &Peers, node: &str) {
    for known in peers.others.load().iter() {
        if known.peer.home.node == node {
            known.peer.leave("in a test");
        }
    }
}

#[tokio::test]
async fn a_session_lives_at_its_home_and_where_all_agree_when_that_is_gone() {
    let fleet = fleet();
    let mut successors = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let session = session(Some(home("a")));
        assert!(fleet.iter().all(|node| at(node, &session) == "a"));
    }
    fleet[1..].iter().for_each(|node| leave(node, "a"));
    for _ in 0..50 {
        let session = session(Some(home("a")));
        let successor = at(&fleet[1], &session);
        assert!(
            fleet[1..]
                .iter()
                .all(|node| at(node, &session) == successor)
        );
        successors.insert(successor);
    }
    assert!(
        successors.len() == 3 && !successors.contains("a"),
        "{successors:?}"
    );
}

#[tokio::test]
async fn another_start_of_its_home_and_no_home_at_all_are_the_same_to_all_nodes() {
    let fleet = fleet();
    let before = Home {
        boot: "a-0".to_owned(),
        ..home("a")
    };
    for session in [session(Some(before)), session(None)] {
        let place = at(&fleet[0], &session);
        assert!(fleet.iter().all(|node| at(node, &session) == place));
    }
}

#[tokio::test]
async fn a_peer_that_can_be_reached_again_has_its_sessions_back() {
    let fleet = fleet();
    let session = session(Some(home("a")));
    leave(&fleet[1], "a");
    assert_ne!(at(&fleet[1], &session), "a");
    assert_eq!(fleet[1].counts(), (3, 2));
    fleet[1].home(&session).unwrap().is_back();
    assert_eq!(at(&fleet[1], &session), "a");
}

#[test]
fn addresses_of_peers_are_hosts_with_ports() {
    let own = |text: &str| place(text, 8183);
    let is = |host: &str, port| Some((host.to_owned(), port));
    assert_eq!(own("10.0.0.1"), is("10.0.0.1", 8183));
    assert_eq!(own("dp-1.example:9000"), is("dp-1.example", 9000));
    assert_eq!(own("[::1]:9000"), is("::1", 9000));
    assert_eq!(own("[::1]"), is("::1", 8183));
    for odd in [
        "",
        ":80",
        "user@host:80",
        "host:",
        "host:x",
        "http://host",
        "host/path",
    ] {
        assert_eq!(own(odd), None, "{odd}");
    }
    let without_port = v1::Peer {
        address: "a.example".to_owned(),
        ..peer("a")
    };
    assert!(Peer::new(&without_port, 1).is_none());
}
