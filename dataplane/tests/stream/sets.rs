//! Secrets, session keys and revocations from a control plane that is played by hand.

use std::path::Path;

use fleet_proto::{
    key::{Key, Kind},
    sets::Entries,
    v1::{
        Revocation, SecretValue, SessionKey, SetAck, SetKind, SetPart, SetVersion, revocation::What,
    },
};
use mcp_dataplane::{auth::revoked::Verdict, call::ProtocolVersion, upstream::Upstream};
use prost::Message;

use super::*;

fn version(kind: SetKind, version: u64) -> SetVersion {
    SetVersion {
        set: kind.into(),
        version,
        tag: vec![version as u8; 16],
    }
}

fn values(values: &[(&str, &str)]) -> Entries {
    let value = |(name, value): &(&str, &str)| SecretValue {
        project: "default".to_owned(),
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    Entries::Secrets(values.iter().map(value).collect())
}

fn keys(seeds: &[u8]) -> Entries {
    let key = |seed: &u8| SessionKey {
        key: vec![*seed; 32],
        seals_from_ms: 0,
    };
    Entries::SessionKeys(seeds.iter().map(key).collect())
}

fn revoked(hashes: &[[u8; 32]]) -> Entries {
    let one = |hash: &[u8; 32]| Revocation {
        what: Some(What::BearerSha256(hash.to_vec())),
        ..Revocation::default()
    };
    Entries::Revocations(hashes.iter().map(one).collect())
}

impl Stream {
    /// Sends a set; what the node says to it.
    async fn set(&mut self, number: u64, entries: Entries) -> SetAck {
        let version = version(entries.kind(), number);
        for part in entries.parts(&version) {
            self.say(Down::SetPart(part)).await;
        }
        let ack = self.set_acked().await;
        assert_eq!(ack.version, Some(version));
        ack
    }

    async fn set_acked(&mut self) -> SetAck {
        match self.hear().await {
            Some(Up::SetAck(ack)) => ack,
            other => panic!("{other:?} instead of the ack of a set"),
        }
    }
}

/// A secret and a backend that names it, if these are there.
fn naming(secrets: &[&str]) -> Valid {
    let mut documents = fleet_proto::read::Documents::default();
    for name in secrets {
        let text = format!(
            "{{ kind: Secret, name: {name}, backends: [b-{name}] }}\n---\n\
             {{ kind: Backend, name: b-{name}, http: {{ url: 'http://127.0.0.1:1/', bearer_token: '${{secret:{name}}}' }} }}"
        );
        fleet_proto::read::read_yaml("f", &text, &mut documents);
    }
    documents.check().unwrap().1
}

fn kept_in(url: String, folder: &Path) -> Settings {
    Settings {
        data_dir: Some(folder.to_owned()),
        ..settings(vec![url])
    }
}

fn is_broken(plane: &DataPlane, name: &str) -> bool {
    let table = plane.node().table.load();
    let backend = table.backend(&Key::new("", Kind::Backend, name)).unwrap();
    matches!(backend.upstream, Upstream::Broken(_))
}

#[tokio::test]
async fn a_set_is_used_whole_or_not_at_all() {
    let (url, mut streams) = scripted().await;
    let plane = node(vec![url]).await;
    let (mut stream, _) = next(&mut streams).await;
    let many = "v".repeat(60_000);
    let all: Vec<_> = ["a", "b", "c", "d", "e", "f"]
        .map(|name| (name, many.as_str()))
        .into();
    let mut parts = values(&all).parts(&version(SetKind::Secrets, 1));
    assert!(parts.len() > 1);
    parts.remove(0);
    for part in parts {
        stream.say(Down::SetPart(part)).await;
    }
    assert_eq!(stream.hear().await, None, "the stream is given up");
    assert!(plane.node().secrets.load().get("default", "f").is_err());
    let (mut stream, hello) = next(&mut streams).await;
    assert!(hello.sets.is_empty());
    assert_eq!(stream.set(1, values(&all)).await.error, "");
    assert!(plane.node().secrets.load().get("default", "a").is_ok());
    drop(stream);
    let (_, hello) = next(&mut streams).await;
    assert_eq!(hello.sets, [version(SetKind::Secrets, 1)]);
    plane.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_taken_is_said_and_revocations_that_cannot_be_let_nobody_in() {
    let (url, mut streams) = scripted().await;
    let plane = node(vec![url]).await;
    let (mut stream, _) = next(&mut streams).await;
    stream.set(1, revoked(&[[7; 32]])).await;
    stream.set(1, keys(&[1])).await;
    let newer = Entries::Revocations(vec![Revocation::default()]);
    assert!(stream.set(2, newer).await.error.contains("upgrade"));
    let short = Entries::SessionKeys(vec![SessionKey::default()]);
    assert!(stream.set(2, short).await.error.contains("32 bytes"));
    assert!(
        stream
            .set(2, keys(&[]))
            .await
            .error
            .contains("no session key")
    );
    let verdict = |seed| plane.node().revoked.load().verdict("p", &[seed; 32]);
    for seed in [7, 8] {
        assert_eq!(verdict(seed), Verdict::Unknown);
    }
    drop(stream);
    let (mut stream, hello) = next(&mut streams).await;
    let mut versions: Vec<_> = hello.sets.iter().map(|set| set.version).collect();
    versions.sort_unstable();
    assert_eq!(
        versions,
        [0, 1],
        "the keys stay, the revocations are asked for"
    );
    assert_eq!(stream.set(3, revoked(&[[7; 32]])).await.error, "");
    assert_eq!((verdict(7), verdict(8)), (Verdict::Revoked, Verdict::Good));
    plane.shutdown().await;
}

#[tokio::test]
async fn a_backend_that_is_not_on_the_list_is_refused_by_the_node_itself() {
    let (url, mut streams) = scripted().await;
    let plane = node(vec![url]).await;
    let (mut stream, _) = next(&mut streams).await;
    stream.set(1, values(&[("s", "pl4in")])).await;
    let other: Mishap = |chunks, _| {
        let mut resources = chunks.iter_mut().flat_map(|chunk| &mut chunk.resources);
        let secret = resources.find(|r| r.key.as_ref().unwrap().kind == "Secret");
        let body = &mut secret.unwrap().body;
        let mut resource = Resource::decode(body.as_slice()).unwrap();
        if let Some(resource::Kind::Secret(secret)) = &mut resource.kind {
            secret.backends = vec!["another".to_owned()];
        }
        *body = resource.encode_to_vec();
    };
    stream
        .send(1, &Delta::snapshot(&naming(&["s"])), other)
        .await;
    match stream.hear().await {
        Some(Up::Nack(nack)) => {
            let told = format!("{:?}", nack.errors);
            assert!(told.contains("does not list backend b-s"), "{told}");
        }
        other => panic!("{other:?} instead of a nack"),
    }
    assert!(!plane.node().is_ready());
    plane.shutdown().await;
}

#[tokio::test]
async fn new_values_mend_and_change_just_the_backends_that_use_them() {
    let (url, mut streams) = scripted().await;
    let plane = node(vec![url]).await;
    let (mut stream, _) = next(&mut streams).await;
    stream.set(1, values(&[("a", "1")])).await;
    let both = naming(&["a", "b"]);
    stream.send(1, &Delta::snapshot(&both), |_, _| {}).await;
    match stream.hear().await {
        Some(Up::Ack(ack)) => {
            assert_eq!(ack.degraded.len(), 1);
            assert!(ack.degraded[0].message.contains("${secret:b}"));
        }
        other => panic!("{other:?} instead of an ack"),
    }
    let serials = || {
        let table = plane.node().table.load();
        ["b-a", "b-b"].map(|name| {
            table
                .backend(&Key::new("", Kind::Backend, name))
                .unwrap()
                .serial
        })
    };
    let before = serials();
    let ack = stream.set(2, values(&[("a", "1"), ("b", "2")])).await;
    assert!(ack.degraded.is_empty() && !is_broken(&plane, "b-b"));
    let mended = serials();
    assert_eq!(mended[0], before[0], "it was left alone");
    assert_ne!(mended[1], before[1]);
    stream.set(3, values(&[("a", "3"), ("b", "2")])).await;
    let rotated = serials();
    assert_eq!((rotated[0] != mended[0], rotated[1]), (true, mended[1]));

    // One that is served is kept until a revision without it is.
    stream.set(4, values(&[("b", "2")])).await;
    assert_eq!(serials(), rotated);
    let only_b = naming(&["b"]);
    stream.send(2, &delta(&both, &only_b), |_, _| {}).await;
    stream.acks(2).await;
    assert!(plane.node().secrets.load().get("default", "a").is_err());
    plane.shutdown().await;
}

fn session(plane: &DataPlane) -> String {
    let sessions = &plane.node().sessions;
    let version = ProtocolVersion::V2025_06_18;
    sessions
        .create("default/g", "p", version, b"{}", b"{}")
        .unwrap()
}

fn knows(plane: &DataPlane, session: &str) -> bool {
    let found = plane.node().sessions.find(session, "default/g", "p");
    found.is_some()
}

#[tokio::test]
async fn the_ring_takes_over_and_one_that_is_all_new_ends_sessions_also_after_a_restart() {
    let (url, mut streams) = scripted().await;
    let folder = tempfile::tempdir().unwrap();
    let start = || mcp_dataplane::start(kept_in(url.clone(), folder.path()));
    let plane = start().await.unwrap();
    let own = session(&plane);
    let (mut stream, _) = next(&mut streams).await;
    stream.set(1, keys(&[1])).await;
    let of_ring = session(&plane);
    assert!(knows(&plane, &own) && knows(&plane, &of_ring));
    stream.set(2, keys(&[2, 1])).await;
    assert!(knows(&plane, &own) && knows(&plane, &of_ring));
    plane.shutdown().await;

    // Without a state key the ring is not kept: its sessions wait for it, the own ones do not.
    let plane = start().await.unwrap();
    assert!(knows(&plane, &own) && !knows(&plane, &of_ring));
    let (mut stream, hello) = next(&mut streams).await;
    assert!(hello.sets.is_empty());
    let key = std::fs::read(folder.path().join("session.key")).unwrap();
    stream.set(3, keys(&[3])).await;
    assert!(!knows(&plane, &own), "it has ended with all others");
    assert_ne!(
        std::fs::read(folder.path().join("session.key")).unwrap(),
        key
    );
    plane.shutdown().await;
}

#[tokio::test]
async fn where_it_cannot_be_told_what_is_revoked_nobody_is_let_in_until_it_can() {
    let (url, mut streams) = scripted().await;
    let folder = tempfile::tempdir().unwrap();
    let start = || mcp_dataplane::start(kept_in(url.clone(), folder.path()));
    let plane = start().await.unwrap();
    let (mut stream, hello) = next(&mut streams).await;
    assert!(hello.sets.is_empty());
    stream.set(1, revoked(&[[7; 32]])).await;
    plane.shutdown().await;
    let verdict = |plane: &DataPlane, seed| plane.node().revoked.load().verdict("p", &[seed; 32]);

    let plane = start().await.unwrap();
    assert_eq!(
        verdict(&plane, 7),
        Verdict::Revoked,
        "before any control plane is reached"
    );
    assert_eq!(verdict(&plane, 8), Verdict::Good);
    // Held, or the node would come again.
    let (_stream, hello) = next(&mut streams).await;
    assert_eq!(hello.sets, [version(SetKind::Revocations, 1)]);
    plane.shutdown().await;

    let file = folder.path().join("revocations");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let plane = start().await.unwrap();
    assert_eq!(verdict(&plane, 8), Verdict::Unknown);
    let (mut stream, hello) = next(&mut streams).await;
    // It asks by a version that there is not: nothing ever revoked has version 0, and no tag.
    assert_eq!(hello.sets.len(), 1);
    assert!(hello.sets[0].version == 0 && !hello.sets[0].tag.is_empty());
    let nothing = SetPart {
        version: Some(SetVersion {
            set: SetKind::Revocations.into(),
            ..SetVersion::default()
        }),
        last: true,
        ..SetPart::default()
    };
    stream.say(Down::SetPart(nothing)).await;
    assert_eq!(stream.set_acked().await.error, "");
    assert_eq!(verdict(&plane, 8), Verdict::Good);
    plane.shutdown().await;
}
