//! Several control planes over one Postgres, and Postgres in trouble.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use fleet_proto::v1::control_message::Message as FromControl;
use tonic::Code;

use super::*;
use crate::{
    StartError,
    testing::{
        forwarder::{Forwarder, Wire},
        postgres::{Cluster, cluster},
    },
};

/// Control planes of one database share its tokens.
struct Fleet {
    url: String,
    admin: String,
    node: String,
}

impl Fleet {
    /// A database of its own, and the first control plane on it.
    async fn new() -> (Self, Plane) {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().file_name().unwrap().to_str().unwrap();
        Self::over(cluster().database(name).await).await
    }

    async fn over(url: String) -> (Self, Plane) {
        let running = start(on(&url)).await.unwrap();
        let fleet = Self {
            url,
            admin: running.admin_token().unwrap().to_owned(),
            node: running.node_token().unwrap().to_owned(),
        };
        let plane = fleet.plane(running);
        (fleet, plane)
    }

    /// One more control plane.
    async fn join(&self) -> Plane {
        self.join_by(&self.url).await
    }

    async fn join_by(&self, url: &str) -> Plane {
        let running = start(on(url)).await.unwrap();
        assert_eq!(running.admin_token(), None, "the first one has made it");
        self.plane(running)
    }

    fn plane(&self, running: ControlPlane) -> Plane {
        Plane {
            folder: tempfile::tempdir().unwrap(),
            running,
            admin: self.admin.clone(),
            node: self.node.clone(),
        }
    }
}

fn on(url: &str) -> Settings {
    Settings {
        grpc_listen: "127.0.0.1:0".parse().unwrap(),
        database: url.parse().unwrap(),
        ..Settings::default()
    }
}

async fn names(plane: &Plane) -> BTreeSet<String> {
    let list = plane.list().await.resources;
    list.iter().map(|r| Key::of(r).unwrap().name).collect()
}

/// Waits until a control plane serves this revision.
async fn until_revision(plane: &Plane, revision: u64) {
    plane.until(|nodes| nodes.revision == revision).await;
}

async fn try_apply(plane: &Plane, resources: Vec<Resource>) -> Result<u64, Status> {
    let answer = plane.client().await.apply(apply(resources)).await?;
    Ok(answer.into_inner().revision)
}

