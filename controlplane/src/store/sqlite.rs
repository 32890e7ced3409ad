//! The store in one SQLite file (WAL): what a laptop and a small fleet use.
//!
//! One connection writes, a few read. Every commit is synced to disk: a
//! revision number that nodes have acked must never be given out again.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use fleet_proto::{
    hash::{self, Hash},
    key::Key,
    v1::{Action, SetVersion},
};
use futures_util::future::BoxFuture;
use sqlx::{
    Row, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use super::{
    ApiTokenRow, AuditRow, NodeRow, ResourceRow, RevisionRow, Store, StoreError, TokenRow, Write,
    sets::SetRows,
    shared::{NodeChange, Saved, Shared},
};
use crate::api::auth::Role;

mod audit;
mod history;
mod identity;
mod rows;
mod sets;
mod vault;
mod write;

/// How long a statement waits for another process (a backup, a shell).
const BUSY: Duration = Duration::from_secs(10);
const READERS: u32 = 3;

/// A SQLite file.
pub(crate) struct Sqlite {
    reader: SqlitePool,
    writer: SqlitePool,
    name: Name,
}

/// The name of the database, for error messages.
#[derive(Clone)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn failed(&self) -> impl Fn(sqlx::Error) -> StoreError + use<> {
        let database = self.0.clone();
        move |source| StoreError::Database {
            database: database.clone(),
            source,
        }
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            database: self.0.clone(),
            what: what.into(),
        }
    }
}

impl Sqlite {
    /// Opens a file, or makes it (readable by its owner only), and brings its
    /// schema up to date.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let name = Name(path.display().to_string());
        // SQLite would make it with the umask, and gives its -wal and -shm
        // files the mode of this one.
        create_private(path).map_err(|e| name.failed()(sqlx::Error::Io(e)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY);
        let pool = |size| {
            let pool = SqlitePoolOptions::new().max_connections(size);
            pool.idle_timeout(None).max_lifetime(None)
        };
        let writer = pool(1)
            .connect_with(options.clone())
            .await
            .map_err(name.failed())?;
        sqlx::migrate!("migrations/sqlite")
            .run(&writer)
            .await
            .map_err(|source| StoreError::Migrate {
                database: name.0.clone(),
                source,
            })?;
        sqlx::query("INSERT INTO head VALUES (1, ?, 0, ?) ON CONFLICT DO NOTHING")
            .bind(uuid::Uuid::new_v4().to_string())
            .bind(hash::root_hash([]).0.to_vec())
            .execute(&writer)
            .await
            .map_err(name.failed())?;
        Ok(Self {
            reader: pool(READERS).connect_lazy_with(options),
            writer,
            name,
        })
    }

    /// Rows of a read-only statement.
    async fn read(&self, query: Statement) -> Result<Vec<SqliteRow>, StoreError> {
        query
            .fetch_all(&self.reader)
            .await
            .map_err(self.name.failed())
    }
}

type Statement = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

