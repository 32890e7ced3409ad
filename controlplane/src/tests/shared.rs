//! Several control planes over one Postgres.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use fleet_proto::{hash::Hash, v1::control_message::Message as FromControl};
use fleet_tests::postgres::cluster;
use sqlx::{Connection, Executor};
use tonic::Code;
use zeroize::Zeroizing;

use super::*;
use crate::{
    Database, StoreKey,
    store::{ChangeRow, RevisionRow, Store, Stored, postgres::Postgres, shared::Shared},
};

/// Control planes of one database share its tokens.
pub(super) struct Fleet {
    pub(super) url: String,
    admin: String,
    node: String,
}

impl Fleet {
    /// A database of its own, and the first control plane on it.
    pub(super) async fn new() -> (Self, Plane) {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().file_name().unwrap().to_str().unwrap();
        Self::over(cluster().database(name).await.unwrap()).await
    }

    /// The store behind the control planes.
    async fn store(&self) -> Postgres {
        let Database::Postgres(database) = self.url.parse().unwrap() else {
            panic!("{} is not a Postgres URL", self.url);
        };
        Postgres::open(&database).await.unwrap()
    }

    pub(super) async fn over(url: String) -> (Self, Plane) {
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
    pub(super) async fn join(&self) -> Plane {
        self.join_by(&self.url).await
    }

    pub(super) async fn join_by(&self, url: &str) -> Plane {
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

pub(super) fn on(url: &str) -> Settings {
    Settings {
        grpc_listen: "127.0.0.1:0".parse().unwrap(),
        database: url.parse().unwrap(),
        store_key: Some(StoreKey::Text(Zeroizing::new("5e".repeat(32)))),
        ..Settings::default()
    }
}

pub(super) async fn names(plane: &Plane) -> BTreeSet<String> {
    let list = plane.list().await.resources;
    list.iter().map(|r| Key::of(r).unwrap().name).collect()
}

/// Waits until a control plane serves this revision.
pub(super) async fn until_revision(plane: &Plane, revision: u64) {
    plane.until(|nodes| nodes.revision == revision).await;
}

pub(super) async fn try_apply(plane: &Plane, resources: Vec<Resource>) -> Result<u64, Status> {
    let answer = plane.client().await.apply(apply(resources)).await?;
    Ok(answer.into_inner().revision)
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
    let url = cluster().database(name).await.unwrap();
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

/// A resource with a field that this version does not know.
fn of_a_newer_version(name: &str) -> ChangeRow {
    let known = backend(name);
    // Field 1999, a varint.
    let body = [prost::Message::encode_to_vec(&known), vec![0xf8, 0x7c, 1]].concat();
    let hash = Hash::of(&body);
    ChangeRow {
        key: Key::of(&known).unwrap(),
        change: Stored::Created { body, hash },
    }
}

#[tokio::test]
async fn what_a_newer_version_wrote_is_neither_served_in_part_nor_written_over() {
    let (fleet, a) = Fleet::new().await;
    a.apply(vec![backend("a")]).await;
    let before = a.list().await;
    let newer = of_a_newer_version("new");
    let (body, hash) = newer.change.body().unwrap();
    assert_eq!(Hash::of(body), hash);
    let store = fleet.store().await;
    let write = store.write().await.unwrap();
    let row = RevisionRow {
        number: 2,
        root_hash: Hash::of(b"of both"),
        created_ms: 1,
        author: "newer".to_owned(),
        message: String::new(),
        created: 1,
        configured: 0,
        deleted: 0,
    };
    write.commit(row, vec![newer]).await.unwrap();

    let status = try_apply(&a, vec![backend("b")]).await.unwrap_err();
    assert!(status.message().contains("upgrade"), "{status}");
    assert_eq!(a.list().await, before);
    let error = start(on(&fleet.url)).await.err().unwrap().to_string();
    assert!(error.contains("upgrade"), "{error}");
    assert_eq!(store.head().await.unwrap().revision, 2);
}

#[tokio::test]
async fn a_database_that_is_set_back_is_followed() {
    let (fleet, a) = Fleet::new().await;
    a.apply(vec![backend("a")]).await;
    let one = fleet.store().await.head().await.unwrap();
    a.apply(vec![backend("b")]).await;
    let mut node = a.connect(hello("n1")).await;
    let set = node.set().await;
    assert_eq!(set.names(), ["a", "b"]);
    node.ack(&set).await;

    let mut database = sqlx::PgConnection::connect(&fleet.url).await.unwrap();
    let set_back = "BEGIN; DELETE FROM resources WHERE name = 'b';
        DELETE FROM revision_changes WHERE revision = 2; DELETE FROM revisions WHERE number = 2;";
    database.execute(set_back).await.unwrap();
    sqlx::query("UPDATE head SET revision = 1, root_hash = $1")
        .bind(one.root_hash.0.to_vec())
        .execute(&mut database)
        .await
        .unwrap();
    database.execute("COMMIT").await.unwrap();
    until_revision(&a, 1).await;
    assert_eq!(names(&a).await, ["a".to_owned()].into());
    let set = node.set().await;
    assert_eq!((set.revision(), set.root), (1, one.root_hash));
    assert_eq!(a.apply(vec![backend("c")]).await, 2);
    until_revision(&a, 2).await;
    assert_eq!(names(&a).await, ["a".to_owned(), "c".to_owned()].into());
}
