//! Tokens with a role, projects and an end.

use fleet_proto::v1::{
    AuditRequest, CreateTokenRequest, DeleteRequest, GetRequest, GetRevisionRequest,
    ListTokensRequest, RevokeTokenRequest, RollbackRequest, TokenRole, ValidateRequest,
    WhoAmIRequest,
};
use tonic::Code;

use super::*;

mod issued;

fn wanted(name: &str, role: TokenRole, projects: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest {
        name: name.to_owned(),
        role: role.into(),
        projects: projects.iter().map(ToString::to_string).collect(),
        expires_in: None,
    }
}

/// The value of a new token.
async fn token(plane: &Plane, name: &str, role: TokenRole, projects: &[&str]) -> String {
    let mut client = plane.client().await;
    let made = client.create_token(wanted(name, role, projects)).await;
    made.unwrap().into_inner().value
}

fn of(project: &str, mut resource: Resource) -> Resource {
    match resource.kind.as_mut().unwrap() {
        resource::Kind::Backend(backend) => project.clone_into(&mut backend.project),
        resource::Kind::Gateway(gateway) => project.clone_into(&mut gateway.project),
        resource::Kind::AuthPolicy(policy) => project.clone_into(&mut policy.project),
        resource::Kind::Secret(secret) => project.clone_into(&mut secret.project),
    }
    resource
}

fn key_of(project: &str, name: &str) -> ResourceKey {
    Key::new(project, Kind::Backend, name).to_wire()
}

fn delete(key: ResourceKey) -> DeleteRequest {
    DeleteRequest {
        keys: vec![key],
        ..Default::default()
    }
}

#[track_caller]
fn denied<T: std::fmt::Debug>(result: Result<T, Status>, told: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains(told), "{status}");
}

#[tokio::test]
async fn a_viewer_reads_and_cannot_write() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    let token = token(&plane, "dashboard", TokenRole::Viewer, &[]).await;
    let mut viewer = plane.client_with(&token).await;
    let list = viewer.list(ListRequest::default()).await.unwrap();
    assert_eq!(list.into_inner().resources.len(), 1);
    viewer.nodes(NodesRequest {}).await.unwrap();
    viewer.audit(AuditRequest::default()).await.unwrap();
    let resources = vec![backend("b")];
    viewer
        .validate(ValidateRequest { resources })
        .await
        .unwrap();
    let dry = ApplyRequest {
        dry_run: true,
        ..apply(vec![backend("b")])
    };
    viewer.apply(dry).await.unwrap();

    let told = "needs a token with the role editor: token `dashboard` has the role viewer";
    denied(viewer.apply(apply(vec![backend("b")])).await, told);
    denied(viewer.delete(delete(key_of("", "a"))).await, told);
    let back = RollbackRequest {
        revision: 1,
        ..Default::default()
    };
    denied(viewer.rollback(back).await, told);
    assert_eq!(plane.list().await.revision, 1);
}

#[tokio::test]
async fn an_editor_writes_under_its_name_and_makes_no_tokens() {
    let plane = Plane::start().await;
    let token = token(&plane, "ci@team-a", TokenRole::Editor, &[]).await;
    let mut editor = plane.client_with(&token).await;
    editor.apply(apply(vec![backend("a")])).await.unwrap();
    assert_eq!(plane.revisions().await.revisions[0].author, "ci@team-a");
    let told = "needs a token with the role admin";
    let another = wanted("x", TokenRole::Viewer, &[]);
    denied(editor.create_token(another).await, told);
    denied(editor.list_tokens(ListTokensRequest::default()).await, told);
    let name = "ci@team-a".to_owned();
    denied(editor.revoke_token(RevokeTokenRequest { name }).await, told);
    let me = editor
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(me.token.unwrap().role(), TokenRole::Editor);
}

