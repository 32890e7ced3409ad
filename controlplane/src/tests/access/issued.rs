//! The life of a token: made, listed, logged, expired, revoked.

use fleet_proto::duration;

use super::*;
use crate::store::AuditRow;

#[tokio::test]
async fn expired_and_revoked_tokens_are_refused_also_by_a_watch_that_is_open() {
    let plane = Plane::start().await;
    let mut admin = plane.client().await;
    let token = token(&plane, "ci", TokenRole::Viewer, &[]).await;
    let mut client = plane.client_with(&token).await;
    let mut watch = client
        .watch_nodes(NodesRequest {})
        .await
        .unwrap()
        .into_inner();
    watch.message().await.unwrap();
    let name = "ci".to_owned();
    let revoked = admin
        .revoke_token(RevokeTokenRequest { name })
        .await
        .unwrap();
    assert!(revoked.into_inner().token.unwrap().revoked_ms > 0);
    let status = client.nodes(NodesRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(
        status.message().contains("token `ci` has been revoked"),
        "{status}"
    );
    let ended = timeout(PATIENCE, watch.message()).await.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
    let name = "ci".to_owned();
    let again = admin.revoke_token(RevokeTokenRequest { name }).await;
    assert_eq!(again.unwrap_err().code(), Code::NotFound);

    let short = CreateTokenRequest {
        expires_in: Some(duration::Duration::from_millis(1)),
        ..wanted("short", TokenRole::Viewer, &[])
    };
    let made = admin.create_token(short).await.unwrap().into_inner();
    let expires = made.token.unwrap().expires_ms;
    while crate::clock::now_ms() <= expires {
        tokio::task::yield_now().await;
    }
    let mut client = plane.client_with(&made.value).await;
    let status = client.nodes(NodesRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(
        status.message().contains("token `short` has expired"),
        "{status}"
    );

    // Both names are free again, and the old values stay void, also after a restart
    // and after a rollback.
    let fresh = self::token(&plane, "ci", TokenRole::Viewer, &[]).await;
    self::token(&plane, "short", TokenRole::Viewer, &[]).await;
    plane.apply(vec![backend("a")]).await;
    plane.apply(vec![backend("b")]).await;
    let back = RollbackRequest {
        revision: 1,
        ..Default::default()
    };
    plane.client().await.rollback(back).await.unwrap();
    let plane = plane.restart().await;
    for (value, good) in [(&token, false), (&made.value, false), (&fresh, true)] {
        let mut client = plane.client_with(value).await;
        assert_eq!(client.nodes(NodesRequest {}).await.is_ok(), good);
    }
}

#[tokio::test]
async fn a_token_that_another_control_plane_has_revoked_is_refused_soon() {
    let plane = Plane::start().await;
    let value = token(&plane, "ci", TokenRole::Viewer, &[]).await;
    let mut client = plane.client_with(&value).await;
    client.nodes(NodesRequest {}).await.unwrap();
    let store = &plane.running.store;
    let id = store.api_tokens().await.unwrap().remove(0).id;
    let revoked = store.revoke_api_token(id, 1, AuditRow::default()).await;
    assert!(revoked.unwrap());
    let refused = async { while client.nodes(NodesRequest {}).await.is_ok() {} };
    timeout(PATIENCE, refused).await.unwrap();
}

#[tokio::test]
async fn tokens_are_listed_logged_and_never_shown_again() {
    let plane = Plane::start().await;
    let value = token(&plane, "ci", TokenRole::Editor, &["b", "a", "b"]).await;
    token(&plane, "bot", TokenRole::Viewer, &[]).await;
    let mut admin = plane.client().await;
    let name = "bot".to_owned();
    admin
        .revoke_token(RevokeTokenRequest { name })
        .await
        .unwrap();
    let list = |all| ListTokensRequest { all };
    let good = admin
        .list_tokens(list(false))
        .await
        .unwrap()
        .into_inner()
        .tokens;
    assert_eq!(good.len(), 1);
    assert_eq!(
        (good[0].name.as_str(), good[0].role()),
        ("ci", TokenRole::Editor)
    );
    assert_eq!(
        (&good[0].projects[..], good[0].created_by.as_str()),
        (&["a".to_owned(), "b".to_owned()][..], "admin")
    );
    let all = admin
        .list_tokens(list(true))
        .await
        .unwrap()
        .into_inner()
        .tokens;
    assert_eq!(
        all.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(),
        ["bot", "ci"]
    );
    let log = admin
        .audit(AuditRequest::default())
        .await
        .unwrap()
        .into_inner()
        .entries;
    let told: Vec<_> = log
        .iter()
        .map(|e| (e.action.as_str(), e.token.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("token.revoke", "bot"),
            ("token.create", "bot"),
            ("token.create", "ci")
        ]
    );
    let secret = value.rsplit('_').next().unwrap();
    assert!(!format!("{all:?}{log:?}").contains(secret));
    for entry in std::fs::read_dir(plane.folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(
            !bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        );
    }
}

#[tokio::test]
async fn a_token_that_makes_no_sense_is_not_made() {
    let plane = Plane::start().await;
    let mut admin = plane.client().await;
    token(&plane, "ci", TokenRole::Viewer, &[]).await;
    let zero = CreateTokenRequest {
        expires_in: Some(duration::Duration::from_millis(0)),
        ..wanted("x", TokenRole::Viewer, &[])
    };
    for (request, code, told) in [
        (
            wanted("ci", TokenRole::Viewer, &[]),
            Code::AlreadyExists,
            "ci",
        ),
        (
            wanted("admin", TokenRole::Viewer, &[]),
            Code::InvalidArgument,
            "reserved",
        ),
        (
            wanted("a b", TokenRole::Viewer, &[]),
            Code::InvalidArgument,
            "a b",
        ),
        (
            wanted("", TokenRole::Viewer, &[]),
            Code::InvalidArgument,
            "name",
        ),
        (
            wanted("x", TokenRole::Unspecified, &[]),
            Code::InvalidArgument,
            "role",
        ),
        (
            wanted("x", TokenRole::Viewer, &["a/b"]),
            Code::InvalidArgument,
            "a/b",
        ),
        (
            wanted("x", TokenRole::Viewer, &[""]),
            Code::InvalidArgument,
            "projects",
        ),
        (zero, Code::InvalidArgument, "expires_in"),
    ] {
        let status = admin.create_token(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(told), "{status}");
    }
}

#[tokio::test]
async fn an_admin_of_a_project_rules_over_the_tokens_of_that_project_only() {
    let plane = Plane::start().await;
    let lead = token(&plane, "lead-a", TokenRole::Admin, &["a"]).await;
    token(&plane, "all", TokenRole::Viewer, &[]).await;
    token(&plane, "ci-b", TokenRole::Viewer, &["b"]).await;
    let mut lead = plane.client_with(&lead).await;
    lead.create_token(wanted("ci-a", TokenRole::Editor, &["a"]))
        .await
        .unwrap();
    for projects in [&[][..], &["b"], &["a", "b"]] {
        let more = wanted("more", TokenRole::Viewer, projects);
        denied(
            lead.create_token(more).await,
            "token `lead-a` is for project a only",
        );
    }
    let seen = lead
        .list_tokens(ListTokensRequest::default())
        .await
        .unwrap();
    let seen: Vec<_> = seen
        .into_inner()
        .tokens
        .into_iter()
        .map(|t| t.name)
        .collect();
    assert_eq!(seen, ["ci-a", "lead-a"]);
    for (name, gone) in [("all", false), ("ci-b", false), ("ci-a", true)] {
        let name = name.to_owned();
        let done = lead.revoke_token(RevokeTokenRequest { name }).await;
        assert_eq!(done.is_ok(), gone, "{done:?}");
    }
}

#[tokio::test]
async fn a_token_with_an_end_makes_none_that_outlives_it() {
    let plane = Plane::start().await;
    let mut admin = plane.client().await;
    let lead = CreateTokenRequest {
        expires_in: Some(duration::Duration::from_secs(3600)),
        ..wanted("lead", TokenRole::Admin, &[])
    };
    let lead = admin.create_token(lead).await.unwrap().into_inner();
    let end = lead.token.unwrap().expires_ms;
    let mut client = plane.client_with(&lead.value).await;
    let later = duration::Duration::from_secs(7200);
    for (name, asked) in [("ever", None), ("later", Some(later))] {
        let request = CreateTokenRequest {
            expires_in: asked,
            ..wanted(name, TokenRole::Viewer, &[])
        };
        let made = client.create_token(request).await.unwrap().into_inner();
        assert_eq!(made.token.unwrap().expires_ms, end, "{name}");
    }
}
