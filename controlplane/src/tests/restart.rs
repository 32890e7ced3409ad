//! What a control plane remembers, and what it refuses to start with.

use super::*;
use crate::StartError;

#[tokio::test]
async fn lineage_revisions_and_resources_survive_a_restart() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    plane.apply(vec![backend("b")]).await;
    let before = plane.revisions().await;

    let plane = plane.restart().await;
    assert_eq!(plane.revisions().await, before);
    let list = plane.list().await;
    assert_eq!((list.resources.len(), list.revision), (2, 2));
    assert_eq!(plane.apply(vec![backend("c")]).await, 3);
}

#[tokio::test]
async fn a_node_that_kept_its_revision_is_synced_after_a_restart_without_a_transfer() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let (mut node, set) = plane.connect_synced("n1").await;

    let plane = plane.restart().await;
    node.is_sent_away().await;
    let nodes = plane.until(|n| n.nodes.len() == 1).await;
    assert_eq!(
        (nodes.nodes[0].state(), nodes.nodes[0].revision),
        (NodeState::Offline, 1)
    );
    let mut node = plane.connect(hello_serving("n1", &set)).await;
    node.nothing_comes().await;
    plane.until_state("n1", NodeState::Synced).await;
}

#[tokio::test]
async fn a_refusal_is_remembered_over_a_restart() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let (mut node, good) = plane.connect_synced("n1").await;
    plane.apply_refused(&mut node, backend("b")).await;

    let plane = plane.restart().await;
    let mut fresh = plane.connect(hello("n2")).await;
    assert_eq!(
        fresh.set().await.revision(),
        1,
        "refused and acked by nobody: the newest acked one"
    );
    let mut node = plane.connect(hello_serving("n1", &good)).await;
    let nodes = plane.until_state("n1", NodeState::Nacked).await;
    assert_eq!(super::node(&nodes, "n1").errors[0].message, "no");
    plane.apply(vec![backend("c")]).await;
    assert_eq!(node.set().await.revision(), 3, "nothing came before");
}

#[tokio::test]
async fn a_database_in_use_is_refused() {
    let plane = Plane::start().await;
    let error = start(settings(&plane.folder)).await.err().unwrap();
    assert!(matches!(error, StartError::InUse(_)), "{error}");
    plane.running.shutdown().await;
    start(settings(&plane.folder))
        .await
        .unwrap()
        .shutdown()
        .await;
}

#[tokio::test]
async fn an_address_in_use_and_a_missing_folder_are_named() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().unwrap();
    let taken = Settings {
        grpc_listen: plane.running.grpc_addr(),
        ..settings(&folder)
    };
    let error = start(taken).await.err().unwrap().to_string();
    assert!(
        error.contains(&plane.running.grpc_addr().to_string()) && error.contains("--grpc-listen")
    );
    let nowhere = Settings {
        database: folder.path().join("no/fleet.db").into(),
        ..settings(&folder)
    };
    let error = start(nowhere).await.err().unwrap().to_string();
    assert!(
        error.contains("no/fleet.db") && error.contains("folder"),
        "{error}"
    );
}
