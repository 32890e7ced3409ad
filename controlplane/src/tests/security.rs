//! Revocations and session keys over the API and to the nodes.

use fleet_proto::{
    hash::Hash,
    v1::{
        AuditRequest, CreateTokenRequest, ListRevocationsRequest, ListRevocationsResponse,
        Revocation, RevokeRequest, RotateSessionKeysRequest, SetKind, SetPart, TokenRole,
        UnrevokeRequest, revocation, security_service_client::SecurityServiceClient,
    },
};
use tonic::Code;

use super::{shared::Fleet, *};

const TOKEN: &str = "client-token-1";

type Security = SecurityServiceClient<InterceptedService<Channel, Bearer>>;

impl Plane {
    async fn security_with(&self, token: &str) -> Security {
        SecurityServiceClient::with_interceptor(self.channel().await, bearer(token))
    }

    async fn security(&self) -> Security {
        self.security_with(&self.admin).await
    }

    /// The value of a new token.
    async fn issue(&self, name: &str, role: TokenRole, projects: &[&str]) -> String {
        let wanted = CreateTokenRequest {
            name: name.to_owned(),
            role: role.into(),
            projects: projects.iter().map(ToString::to_string).collect(),
            expires_in: None,
        };
        let made = self.client().await.create_token(wanted).await;
        made.unwrap().into_inner().value
    }
}

fn hashed(token: &str) -> String {
    format!("sha256:{}", Hash::of(token.as_bytes()))
}

fn revoke(bearer: &str, project: &str) -> RevokeRequest {
    RevokeRequest {
        bearer: bearer.to_owned(),
        project: project.to_owned(),
        ..RevokeRequest::default()
    }
}

fn unrevoke(bearer: &str, project: &str) -> UnrevokeRequest {
    UnrevokeRequest {
        bearer: bearer.to_owned(),
        project: project.to_owned(),
    }
}

async fn listed(mut security: Security) -> ListRevocationsResponse {
    let answer = security.list_revocations(ListRevocationsRequest {}).await;
    answer.unwrap().into_inner()
}

fn refused_of(part: &SetPart) -> Vec<(&str, Vec<u8>)> {
    let bearer = |one: &Revocation| match one.what.clone() {
        Some(revocation::What::BearerSha256(hash)) => hash,
        None => panic!("{one:?} names nothing"),
    };
    let all = part.revocations.iter();
    all.map(|one| (one.project.as_str(), bearer(one))).collect()
}

#[tokio::test]
async fn a_revocation_reaches_every_node_and_stays_over_restarts_until_it_is_taken_back() {
    let plane = Plane::start().await;
    let (mut node, _) = plane.connect_synced("n1").await;
    let mut security = plane.security().await;
    let request = RevokeRequest {
        message: "leaked".to_owned(),
        ..revoke(TOKEN, "")
    };
    let made = security.revoke(request).await.unwrap().into_inner();
    let entry = made.revocation.unwrap();
    assert_eq!(
        (entry.bearer.as_str(), made.version),
        (hashed(TOKEN).as_str(), 1)
    );
    assert_eq!(
        (entry.created_by.as_str(), entry.message.as_str()),
        ("admin", "leaked")
    );
    let hash = Hash::of(TOKEN.as_bytes()).0.to_vec();
    let part = node.part(SetKind::Revocations).await;
    assert_eq!(refused_of(&part), [("", hash.clone())]);
    // By its hash, in one project only.
    security
        .revoke(revoke(&hashed("other-token"), "p"))
        .await
        .unwrap();
    assert_eq!(node.part(SetKind::Revocations).await.revocations.len(), 2);

    let plane = plane.restart().await;
    let list = listed(plane.security().await).await;
    let projects: Vec<_> = list
        .revocations
        .iter()
        .map(|r| r.project.as_str())
        .collect();
    assert_eq!((projects, list.version), (vec!["p", ""], 2));
    let (mut node, _) = plane.connect_synced("n2").await;
    assert_eq!(node.part(SetKind::Revocations).await.revocations.len(), 2);
    let mut security = plane.security().await;
    let none = security.unrevoke(unrevoke(TOKEN, "p")).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
    let done = security.unrevoke(unrevoke(TOKEN, "")).await.unwrap();
    assert_eq!(done.into_inner().version, 3);
    let part = node.part(SetKind::Revocations).await;
    assert_eq!(refused_of(&part)[0].0, "p");

    let audit = plane.client().await.audit(AuditRequest::default()).await;
    let entries = audit.unwrap().into_inner().entries;
    let seen: Vec<_> = entries.iter().map(|e| e.action.as_str()).collect();
    assert_eq!(seen[..2], ["revocation.delete", "revocation.create"]);
    assert!(entries.iter().all(|e| !e.message.contains(TOKEN)));
    assert!(entries.iter().any(|e| e.message.contains("leaked")));
}

