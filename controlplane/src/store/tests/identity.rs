//! The part of the suite about the CA, join tokens and certificates.

use super::*;
use crate::store::{
    AuditRow,
    identity::{Attempt, CaRow, CertificateRow, IdentityStore, JoinTokenRow, RENEWABLE, Turned},
};

fn bytes(text: &str) -> Vec<u8> {
    text.into()
}

fn audit(action: &str) -> AuditRow {
    AuditRow {
        action: action.to_owned(),
        ..AuditRow::default()
    }
}

/// Good from 100 to 200.
fn token(id: &str, node_id: &str) -> JoinTokenRow {
    JoinTokenRow {
        id: id.to_owned(),
        hash: Hash::of(id.as_bytes()),
        node_id: node_id.to_owned(),
        created_ms: 100,
        created_by: "admin".to_owned(),
        expires_ms: 200,
        used_ms: None,
        used_by: String::new(),
        revoked_ms: None,
    }
}

fn attempt(id: &str, node_id: &str, at_ms: u64) -> Attempt {
    Attempt {
        token_id: id.to_owned(),
        hash: Hash::of(id.as_bytes()),
        node_id: node_id.to_owned(),
        at_ms,
    }
}

fn certificate(serial: &str, node_id: &str, issued_ms: u64) -> CertificateRow {
    CertificateRow {
        serial: serial.to_owned(),
        node_id: node_id.to_owned(),
        issued_ms,
        expires_ms: issued_ms + 100,
        revoked_ms: None,
    }
}

async fn add(store: &impl Store, token: JoinTokenRow) {
    let audit = audit("join_token.create");
    store.add_join_token(token, audit).await.unwrap();
}

async fn join(store: &impl Store, attempt: Attempt, serial: &str) -> Result<(), Turned> {
    let certificate = certificate(serial, &attempt.node_id, attempt.at_ms);
    let joined = store.join(attempt, certificate, audit("node.join")).await;
    joined.unwrap()
}

async fn renew(store: &impl Store, serial: &str, next: CertificateRow) -> Result<(), Turned> {
    store.renew(serial.to_owned(), next).await.unwrap()
}

pub(super) async fn a_ca_is_kept_once<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    assert_eq!(store.ca().await.unwrap(), None);
    let ca = |text: &str| CaRow {
        certificate: bytes(text),
        private_key: bytes("sealed"),
    };
    assert_eq!(store.add_ca(ca("a")).await.unwrap(), ca("a"));
    assert_eq!(store.add_ca(ca("b")).await.unwrap(), ca("a"));
    for (was, now) in [("other", "x"), ("sealed", "anew"), ("sealed", "late")] {
        store.reseal_ca(bytes(was), bytes(now)).await.unwrap();
    }
    let kept = store.ca().await.unwrap().unwrap();
    assert_eq!(kept.private_key, b"anew");
}

pub(super) async fn a_join_token_lets_in_once<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    for id in ["t", "late", "revoked"] {
        add(&store, token(id, "")).await;
    }
    let wrong = Attempt {
        hash: Hash::of(b"guessed"),
        ..attempt("t", "n1", 150)
    };
    assert_eq!(join(&store, wrong, "1").await, Err(Turned::Secret));
    let none = join(&store, attempt("none", "n1", 150), "1").await;
    assert_eq!(none, Err(Turned::Unknown));
    let late = join(&store, attempt("late", "n1", 200), "1").await;
    assert_eq!(late, Err(Turned::Expired));
    let revoke = |id: &str, at| store.revoke_join_token(id.to_owned(), at, audit("r"));
    assert!(revoke("revoked", 150).await.unwrap());
    let revoked = join(&store, attempt("revoked", "n1", 150), "1").await;
    assert_eq!(revoked, Err(Turned::Revoked));
    assert_eq!(store.certificate("1".to_owned()).await.unwrap(), None);

    assert_eq!(join(&store, attempt("t", "n1", 150), "1").await, Ok(()));
    let again = join(&store, attempt("t", "n1", 150), "2").await;
    assert_eq!(again, Err(Turned::Used));
    for (id, at) in [("t", 150), ("late", 200), ("revoked", 150), ("none", 150)] {
        assert!(!revoke(id, at).await.unwrap(), "{id}");
    }
    let used = store.join_token("t".to_owned()).await.unwrap().unwrap();
    assert_eq!((used.used_ms, used.used_by.as_str()), (Some(150), "n1"));
    let kept = store.certificate("1".to_owned()).await.unwrap();
    assert_eq!(kept, Some(certificate("1", "n1", 150)));
    let log = store.audit(0, 10).await.unwrap();
    let actions: Vec<_> = log.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(
        actions[..2],
        ["node.join", "r"],
        "what was refused is not there"
    );
}

