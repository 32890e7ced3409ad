//! The part of the suite about revisions, the audit log and tokens of the API.

use super::*;
use crate::{
    api::auth::Access,
    store::{ApiTokenRow, AuditRow},
};

pub(super) async fn a_revision_is_found_with_what_it_changed<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    commit(&store, vec![created("a", "a1"), created("b", "b1")]).await;
    commit(&store, vec![configured("a", "a2"), deleted("b")]).await;
    assert_eq!(store.revision(2).await.unwrap(), Some(revision(2)));
    for number in [0, 3, u64::MAX] {
        assert_eq!(store.revision(number).await.unwrap(), None, "{number}");
        assert!(store.changes_of(number).await.unwrap().is_empty());
    }
    let mut changes = store.changes_of(2).await.unwrap();
    changes.sort();
    let expected = [
        (key("a"), v1::Action::Configured),
        (key("b"), v1::Action::Deleted),
    ];
    assert_eq!(changes, expected);
}

pub(super) async fn revisions_of_projects_are_counted_without_the_others<F: Fixture>(
    folder: &Path,
) {
    let store = F::open(folder).await.unwrap();
    let of = |project: &str, name: &str| ChangeRow {
        key: Key::new(project, Kind::Backend, name),
        ..created(name, name)
    };
    commit(&store, vec![of("a", "x"), of("b", "x"), of("b", "y")]).await;
    commit(&store, vec![of("b", "z")]).await;
    commit(&store, vec![of("c", "x"), of("a", "y")]).await;
    let own = ["a".to_owned(), "c".to_owned()];
    let counts = |rows: Vec<RevisionRow>| -> Vec<_> {
        let counts = |r: RevisionRow| (r.number, r.created, r.configured, r.deleted);
        rows.into_iter().map(counts).collect()
    };
    let found = store.revisions_of(own.to_vec(), 10).await.unwrap();
    assert_eq!(found[0].message, "change 3");
    assert_eq!(counts(found), [(3, 2, 0, 0), (1, 1, 0, 0)]);
    let found = store.revisions_of(own.to_vec(), 1).await.unwrap();
    assert_eq!(counts(found), [(3, 2, 0, 0)]);
    let none = store.revisions_of(vec!["other".to_owned()], 10).await;
    assert!(none.unwrap().is_empty());
}

fn audit(n: u64) -> AuditRow {
    let change = v1::AuditChange {
        key: Some(key("a").to_wire()),
        action: v1::Action::Created.into(),
        new_hash: "00".to_owned(),
        ..Default::default()
    };
    AuditRow {
        id: 0,
        at_ms: n,
        author: "\u{fc}ber".to_owned(),
        peer: "127.0.0.1:1".to_owned(),
        action: "apply".to_owned(),
        message: format!("change {n}"),
        revision: n,
        rolled_back_to: 1,
        token: "t".to_owned(),
        changes: vec![change],
    }
}

pub(super) async fn an_audit_entry_is_kept_only_with_its_write<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    for number in 1..=3 {
        let mut dropped = store.write().await.unwrap();
        dropped.record(audit(99)).await.unwrap();
        drop(dropped);
        let mut write = store.write().await.unwrap();
        write.record(audit(number)).await.unwrap();
        let change = created(&format!("b{number}"), "x");
        write.commit(revision(number), vec![change]).await.unwrap();
    }
    let all = store.audit(0, 10).await.unwrap();
    let numbers = |rows: &[AuditRow]| rows.iter().map(|row| row.at_ms).collect::<Vec<_>>();
    assert_eq!(numbers(&all), [3, 2, 1], "newest first");
    let id = all[0].id;
    assert_eq!(all[0], AuditRow { id, ..audit(3) });
    assert!(all[0].id > all[1].id && all[2].id > 0);
    assert_eq!(numbers(&store.audit(0, 2).await.unwrap()), [3, 2]);
    assert_eq!(numbers(&store.audit(all[1].id, 5).await.unwrap()), [1]);
}

fn api_token(id: &str, name: &str) -> ApiTokenRow {
    ApiTokenRow {
        id: id.to_owned(),
        name: name.to_owned(),
        access: Access::Editor,
        projects: vec!["a".to_owned(), "b".to_owned()],
        hash: Hash::of(id.as_bytes()),
        created_ms: 100,
        created_by: "admin".to_owned(),
        expires_ms: Some(200),
        revoked_ms: None,
    }
}

pub(super) async fn a_token_of_the_api_has_its_name_alone_until_it_is_void<F: Fixture>(
    folder: &Path,
) {
    let store = F::open(folder).await.unwrap();
    let put = |token| store.put_api_token(token, audit(1));
    assert!(put(api_token("1", "ci")).await.unwrap());
    assert!(!put(api_token("2", "ci")).await.unwrap(), "it is good");
    let later = |id| ApiTokenRow {
        created_ms: 200,
        expires_ms: None,
        ..api_token(id, "ci")
    };
    assert!(put(later("3")).await.unwrap(), "it has expired");
    assert!(!put(later("4")).await.unwrap());
    let revoke = |id: &str, at| store.revoke_api_token(id.to_owned(), at, audit(2));
    assert!(revoke("3", 300).await.unwrap());
    for id in ["3", "1", "none"] {
        assert!(!revoke(id, 400).await.unwrap(), "{id}");
    }
    assert!(put(later("5")).await.unwrap(), "it is revoked");
    assert!(put(api_token("6", "a")).await.unwrap());

    let revoked = |row, at| ApiTokenRow {
        revoked_ms: Some(at),
        ..row
    };
    let expected = [
        api_token("6", "a"),
        revoked(api_token("1", "ci"), 200),
        revoked(later("3"), 300),
        later("5"),
    ];
    assert_eq!(store.api_tokens().await.unwrap(), expected);
    let logged = store.audit(0, 10).await.unwrap();
    assert_eq!(logged.len(), 5, "what was not written is not logged");
}
