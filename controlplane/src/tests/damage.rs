//! Bytes that rot in the database, and a database that somebody else has locked.

use fleet_proto::v1::{CreateTokenRequest, GetRevisionRequest, TokenRole};
use sqlx::{ConnectOptions, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tonic::Code;

use super::*;

/// The database, beside the control plane.
async fn database(plane: &Plane) -> SqliteConnection {
    let file = plane.folder.path().join("fleet.db");
    let options = SqliteConnectOptions::new().filename(file);
    options.connect().await.unwrap()
}

fn of(project: &str, name: &str) -> Resource {
    let mut resource = backend(name);
    if let Some(resource::Kind::Backend(backend)) = &mut resource.kind {
        project.clone_into(&mut backend.project);
    }
    resource
}

#[tokio::test]
async fn what_is_damaged_in_another_project_is_not_named() {
    let plane = Plane::start().await;
    plane
        .apply(vec![of("mine", "a"), of("theirs", "hidden-name")])
        .await;
    let request = CreateTokenRequest {
        name: "team".to_owned(),
        role: TokenRole::Viewer.into(),
        projects: vec!["mine".to_owned()],
        expires_in: None,
    };
    let token = plane.client().await.create_token(request).await;
    let token = token.unwrap().into_inner().value;
    let held = async |client: &mut Client| {
        let request = GetRevisionRequest {
            number: 1,
            resources: true,
        };
        client.get_revision(request).await
    };
    let mut database = database(&plane).await;

    // Bytes that are no resource at all.
    let rot = "UPDATE revision_changes SET body = x'ff' WHERE project = 'theirs'";
    database.execute(rot).await.unwrap();
    let mine = held(&mut plane.client_with(&token).await).await.unwrap();
    assert_eq!(mine.into_inner().resources.len(), 1);
    let all = held(&mut plane.client().await).await.unwrap_err();
    assert_eq!(all.code(), Code::Internal);
    assert!(all.message().contains("hidden-name"), "{all}");

    // A row that the store itself refuses.
    let rot = "UPDATE revision_changes SET kind = 'Hidden' WHERE project = 'theirs'";
    database.execute(rot).await.unwrap();
    let refused = held(&mut plane.client_with(&token).await).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(refused.message().contains("is damaged"), "{refused}");
    assert!(
        !refused.message().to_lowercase().contains("hidden"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_dry_run_waits_for_no_writer() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let mut database = database(&plane).await;
    database.execute("BEGIN IMMEDIATE").await.unwrap();
    // It has the turn, and waits for the database.
    let mut client = plane.client().await;
    let writing = tokio::spawn(async move { client.apply(apply(vec![backend("b")])).await });
    let dry = ApplyRequest {
        dry_run: true,
        ..apply(vec![backend("a"), backend("c")])
    };
    let answer = plane.client().await.apply(dry).await.unwrap().into_inner();
    assert!(answer.changed && answer.revision == 2, "{answer:?}");
    assert!(!writing.is_finished());
    database.execute("ROLLBACK").await.unwrap();
    assert_eq!(writing.await.unwrap().unwrap().into_inner().revision, 2);
}
