//! What only a store with several writers must do.

use std::{collections::HashSet, time::Duration};

use super::*;
use crate::store::shared::{SeenNode, Shared};

/// Two control planes over one database.
async fn two() -> (Postgres, Postgres, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let a = OnPostgres::open(folder.path()).await.unwrap();
    let b = OnPostgres::open(folder.path()).await.unwrap();
    (a, b, folder)
}

fn seen(nodes: &[SeenNode]) -> Vec<(&str, Option<&str>)> {
    let mut all: Vec<_> = nodes
        .iter()
        .map(|n| (n.row.node_id.as_str(), n.owner.as_deref()))
        .collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn a_revision_of_one_is_heard_and_read_by_the_other() {
    let (a, b, _folder) = two().await;
    // What the listener says when it has connected.
    b.changed().await;
    let number = commit(&a, vec![created("a", "a1")]).await;
    tokio::time::timeout(Duration::from_secs(20), b.changed())
        .await
        .expect("no notification came");
    let (head, rows) = b.newest().await.unwrap();
    assert_eq!((head.revision, rows), (number, vec![row("a", "a1")]));
    assert_eq!(b.head().await.unwrap(), head);
}

#[tokio::test]
async fn a_node_belongs_to_the_control_plane_with_its_newer_stream() {
    let (a, b, _folder) = two().await;
    a.beat().await.unwrap();
    b.beat().await.unwrap();
    a.save_nodes(vec![here("n1"), here("n2")], vec![])
        .await
        .unwrap();
    let newer = NodeChange {
        since_ms: 2,
        ..here("n1")
    };
    let taken = b.save_nodes(vec![newer], vec![]).await.unwrap();
    assert_eq!(taken.written, ["n1"]);
    // What A still has to say of it is too late, also that it is connected.
    let late = vec![here("n1"), left(node("n2"))];
    let late = a.save_nodes(late, vec![]).await.unwrap();
    assert_eq!(late.written, ["n2"]);
    let (version, nodes) = a.nodes_since(0).await.unwrap();
    assert_eq!(seen(&nodes), [("n1", Some(b.id())), ("n2", None)]);
    assert_eq!(version, late.version);
    assert_eq!(b.nodes_since(version).await.unwrap(), (version, vec![]));
    let (_, news) = b.nodes_since(taken.version).await.unwrap();
    assert_eq!(seen(&news), [("n2", None)]);
    // B is gone, and so is its stream.
    b.leave().await.unwrap();
    let back = a.save_nodes(vec![here("n1")], vec![]).await.unwrap();
    assert_eq!(back.written, ["n1"]);
}

#[tokio::test]
async fn a_node_that_another_living_control_plane_holds_is_not_removed() {
    let (a, b, _folder) = two().await;
    a.beat().await.unwrap();
    a.save_nodes(vec![here("n1")], vec![]).await.unwrap();
    b.save_nodes(vec![], vec!["n1".to_owned()]).await.unwrap();
    assert_eq!(b.nodes().await.unwrap(), [node("n1")]);
    a.leave().await.unwrap();
    b.save_nodes(vec![], vec!["n1".to_owned()]).await.unwrap();
    assert!(b.nodes().await.unwrap().is_empty());
}

#[tokio::test]
async fn control_planes_know_which_of_them_live() {
    let (a, b, _folder) = two().await;
    a.beat().await.unwrap();
    let both: HashSet<_> = [a.id().to_owned(), b.id().to_owned()].into();
    assert_eq!(b.beat().await.unwrap(), both);
    a.leave().await.unwrap();
    assert_eq!(b.beat().await.unwrap().len(), 1);
}

#[tokio::test]
async fn texts_that_postgres_cannot_hold_do_no_harm() {
    let (a, _b, _folder) = two().await;
    let write = a.write().await.unwrap();
    let row = RevisionRow {
        message: "a\0b".to_owned(),
        ..revision(1)
    };
    write.commit(row, vec![created("a", "a1")]).await.unwrap();
    assert_eq!(a.revisions(1).await.unwrap()[0].message, "a\u{fffd}b");
    let mut odd = here("n1");
    odd.row.boot_id = "\0".to_owned();
    odd.row.errors[0].message = "\0".to_owned();
    a.save_nodes(vec![odd], vec![]).await.unwrap();
    assert_eq!(a.nodes().await.unwrap()[0].errors[0].message, "\0");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let url = format!("postgres://postgres@127.0.0.1:{}/none", cluster().port());
    let Database::Postgres(database) = url.parse().unwrap() else {
        panic!("{url} is not a Postgres URL");
    };
    let error = Postgres::open(&database).await.err().unwrap();
    assert!(!error.is_passing(), "{error}");
    assert!(
        error.to_string().contains("\"none\" does not exist"),
        "{error}"
    );
}
