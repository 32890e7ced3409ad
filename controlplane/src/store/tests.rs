//! What every store must do. Each test is generic over the store; `suite!` runs
//! them all on one kind of it.

use std::{future::Future, path::Path};

use fleet_proto::{
    hash::{Hash, root_hash},
    key::{Key, Kind},
    v1,
};
use fleet_tests::postgres::cluster;

use super::{
    ChangeRow, NodeRow, ResourceRow, RevisionRow, Store, StoreError, Stored, TokenRow,
    postgres::Postgres, shared::NodeChange, sqlite::Sqlite,
};
use crate::{api::auth::Role, settings::Database};

mod history;
mod identity;
mod postgres;
mod sets;

use history::{
    a_revision_is_found_with_what_it_changed,
    a_token_of_the_api_has_its_name_alone_until_it_is_void,
    an_audit_entry_is_kept_only_with_its_write,
    revisions_of_projects_are_counted_without_the_others,
};

use identity::{
    a_ca_is_kept_once, a_certificate_is_renewed_until_it_is_revoked, a_join_token_lets_in_once,
    an_id_that_has_joined_is_its_own, of_two_that_race_with_a_join_token_one_gets_in,
    who_knows_a_number_reads_only_what_came_after,
};
use sets::{
    a_dropped_write_leaves_the_sets_as_they_are, sets_are_written_replaced_and_removed,
    sets_change_together_with_a_revision,
};

/// Opens the store of a folder, again and again the same one.
trait Fixture {
    type Store: Store;
    fn open(folder: &Path) -> impl Future<Output = Result<Self::Store, StoreError>>;
}

struct OnSqlite;

impl Fixture for OnSqlite {
    type Store = Sqlite;
    async fn open(folder: &Path) -> Result<Sqlite, StoreError> {
        Sqlite::open(&folder.join("fleet.db")).await
    }
}

struct OnPostgres;

impl Fixture for OnPostgres {
    type Store = Postgres;
    async fn open(folder: &Path) -> Result<Postgres, StoreError> {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let url = cluster().database(name).await.unwrap();
        let Database::Postgres(database) = url.parse().unwrap() else {
            panic!("{url} is not a Postgres URL");
        };
        Postgres::open(&database).await
    }
}

fn key(name: &str) -> Key {
    Key::new("", Kind::Backend, name)
}

fn created(name: &str, body: &str) -> ChangeRow {
    let hash = Hash::of(body.as_bytes());
    ChangeRow {
        key: key(name),
        change: Stored::Created {
            body: body.into(),
            hash,
        },
    }
}

fn configured(name: &str, body: &str) -> ChangeRow {
    let hash = Hash::of(body.as_bytes());
    ChangeRow {
        key: key(name),
        change: Stored::Configured {
            body: body.into(),
            hash,
        },
    }
}

fn deleted(name: &str) -> ChangeRow {
    ChangeRow {
        key: key(name),
        change: Stored::Deleted,
    }
}

fn row(name: &str, body: &str) -> ResourceRow {
    ResourceRow {
        key: key(name),
        body: body.into(),
    }
}

fn revision(number: u64) -> RevisionRow {
    RevisionRow {
        number,
        root_hash: Hash::of(&number.to_be_bytes()),
        created_ms: 1000 + number,
        author: "admin".to_owned(),
        message: format!("change {number}"),
        created: 1,
        configured: 2,
        deleted: 3,
    }
}

async fn commit(store: &impl Store, changes: Vec<ChangeRow>) -> u64 {
    let write = store.write().await.unwrap();
    let number = write.head().revision + 1;
    write.commit(revision(number), changes).await.unwrap();
    number
}

async fn current(store: &impl Store) -> Vec<ResourceRow> {
    sorted(store.write().await.unwrap().resources().await.unwrap())
}

fn sorted(mut rows: Vec<ResourceRow>) -> Vec<ResourceRow> {
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}

async fn a_new_store_is_empty_at_revision_0<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    let write = store.write().await.unwrap();
    assert_eq!(
        (write.head().revision, write.head().root_hash),
        (0, root_hash([]))
    );
    assert_eq!(write.head().lineage.len(), 36);
    drop(write);
    assert!(current(&store).await.is_empty() && store.revisions(10).await.unwrap().is_empty());
}

