//! Secrets over the API and to the nodes: values go in, and come out on the stream
//! only.

use fleet_proto::v1::{
    AuditRequest, AuditResponse, DeleteRequest, GetRequest, RollbackRequest, Secret, SetAck,
    SetKind, SetPart, SetVersion, ValidateRequest,
};
use tonic::Code;

use super::{
    shared::{Fleet, until_revision},
    *,
};

/// What must be nowhere but on the stream.
const PLAIN: &str = "pl4in-value";
const OTHER: &str = "0ther-value";

fn secret(name: &str, value: &str, backends: &[&str]) -> Resource {
    let secret = Secret {
        name: name.to_owned(),
        value: value.to_owned(),
        backends: backends.iter().map(ToString::to_string).collect(),
        ..Secret::default()
    };
    Resource {
        kind: Some(resource::Kind::Secret(secret)),
    }
}

/// A backend that sends the secret of this name.
fn user(name: &str, secret: &str) -> Resource {
    let mut resource = backend(name);
    if let Some(resource::Kind::Backend(backend)) = &mut resource.kind
        && let Some(backend::Transport::Http(http)) = &mut backend.transport
    {
        http.bearer_token = format!("${{secret:{secret}}}");
    }
    resource
}

impl Plane {
    async fn write(&self, resources: Vec<Resource>) -> ApplyResponse {
        self.try_write(apply(resources)).await.unwrap()
    }

    async fn try_write(&self, request: ApplyRequest) -> Result<ApplyResponse, Status> {
        let answer = self.client().await.apply(request).await?;
        Ok(answer.into_inner())
    }

    async fn audit(&self) -> AuditResponse {
        let answer = self.client().await.audit(AuditRequest::default()).await;
        answer.unwrap().into_inner()
    }
}

fn values(part: &SetPart) -> Vec<(&str, &str)> {
    assert!(part.last && part.number == 0);
    let values = part.secrets.iter();
    values
        .map(|value| (value.name.as_str(), value.value.as_str()))
        .collect()
}

async fn ack(node: &FakeNode, part: &SetPart, error: &str) {
    node.say(FromNode::SetAck(SetAck {
        version: part.version.clone(),
        error: error.to_owned(),
        degraded: Vec::new(),
    }))
    .await;
}

fn version_of(node: &Node, kind: SetKind) -> u64 {
    let found = node.sets.iter().find(|version| version.set() == kind);
    found.map_or(0, |version| version.version)
}