impl Store for Sqlite {
    fn write(&self) -> BoxFuture<'_, Result<Box<dyn Write>, StoreError>> {
        Box::pin(async {
            let write = write::Transaction::begin(&self.writer, self.name.clone()).await?;
            Ok(Box::new(write) as Box<dyn Write>)
        })
    }

    fn resources_at(&self, revision: u64) -> BoxFuture<'_, Result<Vec<ResourceRow>, StoreError>> {
        Box::pin(async move {
            // With one MAX() SQLite takes the other columns from the row that holds it.
            let query = sqlx::query(
                "SELECT project, kind, name, body, hash FROM (
                     SELECT project, kind, name, body, NULL AS hash, MAX(revision)
                     FROM revision_changes WHERE revision <= ? GROUP BY project, kind, name
                 ) WHERE body IS NOT NULL",
            );
            let rows = self.read(query.bind(revision as i64)).await?;
            rows.iter()
                .map(|row| rows::resource(row, &self.name))
                .collect()
        })
    }

    fn revisions(&self, limit: u32) -> BoxFuture<'_, Result<Vec<RevisionRow>, StoreError>> {
        Box::pin(async move {
            let query = sqlx::query("SELECT * FROM revisions ORDER BY number DESC LIMIT ?");
            let rows = self.read(query.bind(limit)).await?;
            rows.iter()
                .map(|row| rows::revision(row, &self.name))
                .collect()
        })
    }

    fn revision(&self, number: u64) -> BoxFuture<'_, Result<Option<RevisionRow>, StoreError>> {
        Box::pin(history::revision(self, number))
    }

    fn revisions_of(
        &self,
        projects: Vec<String>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<RevisionRow>, StoreError>> {
        Box::pin(history::revisions_of(self, projects, limit))
    }

    fn changes_of(&self, revision: u64) -> BoxFuture<'_, Result<Vec<(Key, Action)>, StoreError>> {
        Box::pin(history::changes_of(self, revision))
    }

    fn audit(&self, before: u64, limit: u32) -> BoxFuture<'_, Result<Vec<AuditRow>, StoreError>> {
        Box::pin(audit::list(self, before, limit))
    }

    fn api_tokens(&self) -> BoxFuture<'_, Result<Vec<ApiTokenRow>, StoreError>> {
        Box::pin(audit::tokens(self))
    }

    fn put_api_token(
        &self,
        token: ApiTokenRow,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let done = audit::put_token(&self.writer, token, audit).await;
            done.map_err(self.name.failed())
        })
    }

    fn revoke_api_token(
        &self,
        id: String,
        at_ms: u64,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let done = audit::revoke_token(&self.writer, id, at_ms, audit).await;
            done.map_err(self.name.failed())
        })
    }

    fn tokens(&self) -> BoxFuture<'_, Result<Vec<TokenRow>, StoreError>> {
        Box::pin(async {
            let rows = self
                .read(sqlx::query("SELECT * FROM tokens ORDER BY role, label"))
                .await?;
            rows.iter()
                .map(|row| rows::token(row, &self.name))
                .collect()
        })
    }

    fn put_token(&self, token: TokenRow) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            sqlx::query("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?)")
                .bind(token.role.as_str())
                .bind(token.label)
                .bind(token.hash.0.to_vec())
                .bind(token.created_ms as i64)
                .execute(&self.writer)
                .await
                .map_err(self.name.failed())?;
            Ok(())
        })
    }

    fn add_token(&self, token: TokenRow) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let added = sqlx::query("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?, ?)")
                .bind(token.role.as_str())
                .bind(token.label)
                .bind(token.hash.0.to_vec())
                .bind(token.created_ms as i64)
                .execute(&self.writer)
                .await
                .map_err(self.name.failed())?;
            Ok(added.rows_affected() > 0)
        })
    }

    fn remove_token<'a>(
        &'a self,
        role: Role,
        label: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            sqlx::query("DELETE FROM tokens WHERE role = ? AND label = ?")
                .bind(role.as_str())
                .bind(label)
                .execute(&self.writer)
                .await
                .map_err(self.name.failed())?;
            Ok(())
        })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeRow>, StoreError>> {
        Box::pin(async {
            let rows = self
                .read(sqlx::query("SELECT * FROM nodes ORDER BY node_id"))
                .await?;
            rows.iter().map(|row| rows::node(row, &self.name)).collect()
        })
    }

    fn save_nodes(
        &self,
        changed: Vec<NodeChange>,
        gone: Vec<String>,
    ) -> BoxFuture<'_, Result<Saved, StoreError>> {
        Box::pin(async move {
            let rows = changed.into_iter().map(|change| change.row).collect();
            write::nodes(&self.writer, rows, gone)
                .await
                .map_err(self.name.failed())?;
            Ok(Saved::default())
        })
    }

    fn set_versions(&self) -> BoxFuture<'_, Result<Vec<SetVersion>, StoreError>> {
        Box::pin(async {
            let mut reader = self.reader.acquire().await.map_err(self.name.failed())?;
            sets::versions(&mut reader, &self.name).await
        })
    }

    fn sets(&self) -> BoxFuture<'_, Result<SetRows, StoreError>> {
        Box::pin(async {
            let mut reader = self.reader.begin().await.map_err(self.name.failed())?;
            sets::load(&mut reader, &self.name).await
        })
    }

    fn vault_check(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(vault::check(self))
    }

    fn add_vault_check(&self, value: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, StoreError>> {
        Box::pin(vault::add_check(self, value))
    }

    fn put_vault_check(&self, value: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(vault::put_check(self, value))
    }

    fn shared(&self) -> Option<&dyn Shared> {
        None
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.reader.close().await;
            self.writer.close().await;
        })
    }
}

/// The file that says which process uses a database. SQLite's own file cannot
/// be used for this: closing it would drop SQLite's POSIX locks.
pub(crate) fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

fn create_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The hash in a column.
fn hash_at(row: &SqliteRow, column: &str, name: &Name) -> Result<Hash, StoreError> {
    let bytes: Vec<u8> = row.try_get(column).map_err(name.failed())?;
    Hash::from_wire(&bytes).ok_or_else(|| {
        name.damaged(format!(
            "column {column} holds {} bytes, not a SHA-256",
            bytes.len()
        ))
    })
}