async fn any_revision_can_be_rebuilt<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    commit(&store, vec![created("a", "a1"), created("b", "b1")]).await;
    commit(
        &store,
        vec![configured("a", "a2"), deleted("b"), created("c", "c2")],
    )
    .await;
    commit(&store, vec![created("b", "b3"), deleted("c")]).await;
    let expected = [
        vec![],
        vec![row("a", "a1"), row("b", "b1")],
        vec![row("a", "a2"), row("c", "c2")],
        vec![row("a", "a2"), row("b", "b3")],
    ];
    for (number, expected) in expected.iter().enumerate() {
        assert_eq!(
            &sorted(store.resources_at(number as u64).await.unwrap()),
            expected,
            "{number}"
        );
    }
    assert_eq!(current(&store).await, expected[3]);
}

async fn a_large_commit_is_stored_whole<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    let names: Vec<_> = (0..1203).map(|n| format!("b{n:04}")).collect();
    commit(
        &store,
        names.iter().map(|name| created(name, name)).collect(),
    )
    .await;
    assert_eq!(
        current(&store).await,
        names.iter().map(|n| row(n, n)).collect::<Vec<_>>()
    );
    commit(&store, names.iter().map(|name| deleted(name)).collect()).await;
    assert!(current(&store).await.is_empty());
}

async fn a_dropped_write_changes_nothing<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    commit(&store, vec![created("a", "a1")]).await;
    let mut write = store.write().await.unwrap();
    write.resources().await.unwrap();
    drop(write);
    let write = store.write().await.unwrap();
    // A revision whose number is taken fails half-way: nothing of it stays.
    write
        .commit(revision(1), vec![created("z", "z")])
        .await
        .unwrap_err();
    assert_eq!(current(&store).await, [row("a", "a1")]);
    assert_eq!(commit(&store, vec![configured("a", "a2")]).await, 2);
}

async fn writers_take_turns<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    let writers = (0..20).map(|n| commit_one(&store, n));
    let mut numbers = futures_util::future::join_all(writers).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

async fn commit_one(store: &impl Store, n: u32) -> u64 {
    commit(store, vec![created(&format!("b{n}"), "x")]).await
}

async fn revisions_are_listed_newest_first<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    for n in 0..3 {
        commit_one(&store, n).await;
    }
    assert_eq!(
        store.revisions(2).await.unwrap(),
        [revision(3), revision(2)]
    );
}

async fn everything_survives_a_restart<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    commit(&store, vec![created("a", "a1")]).await;
    let head = store.write().await.unwrap().head().clone();
    store.put_token(token(Role::Node, "up", 1)).await.unwrap();
    store.save_nodes(vec![here("n1")], vec![]).await.unwrap();
    store.close().await;

    let store = F::open(folder).await.unwrap();
    assert_eq!(store.write().await.unwrap().head(), &head);
    assert_eq!(current(&store).await, [row("a", "a1")]);
    assert_eq!(store.tokens().await.unwrap(), [token(Role::Node, "up", 1)]);
    assert_eq!(store.nodes().await.unwrap(), [node("n1")]);
}

fn token(role: Role, label: &str, seed: u8) -> TokenRow {
    TokenRow {
        role,
        label: label.to_owned(),
        hash: Hash::of(&[seed]),
        created_ms: seed.into(),
    }
}

async fn a_token_is_replaced_by_one_of_its_role_and_label<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    for row in [
        token(Role::Admin, "up", 1),
        token(Role::Node, "up", 2),
        token(Role::Admin, "up", 3),
    ] {
        store.put_token(row).await.unwrap();
    }
    let expected = [token(Role::Admin, "up", 3), token(Role::Node, "up", 2)];
    assert_eq!(store.tokens().await.unwrap(), expected);
    store.remove_token(Role::Admin, "up").await.unwrap();
    store.remove_token(Role::Node, "other").await.unwrap();
    assert_eq!(store.tokens().await.unwrap(), expected[1..]);
}

async fn a_token_is_added_only_where_there_is_none<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    let (first, second) = (token(Role::Node, "up", 1), token(Role::Node, "up", 2));
    assert!(store.add_token(first.clone()).await.unwrap());
    assert!(!store.add_token(second).await.unwrap());
    assert_eq!(store.tokens().await.unwrap(), [first]);
}

