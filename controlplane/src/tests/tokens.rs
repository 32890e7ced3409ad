//! Who is let in.

use fleet_proto::v1::ListRequest;
use tonic::Code;

use super::*;

async fn refusal(plane: &Plane, token: &str) -> String {
    let status = plane
        .client_with(token)
        .await
        .list(ListRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    status.message().to_owned()
}

async fn allowed(plane: &Plane, token: &str) -> bool {
    plane
        .client_with(token)
        .await
        .list(ListRequest::default())
        .await
        .is_ok()
}

#[tokio::test]
async fn a_call_without_the_admin_token_is_refused_and_told_why() {
    let plane = Plane::start().await;
    assert!(
        refusal(&plane, "wrong")
            .await
            .contains("admin token is wrong")
    );
    assert!(
        refusal(&plane, &plane.node)
            .await
            .contains("this is the node token")
    );
    let bare = ConfigServiceClient::new(plane.channel().await)
        .list(ListRequest::default())
        .await;
    let status = bare.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(
        status.message().contains("authorization: Bearer"),
        "{status}"
    );
}

#[tokio::test]
async fn a_stream_without_the_node_token_is_refused() {
    let plane = Plane::start().await;
    for token in ["wrong", &plane.admin] {
        let mut client = FleetSyncClient::with_interceptor(plane.channel().await, bearer(token));
        let (_sender, receiver) = mpsc::channel(1);
        let status = client
            .sync(ReceiverStream::new(receiver))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
}

#[tokio::test]
async fn tokens_hold_over_a_restart_and_are_not_in_the_database() {
    let plane = Plane::start().await.restart().await;
    assert!(allowed(&plane, &plane.admin).await);
    for entry in std::fs::read_dir(plane.folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let secret = plane.admin.rsplit('_').next().unwrap().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

#[tokio::test]
async fn a_given_token_stands_instead_of_the_generated_one() {
    let Plane {
        folder,
        running,
        admin,
        node,
    } = Plane::start().await;
    running.shutdown().await;
    let given = "a-token-of-the-operator".to_owned();
    let with_given = Settings {
        admin_token: Some(given.clone()),
        ..settings(&folder)
    };
    let running = start(with_given).await.unwrap();
    assert_eq!(
        (running.admin_token(), running.node_token()),
        (Some(given.as_str()), None)
    );
    let plane = Plane {
        folder,
        running,
        admin,
        node,
    };
    assert!(allowed(&plane, &given).await);
    assert!(!allowed(&plane, &plane.admin).await);
}

#[tokio::test]
async fn an_issued_token_replaces_the_one_issued_before_and_no_other() {
    let plane = Plane::start().await;
    let first = plane.running.issue_admin_token().await.unwrap();
    assert!(allowed(&plane, &first).await);
    let second = plane.running.issue_admin_token().await.unwrap();
    assert!(!allowed(&plane, &first).await);
    assert!(allowed(&plane, &second).await && allowed(&plane, &plane.admin).await);

    let node = plane.running.issue_node_token().await.unwrap();
    let plane = Plane { node, ..plane };
    plane.connect(hello("n1")).await.set().await;
    let mut client = plane.client_with(&second).await;
    client
        .apply(ApplyRequest {
            resources: vec![backend("a")],
            ..Default::default()
        })
        .await
        .unwrap();
    let revisions = client.revisions(RevisionsRequest::default()).await.unwrap();
    assert_eq!(revisions.into_inner().revisions[0].author, "mcpctl up");
}