#[tokio::test]
async fn what_is_no_token_is_refused_without_showing_it() {
    let plane = Plane::start().await;
    let mut security = plane.security().await;
    for bad in [
        "",
        "short",
        "sha256:12",
        &format!("sha256:{}", "z".repeat(64)),
    ] {
        let status = security.revoke(revoke(bad, "")).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}");
        assert!(
            bad.is_empty() || !status.message().contains(bad),
            "{status}"
        );
    }
    let never = RevokeRequest {
        expires_in: Some(Default::default()),
        ..revoke(TOKEN, "")
    };
    assert!(security.revoke(never).await.is_err());
    let hour = RevokeRequest {
        expires_in: Some("1h".parse().unwrap()),
        ..revoke(TOKEN, "")
    };
    let made = security.revoke(hour).await.unwrap().into_inner();
    let entry = made.revocation.unwrap();
    assert_eq!(entry.until_ms - entry.created_ms, 3_600_000);
}

#[tokio::test]
async fn only_admins_revoke_and_those_of_a_project_there_only() {
    let plane = Plane::start().await;
    let editor = plane.issue("editor", TokenRole::Editor, &[]).await;
    let mut editor = plane.security_with(&editor).await;
    let limited = plane.issue("limited", TokenRole::Admin, &["p"]).await;
    let mut limited = plane.security_with(&limited).await;
    for denied in [
        editor.revoke(revoke(TOKEN, "")).await.unwrap_err(),
        editor
            .list_revocations(ListRevocationsRequest {})
            .await
            .unwrap_err(),
        editor
            .rotate_session_keys(RotateSessionKeysRequest::default())
            .await
            .unwrap_err(),
        editor.unrevoke(unrevoke(TOKEN, "")).await.unwrap_err(),
        limited.revoke(revoke(TOKEN, "")).await.unwrap_err(),
        limited.revoke(revoke(TOKEN, "q")).await.unwrap_err(),
        limited.unrevoke(unrevoke(TOKEN, "")).await.unwrap_err(),
        limited
            .rotate_session_keys(RotateSessionKeysRequest::default())
            .await
            .unwrap_err(),
    ] {
        assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
    }
    let mut all = plane.security().await;
    all.revoke(revoke(TOKEN, "")).await.unwrap();
    limited.revoke(revoke(TOKEN, "p")).await.unwrap();
    let seen = listed(limited.clone()).await.revocations;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].project, "p");
    limited.unrevoke(unrevoke(TOKEN, "p")).await.unwrap();
    assert_eq!(listed(all).await.revocations.len(), 1);
}

#[tokio::test]
async fn session_keys_are_rotated_and_pushed() {
    let plane = Plane::start().await;
    let (mut node, _) = plane.connect_synced("n1").await;
    let first = node.part(SetKind::SessionKeys).await.session_keys;
    let mut security = plane.security().await;
    let request = RotateSessionKeysRequest::default();
    let done = security.rotate_session_keys(request).await.unwrap();
    assert_eq!(done.into_inner().keys, 2);
    let ring = node.part(SetKind::SessionKeys).await.session_keys;
    assert_eq!(ring[1], first[0], "the newest first");
    assert!(ring[0].seals_from_ms >= first[0].seals_from_ms + 299_000);
    let request = RotateSessionKeysRequest { end_sessions: true };
    let done = security.rotate_session_keys(request).await.unwrap();
    assert_eq!(done.into_inner().keys, 1);
    let ring = node.part(SetKind::SessionKeys).await.session_keys;
    assert_eq!(ring.len(), 1);
    assert_ne!(ring[0].key, first[0].key);
}

#[tokio::test]
async fn the_rest_door_does_the_same() {
    let plane = Plane::start().await;
    let address = plane.running.rest_addr().unwrap();
    let url = |path: &str| format!("http://{address}/api/v1/{path}");
    let http = reqwest::Client::new();
    let body = serde_json::json!({"bearer": TOKEN, "message": "m"});
    let made = http.post(url("revocations")).bearer_auth(&plane.admin);
    let made = made.json(&body).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let text = made.text().await.unwrap();
    assert!(text.contains(&hashed(TOKEN)) && !text.contains(TOKEN));
    let list = http.get(url("revocations")).bearer_auth(&plane.admin);
    let text = list.send().await.unwrap().text().await.unwrap();
    assert!(text.contains(&hashed(TOKEN)), "{text}");
    for (bearer, status) in [
        (TOKEN.to_owned(), 400),
        (hashed(TOKEN), 200),
        (hashed(TOKEN), 404),
    ] {
        let path = url(&format!("revocations/{bearer}"));
        let gone = http.delete(path).bearer_auth(&plane.admin);
        assert_eq!(gone.send().await.unwrap().status(), status, "{bearer}");
    }
    let rotate = http
        .post(url("session-keys/rotate"))
        .bearer_auth(&plane.admin);
    let done = rotate.send().await.unwrap();
    assert_eq!(done.status(), 200);
    let done: serde_json::Value = done.json().await.unwrap();
    assert_eq!(done["keys"], 2);
}

#[tokio::test]
async fn a_revocation_on_one_control_plane_reaches_the_nodes_of_another() {
    let (fleet, a) = Fleet::new().await;
    let b = fleet.join().await;
    let (mut node, _) = b.connect_synced("n1").await;
    a.security().await.revoke(revoke(TOKEN, "")).await.unwrap();
    assert_eq!(node.part(SetKind::Revocations).await.revocations.len(), 1);
    let mut security = b.security().await;
    security.unrevoke(unrevoke(TOKEN, "")).await.unwrap();
    assert!(node.part(SetKind::Revocations).await.revocations.is_empty());
}
