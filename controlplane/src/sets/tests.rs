//! The rules of session keys over days, and what a node is to have.

use std::{path::Path, time::Duration};

use fleet_proto::{
    read::{Documents, read_yaml},
    v1::SetKind,
};

use super::*;
use crate::{publish::Snapshot, store::sqlite::Sqlite};

const HOUR: u64 = Duration::from_hours(1).as_millis() as u64;
const MINUTE: u64 = Duration::from_mins(1).as_millis() as u64;

fn vault(seeds: &[u8]) -> Vault {
    let keys: Vec<_> = seeds.iter().map(|n| Zeroizing::new([*n; 32])).collect();
    Vault::of(&keys)
}

async fn store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(&folder.join("fleet.db")).await.unwrap())
}

async fn open(folder: &Path) -> Sets {
    Sets::open(store(folder).await, vault(&[1])).await.unwrap()
}

fn ring(sets: &Sets) -> Vec<SessionKey> {
    Vec::clone(&sets.current().session_keys.entries)
}

/// The key that seals at a time.
fn seals(ring: &[SessionKey], now: u64) -> &str {
    &ring.iter().find(|key| key.seals_from_ms <= now).unwrap().id
}

#[tokio::test]
async fn the_first_start_makes_a_key_that_seals_at_once_and_the_next_start_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = ring(&open(folder.path()).await);
    assert_eq!(first.len(), 1);
    assert!(first[0].seals_from_ms <= now_ms());
    let sets = open(folder.path()).await;
    assert_eq!(ring(&sets)[0].key, first[0].key);
    assert_eq!(sets.current().session_keys.version.version, 1);
}

#[tokio::test]
async fn a_key_is_replaced_each_day_and_opens_until_no_session_of_it_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let sets = open(folder.path()).await;
    let start = ring(&sets)[0].created_ms;
    let first = ring(&sets)[0].id.clone();
    sets.tend(start + 23 * HOUR).await.unwrap();
    assert_eq!(ring(&sets).len(), 1, "not yet");
    let day = start + 24 * HOUR;
    sets.tend(day).await.unwrap();
    let now = ring(&sets);
    assert_eq!(now.len(), 2);
    assert_eq!(seals(&now, day), first, "every node is to have it first");
    let sealing = day + 5 * MINUTE;
    assert_ne!(seals(&now, sealing), first);
    // A session that it has sealed last lives for 24 hours.
    sets.tend(sealing + 24 * HOUR + 59 * MINUTE).await.unwrap();
    assert!(ring(&sets).iter().any(|key| key.id == first));
    sets.tend(sealing + 25 * HOUR).await.unwrap();
    assert!(ring(&sets).iter().all(|key| key.id != first));
    assert_eq!(
        ring(&sets).len(),
        2,
        "that of the next day and the one before"
    );
}

#[tokio::test]
async fn a_rotation_keeps_all_keys_unless_sessions_are_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let sets = open(folder.path()).await;
    let now = now_ms();
    let before = ring(&sets)[0].id.clone();
    let (version, keys) = sets.rotate(false, AuditRow::default(), now).await.unwrap();
    assert_eq!((version, keys), (2, 2));
    assert_eq!(seals(&ring(&sets), now), before);
    let (version, keys) = sets.rotate(true, AuditRow::default(), now).await.unwrap();
    assert_eq!((version, keys), (3, 1));
    assert_ne!(seals(&ring(&sets), now), before, "it seals at once");
    let mut refused = None;
    for _ in 0..100 {
        if let Err(error) = sets.rotate(false, AuditRow::default(), now).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(SetsError::Keys(64))), "{refused:?}");
}

#[tokio::test]
async fn of_two_control_planes_one_makes_the_key_of_the_day() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let one = Sets::open(Arc::clone(&store), vault(&[1])).await.unwrap();
    let other = Sets::open(store, vault(&[1])).await.unwrap();
    assert_eq!(ring(&one)[0].id, ring(&other)[0].id);
    let day = now_ms() + 25 * HOUR;
    one.tend(day).await.unwrap();
    other.tend(day).await.unwrap();
    let ids = |sets| ring(sets).into_iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids(&one), ids(&other));
    assert_eq!(ids(&one).len(), 2);
}

fn revocation(token: &str, until_ms: u64) -> RevocationRow {
    RevocationRow {
        project: String::new(),
        bearer: fleet_proto::hash::Hash::of(token.as_bytes()),
        created_ms: 1,
        created_by: "admin".to_owned(),
        until_ms,
        message: String::new(),
    }
}

#[tokio::test]
async fn a_revocation_goes_when_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let sets = open(folder.path()).await;
    let now = now_ms();
    for row in [revocation("a", 0), revocation("b", now + HOUR)] {
        sets.revoke(row, AuditRow::default()).await.unwrap();
    }
    sets.tend(now).await.unwrap();
    assert_eq!(sets.current().revocations.entries.len(), 2);
    sets.tend(now + HOUR).await.unwrap();
    let current = sets.current();
    assert_eq!(*current.revocations.entries, [revocation("a", 0)]);
    assert_eq!(current.revocations.version.version, 3);
}

