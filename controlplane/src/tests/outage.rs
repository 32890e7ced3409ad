//! Postgres in trouble: killed, cut off, absent.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use fleet_tests::{
    forwarder::{Forwarder, Wire},
    postgres::{Cluster, cluster},
};
use tonic::Code;

use super::{
    shared::{Fleet, names, on, try_apply, until_revision},
    *,
};
use crate::StartError;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_loses_nothing_and_the_streams_go_on() {
    let mut postgres = tokio::task::spawn_blocking(Cluster::start)
        .await
        .unwrap()
        .unwrap();
    let (fleet, a) = Fleet::over(postgres.database("fleet").await.unwrap()).await;
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
        postgres.kill().unwrap();
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
        postgres.run().unwrap();
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
    let forwarder = Forwarder::to(cluster().port()).await.unwrap();
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
    let forwarder = Forwarder::to(cluster().port()).await.unwrap();
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