#[tokio::test]
async fn a_token_of_one_project_sees_and_writes_nothing_of_another() {
    let plane = Plane::start().await;
    let token = token(&plane, "ci-a", TokenRole::Editor, &["a"]).await;
    let mut a = plane.client_with(&token).await;
    plane.apply(vec![of("b", backend("secret"))]).await;
    plane
        .apply(vec![of("a", backend("mine")), of("b", backend("two"))])
        .await;
    plane
        .apply(vec![of("b", gateway("front", &["secret"]))])
        .await;

    let list = a.list(ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.resources.len(), 1);
    let project = "b".to_owned();
    let other = ListRequest {
        project,
        ..Default::default()
    };
    assert!(
        a.list(other)
            .await
            .unwrap()
            .into_inner()
            .resources
            .is_empty()
    );
    let get = |key| GetRequest { key: Some(key) };
    a.get(get(key_of("a", "mine"))).await.unwrap();
    for name in ["secret", "never"] {
        let status = a.get(get(key_of("b", name))).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "as if it did not exist");
    }

    let revisions = a.revisions(RevisionsRequest::default()).await.unwrap();
    let revisions = revisions.into_inner().revisions;
    assert_eq!(revisions.len(), 1);
    assert_eq!((revisions[0].number, revisions[0].created), (2, 1));
    let revision = |number| GetRevisionRequest {
        number,
        resources: true,
    };
    let status = a.get_revision(revision(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let two = a.get_revision(revision(2)).await.unwrap().into_inner();
    let log = a.audit(AuditRequest::default()).await.unwrap().into_inner();
    assert_eq!((log.entries.len(), log.entries[0].changes.len()), (1, 1));
    for seen in [format!("{two:?}"), format!("{log:?}")] {
        assert!(!seen.contains("secret") && !seen.contains("two"), "{seen}");
    }

    let told = "token `ci-a` is for project a only";
    let both = vec![of("a", backend("x")), of("b", backend("x"))];
    denied(a.apply(apply(both)).await, told);
    denied(a.apply(apply(vec![backend("x")])).await, told);
    denied(a.delete(delete(key_of("b", "secret"))).await, told);
    denied(a.delete(delete(key_of("b", "never"))).await, told);
    let remove = vec![key_of("b", "two")];
    denied(
        a.apply(ApplyRequest {
            remove,
            ..Default::default()
        })
        .await,
        told,
    );
    let resources = vec![of("b", backend("x"))];
    denied(a.validate(ValidateRequest { resources }).await, told);
    assert_eq!(plane.list().await.revision, 3);

    // The path is taken, by whom is not said.
    let mut clash = of("a", gateway("front", &["mine", "nobody"]));
    if let Some(resource::Kind::Gateway(gateway)) = &mut clash.kind {
        gateway.name = "mine".to_owned();
    }
    let status = a.apply(apply(vec![clash])).await.unwrap_err();
    let found = problems(&status);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found
            .iter()
            .any(|p| p.message.contains("of another project")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|p| p.message.contains("nobody")),
        "{found:?}"
    );
    assert!(!format!("{found:?}").contains("front"), "{found:?}");

    a.apply(apply(vec![of("a", backend("x"))])).await.unwrap();
}

#[tokio::test]
async fn a_rollback_goes_no_further_than_the_projects_of_its_token() {
    let plane = Plane::start().await;
    let token = token(&plane, "ci-a", TokenRole::Editor, &["a"]).await;
    let mut a = plane.client_with(&token).await;
    plane.apply(vec![of("b", backend("one"))]).await;
    a.apply(apply(vec![of("a", backend("x"))])).await.unwrap();
    let back = |revision| RollbackRequest {
        revision,
        ..Default::default()
    };
    let done = a.rollback(back(1)).await.unwrap().into_inner();
    assert_eq!((done.revision, done.changed), (3, true));
    plane.apply(vec![of("b", backend("two"))]).await;
    denied(a.rollback(back(2)).await, "other projects");
    assert_eq!(plane.list().await.revision, 4);
}

#[tokio::test]
async fn problems_of_other_projects_are_not_shown_with_a_node() {
    let plane = Plane::start().await;
    let token = token(&plane, "ci-a", TokenRole::Viewer, &["a"]).await;
    plane
        .apply(vec![of("a", backend("x")), of("b", backend("y"))])
        .await;
    let mut node = plane.connect(hello("n1")).await;
    let set = node.set().await;
    let problem = |project: &str, name: &str| Problem {
        key: Some(key_of(project, name)),
        message: format!("{name} is broken"),
        ..Default::default()
    };
    let degraded = vec![problem("a", "x"), problem("b", "y")];
    node.ack_degraded(&set, degraded).await;
    plane.until_state("n1", NodeState::Synced).await;
    let mut a = plane.client_with(&token).await;
    let seen = a.nodes(NodesRequest {}).await.unwrap().into_inner();
    let seen = format!("{seen:?}");
    assert!(
        seen.contains("x is broken") && seen.contains("1 problems outside"),
        "{seen}"
    );
    assert!(!seen.contains("y is broken"), "{seen}");
}