/// Writes values, as a write of configuration does.
async fn put(sets: &Sets, values: &[(&str, &str)]) {
    let mut write = sets.store.write().await.unwrap();
    let mut current = Current::clone(&*sets.base(write.as_mut()).await.unwrap());
    let mut entries = BTreeMap::clone(&current.secrets.entries);
    let mut changes = SetChanges::default();
    for (name, value) in values {
        let name = ("default".to_owned(), (*name).to_owned());
        let value = Value::new((*value).to_owned());
        changes
            .put_values
            .push(sets.seal_value(&name, &value).unwrap());
        entries.insert(name, Arc::new(value));
    }
    current.secrets = Set {
        version: current.secrets.next_version().unwrap(),
        entries: Arc::new(entries),
    };
    changes.versions.push(current.secrets.version.clone());
    write.change_sets(changes).await.unwrap();
    write.finish().await.unwrap();
    sets.publish(&current);
}

fn revision(names: &[&str]) -> Arc<Snapshot> {
    let mut documents = Documents::default();
    for name in names {
        let text = format!(
            "{{ kind: Secret, name: {name}, backends: ['*'] }}\n---\n\
             {{ kind: Backend, name: b-{name}, http: {{ url: 'http://h/', bearer_token: '${{secret:{name}}}' }} }}"
        );
        read_yaml("f", &text, &mut documents);
    }
    Arc::new(Snapshot {
        lineage: "l".into(),
        revision: names.len() as u64,
        resources: documents.check().unwrap().1,
    })
}

fn sent(sets: &Sets, revisions: &[&Arc<Snapshot>]) -> (Vec<String>, Vec<u8>) {
    let wanted = sets.shown().wanted(revisions.iter().copied());
    assert_eq!(wanted.versions()[0].set(), SetKind::Secrets);
    let parts = wanted.parts(0);
    let names = parts.iter().flat_map(|part| &part.secrets);
    let names = names.map(|secret| secret.name.clone()).collect();
    (names, wanted.versions()[0].tag.clone())
}

#[tokio::test]
async fn a_node_gets_the_secrets_that_its_revisions_name_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let sets = open(folder.path()).await;
    put(&sets, &[("a", "1"), ("b", "2"), ("c", "3")]).await;
    let (none, a, ab) = (revision(&[]), revision(&["a"]), revision(&["a", "b"]));
    assert!(sent(&sets, &[&none]).0.is_empty());
    let (names, tag_a) = sent(&sets, &[&a]);
    assert_eq!(names, ["a"]);
    let (names, tag_ab) = sent(&sets, &[&a, &ab]);
    assert_eq!(names, ["a", "b"]);
    assert_ne!(
        tag_a, tag_ab,
        "what is there is told apart without a new version"
    );
    assert_eq!(sent(&sets, &[&ab, &a]).1, tag_ab);
    put(&sets, &[("c", "4")]).await;
    assert_ne!(sent(&sets, &[&a]).1, tag_a);
}

#[tokio::test]
async fn a_new_store_key_seals_everything_anew_and_the_old_one_can_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let old = Sets::open(Arc::clone(&store), vault(&[1])).await.unwrap();
    put(&old, &[("a", "pl4in")]).await;
    let before = store.sets().await.unwrap();
    Sets::open(Arc::clone(&store), vault(&[2, 1]))
        .await
        .unwrap();
    let after = store.sets().await.unwrap();
    assert_eq!(
        after.versions, before.versions,
        "nothing has changed for nodes"
    );
    assert_ne!(after.values[0].sealed, before.values[0].sealed);
    let new = Sets::open(Arc::clone(&store), vault(&[2])).await.unwrap();
    let current = new.current();
    assert_eq!(
        current.secrets.entries.values().next().unwrap().expose(),
        "pl4in"
    );
    assert_eq!(current.session_keys.entries.len(), 1);
    let wrong = Sets::open(store, vault(&[3])).await;
    assert!(matches!(wrong, Err(SetsError::Vault { .. })));
}

#[tokio::test]
async fn a_value_that_was_damaged_or_moved_is_left_out_and_can_be_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let sets = open(folder.path()).await;
    put(&sets, &[("a", "1"), ("b", "2")]).await;
    let mut rows = sets.store.sets().await.unwrap().values;
    let sealed: Vec<_> = rows.iter().map(|row| row.sealed.clone()).collect();
    rows[0].sealed.clone_from(&sealed[1]);
    let mut write = sets.store.write().await.unwrap();
    let moved = rows[0].name.clone();
    let changes = SetChanges {
        put_values: vec![rows.remove(0)],
        ..SetChanges::default()
    };
    write.change_sets(changes).await.unwrap();
    write.finish().await.unwrap();
    let sets = open(folder.path()).await;
    assert_eq!(sets.current().secrets.entries.len(), 1);
    put(&sets, &[(&moved.1, "3")]).await;
    assert_eq!(open(folder.path()).await.current().secrets.entries.len(), 2);
}
