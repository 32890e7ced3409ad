//! Going back, and the log of who did what.

use fleet_proto::v1::{
    AuditEntry, AuditRequest, AuthPolicy, BearerAuth, DeleteRequest, RollbackRequest, auth_policy,
};
use tonic::Code;

use super::*;

fn to(revision: u64) -> RollbackRequest {
    RollbackRequest {
        revision,
        ..Default::default()
    }
}

fn with_token(token: &str) -> Resource {
    let tokens = vec![token.to_owned()];
    let policy = AuthPolicy {
        name: "staff".to_owned(),
        scheme: Some(auth_policy::Scheme::Bearer(BearerAuth { tokens })),
        ..Default::default()
    };
    Resource {
        kind: Some(resource::Kind::AuthPolicy(policy)),
    }
}

async fn audit(plane: &Plane) -> Vec<AuditEntry> {
    let answer = plane.client().await.audit(AuditRequest::default()).await;
    answer.unwrap().into_inner().entries
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_with_the_state_of_the_old_one() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a"), backend("b")]).await;
    let before = plane.list().await.resources;
    plane
        .apply(vec![backend_at("a", "http://127.0.0.1:9/x"), backend("c")])
        .await;
    let mut client = plane.client().await;
    let key = wire_key(Kind::Backend, "b");
    let delete = DeleteRequest {
        keys: vec![key],
        ..Default::default()
    };
    client.delete(delete).await.unwrap();
    let (mut node, _) = plane.connect_synced("n1").await;

    let expected = [
        ("a", Action::Configured),
        ("b", Action::Created),
        ("c", Action::Deleted),
    ]
    .map(|(name, action)| (name.to_owned(), action));
    let dry = RollbackRequest {
        dry_run: true,
        ..to(1)
    };
    for (request, newest) in [(dry, 3), (to(1), 4)] {
        let done = client.rollback(request).await.unwrap().into_inner();
        assert_eq!((done.revision, done.changed), (4, true));
        assert_eq!(actions(&done.changes), expected);
        assert_eq!(plane.list().await.revision, newest);
    }
    assert_eq!(plane.list().await.resources, before);
    assert_eq!((node.set().await.revision(), node.id.as_str()), (4, "n1"));
    let newest = plane.revisions().await.revisions.remove(0);
    assert_eq!(newest.message, "rollback to revision 1");
    assert_eq!(
        (newest.created, newest.configured, newest.deleted),
        (1, 1, 1)
    );

    let again = client.rollback(to(1)).await.unwrap().into_inner();
    assert_eq!((again.revision, again.changed), (4, false));
    let first = audit(&plane).await.remove(0);
    assert_eq!(
        (first.action.as_str(), first.rolled_back_to),
        ("rollback", 1)
    );
}

#[tokio::test]
async fn a_rollback_to_nowhere_or_on_top_of_another_write_changes_nothing() {
    let plane = Plane::start().await;
    plane.apply(vec![backend("a")]).await;
    plane.apply(vec![backend("b")]).await;
    let mut client = plane.client().await;
    for number in [0, 3, u64::MAX] {
        let status = client.rollback(to(number)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert!(status.message().contains(&number.to_string()), "{status}");
    }
    let stale = RollbackRequest {
        expect_revision: Some(1),
        ..to(1)
    };
    let status = client.rollback(stale).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(plane.list().await.revision, 2);
}

#[tokio::test]
async fn the_log_says_who_changed_what_from_where_and_shows_no_value() {
    let plane = Plane::start().await;
    let first = ApplyRequest {
        message: "first".to_owned(),
        ..apply(vec![backend("a"), with_token("a-plain-token-1")])
    };
    let mut client = plane.client().await;
    client.apply(first).await.unwrap();
    // None of these is a write that has happened.
    let dry = ApplyRequest {
        dry_run: true,
        ..apply(vec![backend("b")])
    };
    client.apply(dry).await.unwrap();
    client.apply(apply(vec![backend("a")])).await.unwrap();
    client
        .apply(apply(vec![backend_at("a", "ftp://x")]))
        .await
        .unwrap_err();
    let changed = vec![
        backend_at("a", "http://127.0.0.1:9/x?key=a-plain-password"),
        with_token("a-plain-token-2"),
    ];
    plane.apply(changed).await;
    let key = wire_key(Kind::Backend, "a");
    let delete = DeleteRequest {
        keys: vec![key.clone()],
        ..Default::default()
    };
    client.delete(delete).await.unwrap();

    let plane = plane.restart().await;
    let log = audit(&plane).await;
    let told: Vec<_> = log
        .iter()
        .map(|e| (e.action.as_str(), e.revision, e.author.as_str()))
        .collect();
    let expected = [
        ("delete", 3, "admin"),
        ("apply", 2, "admin"),
        ("apply", 1, "admin"),
    ];
    assert_eq!(told, expected);
    assert_eq!(log[2].message, "first");
    assert!(log.iter().all(|e| e.peer.starts_with("127.0.0.1:")));
    assert!(log.iter().all(|e| e.at_ms > 1_600_000_000_000));
    let revisions = plane.revisions().await.revisions;
    assert_eq!(log[0].at_ms, revisions[0].created_ms);

    let [a, policy] = &log[1].changes[..] else {
        panic!("{log:?}")
    };
    assert_eq!(
        (a.key.as_ref(), a.action()),
        (Some(&key), Action::Configured)
    );
    assert_eq!(a.fields, ["http.url"]);
    assert_eq!(policy.fields, ["bearer.tokens"]);
    assert_eq!(a.old_hash, log[2].changes[0].new_hash);
    assert_eq!(a.new_hash, log[0].changes[0].old_hash);
    assert_eq!(
        (a.new_hash.len(), log[0].changes[0].new_hash.as_str()),
        (64, "")
    );
    assert!(!format!("{log:?}").contains("a-plain"), "{log:?}");

    let page = |limit, before| AuditRequest { limit, before };
    let mut client = plane.client().await;
    let newest = client.audit(page(1, 0)).await.unwrap().into_inner().entries;
    assert_eq!(newest[..], log[..1]);
    let rest = client.audit(page(9, newest[0].id)).await.unwrap();
    assert_eq!(rest.into_inner().entries[..], log[1..]);
}
