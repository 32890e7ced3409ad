//! Values of Secrets, session keys and revocations.

use std::path::Path;

use fleet_proto::{
    hash::Hash,
    v1::{SetKind, SetVersion},
};

use super::{Fixture, created, current, revision, row};
use crate::store::{
    AuditRow, Store,
    sets::{KINDS, RevocationRow, SessionKeyRow, SetChanges, SetRows, ValueRow},
};

pub(super) fn version(kind: SetKind, version: u64) -> SetVersion {
    SetVersion {
        set: kind.into(),
        version,
        tag: vec![0, 255, version as u8],
    }
}

fn value(name: &str, sealed: &str) -> ValueRow {
    ValueRow {
        name: ("default".to_owned(), name.to_owned()),
        sealed: sealed.into(),
        updated_ms: 1,
    }
}

fn session_key(id: &str, sealed: &str) -> SessionKeyRow {
    SessionKeyRow {
        id: id.to_owned(),
        sealed: sealed.into(),
        created_ms: 2,
        seals_from_ms: 3,
    }
}

fn revocation(project: &str, token: &str, message: &str) -> RevocationRow {
    RevocationRow {
        project: project.to_owned(),
        bearer: Hash::of(token.as_bytes()),
        created_ms: 4,
        created_by: "admin".to_owned(),
        until_ms: 5,
        message: message.to_owned(),
    }
}

fn sorted(mut rows: SetRows) -> SetRows {
    rows.versions.sort_by_key(|version| version.set);
    rows.values.sort_by(|a, b| a.name.cmp(&b.name));
    rows.session_keys.sort_by(|a, b| a.id.cmp(&b.id));
    rows.revocations
        .sort_by_key(|row| (row.project.clone(), row.bearer.0));
    rows
}

async fn change(store: &impl Store, changes: SetChanges) {
    let mut write = store.write().await.unwrap();
    write.change_sets(changes).await.unwrap();
    write.finish().await.unwrap();
}

pub(super) async fn sets_are_written_replaced_and_removed<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    assert_eq!(store.sets().await.unwrap(), SetRows::default());
    change(
        &store,
        SetChanges {
            versions: KINDS.map(|(kind, _)| version(kind, 1)).into(),
            put_values: vec![value("a", "a1"), value("b", "b1")],
            put_session_keys: vec![session_key("k1", "1"), session_key("k2", "2")],
            put_revocations: vec![
                revocation("", "t", "all"),
                revocation("p", "t", "one"),
                revocation("", "u", "all"),
            ],
            ..SetChanges::default()
        },
    )
    .await;
    change(
        &store,
        SetChanges {
            versions: vec![version(SetKind::Secrets, 2)],
            put_values: vec![value("a", "a2")],
            drop_values: vec![value("b", "").name],
            drop_session_keys: vec!["k1".to_owned(), "k0".to_owned()],
            put_revocations: vec![revocation("p", "t", "again")],
            drop_revocations: vec![(String::new(), Hash::of(b"t"))],
            ..SetChanges::default()
        },
    )
    .await;
    let expected = sorted(SetRows {
        versions: vec![
            version(SetKind::Secrets, 2),
            version(SetKind::SessionKeys, 1),
            version(SetKind::Revocations, 1),
        ],
        values: vec![value("a", "a2")],
        session_keys: vec![session_key("k2", "2")],
        revocations: vec![revocation("", "u", "all"), revocation("p", "t", "again")],
    });
    assert_eq!(sorted(store.sets().await.unwrap()), expected);
    let mut write = store.write().await.unwrap();
    assert_eq!(sorted(write.sets().await.unwrap()), expected);
    let versions = SetRows {
        versions: write.set_versions().await.unwrap(),
        ..SetRows::default()
    };
    assert_eq!(sorted(versions).versions, expected.versions);
    drop(write);
    store.close().await;
    let store = F::open(folder).await.unwrap();
    assert_eq!(sorted(store.sets().await.unwrap()), expected);
    assert_eq!(store.set_versions().await.unwrap().len(), 3);
}

pub(super) async fn sets_change_together_with_a_revision<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    let changes = || SetChanges {
        versions: vec![version(SetKind::Secrets, 1)],
        put_values: vec![value("a", "a1")],
        ..SetChanges::default()
    };
    let mut write = store.write().await.unwrap();
    write.change_sets(changes()).await.unwrap();
    write
        .commit(revision(1), vec![created("a", "a")])
        .await
        .unwrap();
    assert_eq!(current(&store).await, [row("a", "a")]);
    assert_eq!(store.sets().await.unwrap().values, [value("a", "a1")]);

    let mut write = store.write().await.unwrap();
    let drop_values = SetChanges {
        drop_values: vec![value("a", "").name],
        ..SetChanges::default()
    };
    write.change_sets(drop_values).await.unwrap();
    // Its number is taken: nothing of the write stays.
    write.commit(revision(1), vec![]).await.unwrap_err();
    assert_eq!(store.sets().await.unwrap().values, [value("a", "a1")]);
}

pub(super) async fn a_dropped_write_leaves_the_sets_as_they_are<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    let mut write = store.write().await.unwrap();
    let changes = SetChanges {
        put_values: vec![value("a", "a1")],
        ..SetChanges::default()
    };
    write.change_sets(changes).await.unwrap();
    write.record(AuditRow::default()).await.unwrap();
    drop(write);
    assert_eq!(store.sets().await.unwrap(), SetRows::default());
    let mut write = store.write().await.unwrap();
    write.record(AuditRow::default()).await.unwrap();
    write.finish().await.unwrap();
    assert_eq!(store.audit(0, 10).await.unwrap().len(), 1);
    assert_eq!(current(&store).await, []);
}