/// Tries until the database takes writes again.
async fn apply_when_back(plane: &Plane, resource: Resource) -> u64 {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        match try_apply(plane, vec![resource.clone()]).await {
            Ok(revision) => return revision,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
        assert!(Instant::now() < deadline, "writes do not work again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The refusal of a write while the database is gone.
async fn refused(plane: &Plane) {
    let status = try_apply(plane, vec![backend("refused")])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let message = status.message();
    assert!(
        message.contains("nothing was changed") && message.contains("try again"),
        "{message}"
    );
}

#[tokio::test]
async fn what_one_writes_the_others_serve_also_to_nodes() {
    let (fleet, a) = Fleet::new().await;
    a.apply(vec![backend("a")]).await;
    let b = fleet.join().await;
    let mut node = b.connect(hello("n1")).await;
    let set = node.set().await;
    assert_eq!((set.revision(), set.names()), (1, vec!["a"]));
    node.ack(&set).await;
    a.apply(vec![backend("b")]).await;
    let set = node.set().await;
    assert_eq!((set.revision(), set.names()), (2, vec!["a", "b"]));
    assert_eq!(b.list().await, a.list().await);
    // And back.
    assert_eq!(b.apply(vec![backend("c")]).await, 3);
    until_revision(&a, 3).await;
    assert_eq!(a.revisions().await, b.revisions().await);
}

#[tokio::test]
async fn a_node_of_one_is_seen_from_the_other_in_every_state() {
    let (fleet, a) = Fleet::new().await;
    let b = fleet.join().await;
    a.apply(vec![backend("a")]).await;
    let (mut node, _) = a.connect_synced("n1").await;
    let seen = b.until_state("n1", NodeState::Synced).await;
    assert_eq!(super::node(&seen, "n1").apply_us, 42);
    a.apply_refused(&mut node, backend("bad")).await;
    let seen = b.until_state("n1", NodeState::Nacked).await;
    assert_eq!(super::node(&seen, "n1").errors[0].message, "no");
    drop(node);
    b.until_state("n1", NodeState::Offline).await;
}

#[tokio::test]
async fn a_refusal_on_one_keeps_new_nodes_of_the_other_from_the_revision() {
    let (fleet, a) = Fleet::new().await;
    let b = fleet.join().await;
    a.apply(vec![backend("a")]).await;
    let (mut node, _) = a.connect_synced("n1").await;
    a.apply_refused(&mut node, backend("bad")).await;
    b.until_state("n1", NodeState::Nacked).await;
    let mut fresh = b.connect(hello("n2")).await;
    assert_eq!(fresh.set().await.revision(), 1, "the newest acked one");
}

#[tokio::test]
async fn a_node_that_moves_belongs_to_the_newer_stream() {
    let (fleet, a) = Fleet::new().await;
    let b = fleet.join().await;
    a.apply(vec![backend("a")]).await;
    let (mut on_a, set) = a.connect_synced("n1").await;
    until_revision(&b, 1).await;
    let on_b = b.connect(hello_serving("n1", &set)).await;
    // The older stream is ended by the control plane that holds it.
    loop {
        match on_a.next().await.unwrap() {
            FromControl::GoAway(_) => break,
            FromControl::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(on_a);
    a.until_state("n1", NodeState::Synced).await;
    drop(on_b);
    a.until_state("n1", NodeState::Offline).await;
}

#[tokio::test]
async fn the_nodes_of_a_control_plane_that_died_are_offline_soon() {
    let (fleet, a) = Fleet::new().await;
    let b = fleet.join().await;
    a.apply(vec![backend("a")]).await;
    let (_node, _) = a.connect_synced("n1").await;
    b.until_state("n1", NodeState::Synced).await;
    // It stops in the middle of everything.
    a.running.abandon();
    b.until_state("n1", NodeState::Offline).await;
}

#[tokio::test]
async fn tokens_of_one_hold_on_the_other() {
    let (fleet, a) = Fleet::new().await;
    let b = fleet.join().await;
    let token = a.running.issue_admin_token().await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = b.client_with(&token).await;
        match client.list(ListRequest::default()).await {
            Ok(_) => break,
            Err(status) => assert_eq!(status.code(), Code::Unauthenticated),
        }
        assert!(Instant::now() < deadline, "the token is never known");
    }
}

#[tokio::test]
async fn control_planes_that_start_at_once_make_one_pair_of_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    let url = cluster().database(name).await;
    let started = futures_util::future::join_all((0..4).map(|_| start(on(&url)))).await;
    let planes: Vec<_> = started.into_iter().map(Result::unwrap).collect();
    let tokens: Vec<_> = planes.iter().filter_map(|p| p.admin_token()).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(planes.iter().filter_map(|p| p.node_token()).count(), 1);
}

/// Applies `count` times, each one conditional on what was read before.
async fn race(plane: Arc<Plane>, who: &str, count: usize) -> (BTreeSet<String>, usize) {
    let mut client = plane.client().await;
    let (mut done, mut conflicts) = (BTreeSet::new(), 0);
    let mut expected = 0;
    while done.len() < count {
        let name = format!("{who}-{}", done.len());
        let request = ApplyRequest {
            expect_revision: Some(expected),
            ..apply(vec![backend(&name)])
        };
        match client.apply(request).await {
            Ok(answer) => {
                expected = answer.into_inner().revision;
                done.insert(name);
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Aborted, "{status}");
                conflicts += 1;
                let revisions = RevisionsRequest { limit: 1 };
                let newest = client.revisions(revisions).await.unwrap().into_inner();
                expected = newest.revisions[0].number;
            }
        }
    }
    (done, conflicts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_racing_applies_make_one_line_and_lose_nothing() {
    let (fleet, a) = Fleet::new().await;
    let (a, b) = (Arc::new(a), Arc::new(fleet.join().await));
    let racers = [(&a, "a0"), (&b, "b0"), (&a, "a1"), (&b, "b1")]
        .map(|(plane, who)| tokio::spawn(race(Arc::clone(plane), who, 125)));
    let (mut written, mut conflicts) = (BTreeSet::new(), 0);
    for racer in racers {
        let (done, lost) = racer.await.unwrap();
        written.extend(done);
        conflicts += lost;
    }
    assert!(conflicts > 0, "they did not race");
    for plane in [&a, &b] {
        until_revision(plane, 500).await;
        assert_eq!(names(plane).await, written);
    }
    let mut client = a.client().await;
    let request = RevisionsRequest { limit: 1000 };
    let history = client.revisions(request).await.unwrap().into_inner();
    let numbers: Vec<_> = history.revisions.iter().map(|r| r.number).collect();
    assert_eq!(numbers, (1..=500).rev().collect::<Vec<_>>());
    assert!(history.revisions.iter().all(|r| r.created == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_loses_nothing_and_the_streams_go_on() {
    let mut postgres = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let (fleet, a) = Fleet::over(postgres.database("fleet").await).await;
    let (a, b) = (Arc::new(a), Arc::new(fleet.join().await));
    a.apply(vec![backend("first")]).await;
    until_revision(&b, 1).await;
    let (_node, set) = b.connect_synced("n1").await;
    assert_eq!(set.names(), ["first"]);

    // Writes until they fail; what was answered is in `done`.
    let writers = [(&a, "a"), (&b, "b")].map(|(plane, who)| {
        let (plane, who) = (Arc::clone(plane), who.to_owned());
        tokio::spawn(async move {
            let mut done = BTreeSet::new();
            loop {
                let name = format!("{who}-{}", done.len());
                match try_apply(&plane, vec![backend(&name)]).await {
                    Ok(_) => done.insert(name),
                    Err(status) => {
                        assert_eq!(status.code(), Code::Unavailable, "{status}");
                        return done;
                    }
                };
            }
        })
    });
    a.until(|nodes| nodes.revision > 20).await;
    let mut postgres = tokio::task::spawn_blocking(move || {
        postgres.kill();
        postgres
    })
    .await
    .unwrap();
    let mut acked: BTreeSet<_> = ["first".to_owned()].into();
    for writer in writers {
        acked.extend(writer.await.unwrap());
    }
    refused(&a).await;
    // Reads and streams go on from memory.
    assert!(names(&a).await.contains("first"));
    let mut late = b.connect(hello("n2")).await;
    assert!(late.set().await.names().contains(&"first"));

    let _postgres = tokio::task::spawn_blocking(move || {
        postgres.run();
        postgres
    })
    .await
    .unwrap();
    let revision = apply_when_back(&a, backend("after")).await;
    acked.insert("after".to_owned());
    for plane in [&a, &b] {
        until_revision(plane, revision).await;
        let names = names(plane).await;
        assert!(
            names.is_superset(&acked),
            "{names:?} lacks some of {acked:?}"
        );
        assert!(
            names.len() <= acked.len() + 2,
            "one write of each was in doubt"
        );
        let mut client = plane.client().await;
        let request = RevisionsRequest { limit: 1000 };
        let history = client.revisions(request).await.unwrap().into_inner();
        let numbers: Vec<_> = history.revisions.iter().map(|r| r.number).collect();
        assert_eq!(numbers, (1..=revision).rev().collect::<Vec<_>>());
        // Every revision holds one more resource: none is half there.
        assert_eq!(names.len() as u64, revision);
    }
    a.until(|nodes| nodes.nodes.len() == 2).await;
}

/// A control plane that is cut off catches up when the wire is whole again.
async fn partition(wire: Wire) {
    let (fleet, a) = Fleet::new().await;
    let forwarder = Forwarder::to(cluster().port()).await;
    let port = |port: u16| format!(":{port}/");
    let cut_off = fleet
        .url
        .replace(&port(cluster().port()), &port(forwarder.port()));
    let b = fleet.join_by(&cut_off).await;
    a.apply(vec![backend("a")]).await;
    until_revision(&b, 1).await;
    let (mut node, _) = b.connect_synced("n1").await;
    a.until_state("n1", NodeState::Synced).await;

    forwarder.set(wire);
    a.apply(vec![backend("b")]).await;
    let started = Instant::now();
    refused(&b).await;
    assert!(
        started.elapsed() < Duration::from_secs(16),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(names(&b).await, ["a".to_owned()].into());
    // The others cannot know any more what becomes of its nodes.
    a.until_state("n1", NodeState::Offline).await;

    forwarder.set(Wire::Whole);
    let set = node.set().await;
    assert_eq!(set.names(), ["a", "b"]);
    node.ack(&set).await;
    a.until_state("n1", NodeState::Synced).await;
    assert_eq!(apply_when_back(&b, backend("c")).await, 3);
    until_revision(&a, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_swallows_everything_heals() {
    partition(Wire::Silent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_closes_connections_heals() {
    partition(Wire::Closed).await;
}

#[tokio::test]
async fn a_write_whose_control_plane_is_cut_off_half_way_does_not_hold_up_the_others() {
    use crate::{
        Database,
        store::{Store, postgres::Postgres},
    };
    let (fleet, a) = Fleet::new().await;
    let forwarder = Forwarder::to(cluster().port()).await;
    let port = |port: u16| format!(":{port}/");
    let url = fleet
        .url
        .replace(&port(cluster().port()), &port(forwarder.port()));
    let Database::Postgres(database) = url.parse().unwrap() else {
        panic!("{url}");
    };
    let b = Postgres::open(&database).await.unwrap();
    let write = b.write().await.unwrap();
    forwarder.set(Wire::Silent);
    assert_eq!(apply_when_back(&a, backend("a")).await, 1);
    drop(write);
}

#[tokio::test]
async fn a_start_without_postgres_says_what_to_do() {
    // Nobody listens there any more.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let url = format!("postgres://me:hunter2@127.0.0.1:{port}/fleet");
    let error = start(on(&url)).await.err().unwrap();
    assert!(matches!(error, StartError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("postgres://me@127.0.0.1:{port}/fleet"))
            && text.contains("refused")
            && !text.contains("hunter2"),
        "{text}"
    );
}

#[tokio::test]
async fn a_dry_run_and_a_conflict_leave_nothing_behind() {
    let (fleet, a) = Fleet::new().await;
    a.apply(vec![backend("a")]).await;
    let mut client = a.client().await;
    for _ in 0..30 {
        let dry = ApplyRequest {
            dry_run: true,
            ..apply(vec![backend("b")])
        };
        assert_eq!(client.apply(dry).await.unwrap().into_inner().revision, 2);
        let late = ApplyRequest {
            expect_revision: Some(0),
            ..apply(vec![backend("b")])
        };
        assert_eq!(client.apply(late).await.unwrap_err().code(), Code::Aborted);
    }
    let b = fleet.join().await;
    assert_eq!(b.apply(vec![backend("b")]).await, 2);
}