fn node(id: &str) -> NodeRow {
    let problem = v1::Problem {
        key: Some(key("a").to_wire()),
        path: "http.url".to_owned(),
        message: "\u{fc}ber".to_owned(),
    };
    NodeRow {
        node_id: id.to_owned(),
        boot_id: "boot".to_owned(),
        version: "0.1.0".to_owned(),
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        revision: 7,
        root_hash: Some(Hash::of(b"acked")),
        nacked_revision: 8,
        nacked_root: Some(Hash::of(b"nacked")),
        errors: vec![problem.clone()],
        degraded: vec![problem],
        apply_us: 12,
        last_seen_ms: 34,
        sets: vec![sets::version(v1::SetKind::Secrets, 3)],
        set_problems: vec![v1::Problem::default()],
        peer_address: "10.0.0.1:8183".to_owned(),
    }
}

/// A node that has just connected.
fn here(id: &str) -> NodeChange {
    NodeChange {
        row: node(id),
        connected: true,
        since_ms: 1,
    }
}

/// A node that is not connected any more.
fn left(row: NodeRow) -> NodeChange {
    NodeChange {
        row,
        connected: false,
        since_ms: 1,
    }
}

async fn nodes_are_written_replaced_and_removed<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    store
        .save_nodes(vec![here("n2"), here("n1"), here("n3")], vec![])
        .await
        .unwrap();
    let bare = NodeRow {
        node_id: "n2".to_owned(),
        ..NodeRow::default()
    };
    store
        .save_nodes(vec![left(bare.clone())], vec!["n3".to_owned()])
        .await
        .unwrap();
    assert_eq!(store.nodes().await.unwrap(), [node("n1"), bare]);
}

async fn a_check_value_of_the_store_key_is_kept_once<F: Fixture>(folder: &Path) {
    let store = F::open(folder).await.unwrap();
    assert_eq!(store.vault_check().await.unwrap(), None);
    for value in [b"a", b"b"] {
        let kept = store.add_vault_check(value.to_vec()).await.unwrap();
        assert_eq!(kept, b"a", "the first one stays");
    }
    store.put_vault_check(b"c".to_vec()).await.unwrap();
    assert_eq!(store.vault_check().await.unwrap(), Some(b"c".to_vec()));
}

macro_rules! suite {
    ($module:ident, $fixture:ty: $($test:ident),+ $(,)?) => {
        mod $module {
            $(#[tokio::test]
            async fn $test() {
                let folder = tempfile::tempdir().unwrap();
                super::$test::<$fixture>(folder.path()).await;
            })+
        }
    };
}

macro_rules! suites {
    ($($module:ident: $fixture:ty),+ $(,)?) => {
        $(suite!($module, $fixture:
            a_new_store_is_empty_at_revision_0,
            any_revision_can_be_rebuilt,
            a_large_commit_is_stored_whole,
            a_dropped_write_changes_nothing,
            writers_take_turns,
            revisions_are_listed_newest_first,
            everything_survives_a_restart,
            a_token_is_replaced_by_one_of_its_role_and_label,
            a_token_is_added_only_where_there_is_none,
            nodes_are_written_replaced_and_removed,
            a_revision_is_found_with_what_it_changed,
            revisions_of_projects_are_counted_without_the_others,
            an_audit_entry_is_kept_only_with_its_write,
            a_token_of_the_api_has_its_name_alone_until_it_is_void,
            sets_are_written_replaced_and_removed,
            sets_change_together_with_a_revision,
            a_dropped_write_leaves_the_sets_as_they_are,
            a_check_value_of_the_store_key_is_kept_once,
            a_ca_is_kept_once,
            a_join_token_lets_in_once,
            of_two_that_race_with_a_join_token_one_gets_in,
            an_id_that_has_joined_is_its_own,
            a_certificate_is_renewed_until_it_is_revoked,
            who_knows_a_number_reads_only_what_came_after,
        );)+
    };
}

suites!(on_sqlite: super::OnSqlite, on_postgres: super::OnPostgres);

#[tokio::test]
async fn bytes_that_rotted_in_the_file_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let store = OnSqlite::open(folder.path()).await.unwrap();
    let mut change = created("a", "good");
    if let Stored::Created { body, .. } = &mut change.change {
        *body = b"rotten".to_vec();
    }
    commit(&store, vec![change]).await;
    let error = store
        .write()
        .await
        .unwrap()
        .resources()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Backend a") && error.contains("fleet.db"),
        "{error}"
    );
}

#[tokio::test]
async fn the_file_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = OnSqlite::open(folder.path()).await.unwrap();
    commit(&store, vec![created("a", "a")]).await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{entry:?}"
        );
    }
}