pub(super) async fn of_two_that_race_with_a_join_token_one_gets_in<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    // For this node: that it has joined by then is no reason to refuse it.
    add(&store, token("t", "n1")).await;
    let serials: Vec<_> = (0..8).map(|n| format!("{n}")).collect();
    let racers = serials
        .iter()
        .map(|serial| join(&store, attempt("t", "n1", 150), serial));
    let outcomes = futures_util::future::join_all(racers).await;
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1, "{outcomes:?}");
    let news = store.identities_since(0, 0).await.unwrap();
    assert_eq!(news.certificates.len(), 1);
}

pub(super) async fn an_id_that_has_joined_is_its_own<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    for (id, node_id) in [("a", ""), ("b", ""), ("c", "n1"), ("d", "n1")] {
        add(&store, token(id, node_id)).await;
    }
    assert_eq!(join(&store, attempt("a", "n1", 150), "1").await, Ok(()));
    let taken = join(&store, attempt("b", "n1", 150), "2").await;
    assert_eq!(taken, Err(Turned::Taken));
    let other = join(&store, attempt("c", "n2", 150), "3").await;
    assert_eq!(other, Err(Turned::OtherNode));
    // Also long after its last certificate was forgotten.
    store.forget_expired(180).await.unwrap();
    store.forget_expired(10_000).await.unwrap();
    assert_eq!(store.certificate("1".to_owned()).await.unwrap(), None);
    assert!(store.join_tokens().await.unwrap().is_empty());
    add(&store, token("b", "")).await;
    let taken = join(&store, attempt("b", "n1", 150), "2").await;
    assert_eq!(taken, Err(Turned::Taken));
    add(&store, token("d", "n1")).await;
    assert_eq!(join(&store, attempt("d", "n1", 150), "4").await, Ok(()));
}

pub(super) async fn a_certificate_is_renewed_until_it_is_revoked<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    for id in ["a", "b"] {
        add(&store, token(id, "")).await;
    }
    join(&store, attempt("a", "n1", 100), "1").await.unwrap();
    join(&store, attempt("b", "n2", 100), "2").await.unwrap();
    let end = 200 + RENEWABLE.as_millis() as u64;
    let last = certificate("3", "n1", end - 1);
    assert_eq!(renew(&store, "1", last).await, Ok(()));
    let late = renew(&store, "1", certificate("4", "n1", end)).await;
    assert_eq!(late, Err(Turned::TooOld));
    let other = renew(&store, "1", certificate("4", "n2", 150)).await;
    assert_eq!(other, Err(Turned::OtherNode));
    let none = renew(&store, "none", certificate("4", "n1", 150)).await;
    assert_eq!(none, Err(Turned::NoCertificate));

    let revoke = |id: &str| store.revoke_node(id.to_owned(), end, audit("node.revoke"));
    assert_eq!(revoke("n3").await.unwrap(), None);
    assert_eq!(
        revoke("n1").await.unwrap(),
        Some(1),
        "the other had expired"
    );
    assert_eq!(revoke("n1").await.unwrap(), Some(0));
    for serial in ["1", "3"] {
        let revoked = renew(&store, serial, certificate("4", "n1", end)).await;
        assert_eq!(revoked, Err(Turned::Revoked), "{serial}");
    }
    assert_eq!(
        renew(&store, "2", certificate("5", "n2", 150)).await,
        Ok(())
    );
}

pub(super) async fn who_knows_a_number_reads_only_what_came_after<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    for id in ["a", "b"] {
        add(&store, token(id, "")).await;
    }
    join(&store, attempt("a", "n1", 100), "1").await.unwrap();
    join(&store, attempt("b", "n2", 150), "2").await.unwrap();
    let all = store.identities_since(0, 220).await.unwrap();
    assert_eq!(
        all.certificates,
        [certificate("2", "n2", 150)],
        "1 has expired"
    );
    let mut joined = all.joined.clone();
    joined.sort();
    assert_eq!(joined, ["n1", "n2"]);
    let none = store.identities_since(all.version, 220).await.unwrap();
    assert_eq!((none.version, none.certificates.len()), (all.version, 0));

    let revoke = store.revoke_node("n1".to_owned(), 220, audit("node.revoke"));
    revoke.await.unwrap();
    renew(&store, "2", certificate("3", "n2", 160))
        .await
        .unwrap();
    let news = store.identities_since(all.version, 220).await.unwrap();
    let mut serials: Vec<_> = news
        .certificates
        .iter()
        .map(|c| c.serial.as_str())
        .collect();
    serials.sort_unstable();
    assert_eq!(serials, ["1", "3"]);
    assert!(news.version > all.version && news.joined.is_empty());
    let all = store.identities_since(0, 220).await.unwrap();
    assert_eq!(all.certificates.len(), 3, "also the one that is revoked");
}