#[tokio::test]
async fn a_value_goes_in_and_never_comes_out() {
    let plane = Plane::start().await;
    let written = plane
        .write(vec![secret("token", PLAIN, &["a"]), user("a", "token")])
        .await;
    assert_eq!((written.revision, written.secrets_version), (1, 1));
    let again = plane.write(vec![secret("token", PLAIN, &["a"])]).await;
    assert_eq!((again.revision, again.secrets_version), (1, 0));
    assert_eq!(again.changes[0].action(), Action::Unchanged);
    let kept = plane.write(vec![secret("token", "", &["a"])]).await;
    assert_eq!(kept.changes[0].action(), Action::Unchanged);

    let expect = |expect_revision| ApplyRequest {
        expect_revision,
        message: "rotated".to_owned(),
        ..apply(vec![secret("token", OTHER, &["a"])])
    };
    let stale = plane.try_write(expect(Some(7))).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    let dry = ApplyRequest {
        dry_run: true,
        ..expect(Some(1))
    };
    let dry = plane.try_write(dry).await.unwrap();
    assert_eq!(dry.changes[0].action(), Action::Configured);
    let done = plane.try_write(expect(Some(1))).await.unwrap();
    assert_eq!((done.revision, done.changed), (1, false));
    assert_eq!(done.secrets_version, 2, "the dry run has written nothing");
    assert_eq!(done.changes[0].action(), Action::Configured);

    let entry = plane.audit().await.entries.remove(0);
    assert_eq!((entry.action.as_str(), entry.revision), ("apply", 0));
    assert_eq!(entry.message, "rotated");
    let change = &entry.changes[0];
    assert_eq!(change.fields, ["value"]);
    assert!(change.old_hash.is_empty() && change.new_hash.is_empty());

    let get = GetRequest {
        key: Some(wire_key(Kind::Secret, "token")),
    };
    let got = plane.client().await.get(get).await.unwrap().into_inner();
    let shown = serde_json::to_string(&got).unwrap();
    assert!(shown.contains("\"backends\":[\"a\"]"), "{shown}");
    let address = plane.running.rest_addr().unwrap();
    let mut answers = vec![
        shown,
        serde_json::to_string(&plane.list().await).unwrap(),
        serde_json::to_string(&plane.audit().await).unwrap(),
        serde_json::to_string(&plane.revisions().await).unwrap(),
    ];
    for path in [
        "secrets",
        "secrets/token",
        "resources",
        "audit",
        "revisions/1?resources=true",
    ] {
        let request = reqwest::Client::new().get(format!("http://{address}/api/v1/{path}"));
        let answer = request.bearer_auth(&plane.admin).send().await.unwrap();
        answers.push(answer.text().await.unwrap());
    }
    for file in std::fs::read_dir(plane.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        answers.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    let holds = |what| answers.iter().any(|answer| answer.contains(what));
    assert!(holds("token") && !holds(PLAIN) && !holds(OTHER));
}

#[tokio::test]
async fn a_write_over_rest_that_is_no_text_is_refused_without_showing_it() {
    let plane = Plane::start().await;
    let address = plane.running.rest_addr().unwrap();
    let url = format!("http://{address}/api/v1/secrets/token");
    for body in [
        r#"{"value": 424242, "backends": ["a"]}"#,
        r#"{"value": "x", "backends": "424242"}"#,
        r#""424242""#,
    ] {
        let request = reqwest::Client::new().put(&url).bearer_auth(&plane.admin);
        let request = request
            .header("content-type", "application/json")
            .body(body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 400);
        let text = answer.text().await.unwrap();
        assert!(
            !text.contains("424242") && text.contains("it is not"),
            "{text}"
        );
    }
    let put = reqwest::Client::new().put(&url).bearer_auth(&plane.admin);
    let put = put.json(&serde_json::json!({"value": PLAIN, "backends": ["a"]}));
    let made = put.send().await.unwrap();
    assert_eq!(made.status(), 201);
    assert!(!made.text().await.unwrap().contains(PLAIN));
}

#[tokio::test]
async fn what_no_secret_can_be_is_refused_with_its_place() {
    let plane = Plane::start().await;
    let refused = plane.try_write(apply(vec![secret("s", "", &["a"])])).await;
    let problem = problems(&refused.unwrap_err()).remove(0);
    assert_eq!(problem.path, "value");
    assert!(problem.message.contains("a new Secret needs a value"));
    let long = "long".repeat(20_000);
    let refused = plane
        .try_write(apply(vec![secret("s", &long, &["a"])]))
        .await;
    let status = refused.unwrap_err();
    let shown = format!("{status:?} {:?}", problems(&status));
    assert!(shown.contains("at most 65536"), "{shown}");
    assert!(!shown.contains("longlong"));
    assert_eq!(problems(&status).len(), 1, "{shown}");

    let not_listed = vec![secret("s", PLAIN, &["a"]), user("b", "s")];
    let validate = ValidateRequest {
        resources: not_listed.clone(),
    };
    let found = plane.client().await.validate(validate).await.unwrap();
    let found = found.into_inner().problems;
    assert!(
        found[0].message.contains("does not list backend b"),
        "{found:?}"
    );
    let refused = plane.try_write(apply(not_listed)).await.unwrap_err();
    assert!(refused.message().contains("does not list backend b"));
    let validate = ValidateRequest {
        resources: vec![secret("s", "", &["a"])],
    };
    let found = plane.client().await.validate(validate).await.unwrap();
    assert_eq!(found.into_inner().problems[0].path, "value");
    assert!(plane.list().await.resources.is_empty());
}

#[tokio::test]
async fn a_removed_secret_takes_its_value_along() {
    let plane = Plane::start().await;
    plane.write(vec![secret("s", PLAIN, &["a"])]).await;
    let delete = DeleteRequest {
        keys: vec![wire_key(Kind::Secret, "s")],
        ..DeleteRequest::default()
    };
    plane.client().await.delete(delete).await.unwrap();
    let refused = plane.try_write(apply(vec![secret("s", "", &["a"])])).await;
    assert!(refused.unwrap_err().message().contains("needs a value"));
    let plane = plane.restart().await;
    let refused = plane.try_write(apply(vec![secret("s", "", &["a"])])).await;
    assert!(refused.unwrap_err().message().contains("needs a value"));
}

#[tokio::test]
async fn a_rollback_leaves_secrets_as_they_are() {
    let plane = Plane::start().await;
    plane
        .write(vec![secret("s", PLAIN, &["a", "b"]), user("a", "s")])
        .await;
    plane
        .write(vec![
            secret("s", OTHER, &["a"]),
            secret("new", PLAIN, &["c"]),
        ])
        .await;
    plane.write(vec![user("a", "s"), backend("c")]).await;
    let rollback = |revision| RollbackRequest {
        revision,
        ..RollbackRequest::default()
    };
    let mut client = plane.client().await;
    let done = client.rollback(rollback(1)).await.unwrap().into_inner();
    assert_eq!(done.secrets_version, 0);
    let changed = actions(&done.changes);
    assert_eq!(changed, [("c".to_owned(), Action::Deleted)]);
    let resources = plane.list().await.resources;
    let lists: Vec<_> = resources
        .iter()
        .filter_map(|resource| match &resource.kind {
            Some(resource::Kind::Secret(secret)) => {
                Some((secret.name.as_str(), &secret.backends[..]))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        lists,
        [("new", &["c".to_owned()][..]), ("s", &["a".to_owned()])]
    );
    let mut node = plane.connect(hello("n1")).await;
    assert_eq!(values(&node.part(SetKind::Secrets).await), [("s", OTHER)]);

    let delete = vec![Kind::Backend, Kind::Secret]
        .into_iter()
        .zip(["a", "s"]);
    let delete = DeleteRequest {
        keys: delete.map(|(kind, name)| wire_key(kind, name)).collect(),
        ..DeleteRequest::default()
    };
    client.delete(delete).await.unwrap();
    let refused = client.rollback(rollback(1)).await.unwrap_err();
    assert!(
        refused.message().contains("there is no Secret s"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_node_has_the_values_before_the_revision_that_names_them() {
    let plane = Plane::start().await;
    plane
        .write(vec![
            secret("s", PLAIN, &["*"]),
            secret("unused", OTHER, &["*"]),
        ])
        .await;
    let (mut node, _) = plane.connect_synced("n1").await;
    let keys = node.part(SetKind::SessionKeys).await;
    assert_eq!(keys.session_keys.len(), 1);
    ack(&node, &keys, "").await;
    assert!(values(&node.part(SetKind::Secrets).await).is_empty());
    assert!(node.parts.is_empty(), "there are no revocations");

    plane.write(vec![user("a", "s")]).await;
    // `next` keeps parts: what has come before the begin is there then.
    let set = node.set().await;
    let part = node.parts.remove(0);
    assert_eq!(values(&part), [("s", PLAIN)]);
    node.ack(&set).await;
    ack(&node, &part, "").await;
    plane
        .until(|nodes| {
            let node = super::node(nodes, "n1");
            version_of(node, SetKind::Secrets) == 1 && version_of(node, SetKind::SessionKeys) == 1
        })
        .await;

    let done = plane.write(vec![secret("s", OTHER, &["*"])]).await;
    assert!(!done.changed);
    let part = node.part(SetKind::Secrets).await;
    assert_eq!(values(&part), [("s", OTHER)]);
    assert_eq!(part.version.as_ref().unwrap().version, done.secrets_version);
    ack(&node, &part, "no room").await;
    let seen = plane
        .until(|nodes| !super::node(nodes, "n1").degraded.is_empty())
        .await;
    let seen = super::node(&seen, "n1");
    assert_eq!(version_of(seen, SetKind::Secrets), 1);
    assert!(seen.degraded[0].message.contains("no room"));
    assert_eq!(seen.degraded[0].path, "secrets");
}

#[tokio::test]
async fn a_node_that_has_everything_gets_nothing_and_one_of_another_database_all() {
    let plane = Plane::start().await;
    plane
        .write(vec![secret("s", PLAIN, &["*"]), user("a", "s")])
        .await;
    let (mut node, set) = plane.connect_synced("n1").await;
    let sets: Vec<SetVersion> = node
        .parts
        .drain(..)
        .map(|part| part.version.unwrap())
        .collect();
    assert_eq!(sets.len(), 2);
    let hello = Hello {
        sets: sets.clone(),
        ..hello_serving("n2", &set)
    };
    let mut same = plane.connect(hello).await;
    same.nothing_comes().await;
    plane.apply(vec![backend("b")]).await;
    same.set().await;
    assert!(same.parts.is_empty(), "{:?}", same.parts);

    let mut foreign = sets;
    foreign[0].tag[0] ^= 1;
    foreign.push(SetVersion {
        set: SetKind::Revocations.into(),
        version: 9,
        tag: vec![1],
    });
    let hello = Hello {
        sets: foreign,
        ..hello_serving("n3", &set)
    };
    let mut other = plane.connect(hello).await;
    assert_eq!(values(&other.part(SetKind::Secrets).await), [("s", PLAIN)]);
    let revocations = other.part(SetKind::Revocations).await;
    assert_eq!(revocations.version.unwrap().version, 0);
    assert!(revocations.revocations.is_empty());
}

#[tokio::test]
async fn what_one_control_plane_writes_the_others_push() {
    let (fleet, a) = Fleet::new().await;
    let b = fleet.join().await;
    let (mut node, _) = b.connect_synced("n1").await;
    let ring = node.part(SetKind::SessionKeys).await.session_keys;
    a.write(vec![secret("s", PLAIN, &["*"]), user("a", "s")])
        .await;
    let set = node.set().await;
    assert_eq!(set.revision(), 1);
    // The set may have come alone first, when no revision named its secret.
    assert_eq!(values(node.parts.last().unwrap()), [("s", PLAIN)]);
    node.parts.clear();
    node.ack(&set).await;
    a.write(vec![secret("s", OTHER, &["*"])]).await;
    let part = node.part(SetKind::Secrets).await;
    assert_eq!(values(&part), [("s", OTHER)]);
    ack(&node, &part, "").await;
    a.until(|nodes| version_of(super::node(nodes, "n1"), SetKind::Secrets) == 2)
        .await;

    // And the one without the values in memory writes on.
    let kept = b.write(vec![secret("s", OTHER, &["a"])]).await;
    assert_eq!((kept.revision, kept.secrets_version), (2, 0));
    let again = b.write(vec![secret("s", PLAIN, &["a"])]).await;
    assert_eq!(again.secrets_version, 3);
    until_revision(&a, 2).await;
    let mut node = a.connect(hello("n2")).await;
    assert_eq!(node.part(SetKind::SessionKeys).await.session_keys, ring);
}
