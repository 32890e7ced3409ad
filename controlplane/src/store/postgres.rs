//! The store in a Postgres database, which several control planes may share.
//!
//! Every write of configuration locks the head row first, so that revisions have
//! one order whoever makes them. `NOTIFY` wakes the others; it carries nothing but
//! the number of the newest revision, and a look each second covers what it missed
//! (`publish/follow`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fleet_proto::{
    hash,
    key::Key,
    v1::{Action, SetVersion},
};
use futures_util::future::BoxFuture;
use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    ApiTokenRow, AuditRow, NodeRow, ResourceRow, RevisionRow, Store, StoreError, TokenRow, Write,
    sets::SetRows,
    shared::{NodeChange, Saved, Shared},
};
use crate::{api::auth::Role, settings};

mod audit;
mod history;
mod identity;
mod listen;
mod rows;
mod session;
mod sets;
mod shared;
mod vault;
mod write;

use session::{Connections, Name};

/// The channel of `NOTIFY`.
const NOTIFY: &str = "mcp_fleet";
/// How long a start waits for the database: both may have been started at once.
const START: Duration = Duration::from_secs(10);
/// Between two attempts of that.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a change of the schema may take.
const MIGRATION: Duration = Duration::from_secs(300);
const CLOSE: Duration = Duration::from_secs(3);

/// A Postgres database.
pub(crate) struct Postgres {
    connections: Connections,
    /// This control plane.
    id: String,
    heard: Arc<Notify>,
    listener: JoinHandle<()>,
}

impl Postgres {
    /// Connects, waiting up to ten seconds for a database that is out of reach, and
    /// brings its schema up to date.
    pub(crate) async fn open(database: &settings::Postgres) -> Result<Self, StoreError> {
        let name = Name(database.to_string());
        let options = database.options().clone().disable_statement_logging();
        let deadline = Instant::now() + START;
        let mut connection = loop {
            let limit = deadline.saturating_duration_since(Instant::now());
            let error = match timeout(limit, PgConnection::connect_with(&options)).await {
                Ok(Ok(connection)) => break connection,
                Ok(Err(error)) => name.failed()(error),
                Err(_) => name.unreachable(format!("no answer within {} s", START.as_secs())),
            };
            if !error.is_passing() || Instant::now() + AGAIN > deadline {
                return Err(error);
            }
            sleep(AGAIN).await;
        };
        timeout(MIGRATION, prepare(&mut connection, &name))
            .await
            .map_err(|_| {
                name.unreachable("the schema could not be brought up to date in time")
            })??;
        let _ = timeout(CLOSE, connection.close()).await;

        let connections = Connections::new(options, name);
        let heard = Arc::new(Notify::new());
        let listener = tokio::spawn(listen::listen(
            connections.pool().clone(),
            Arc::clone(&heard),
        ));
        Ok(Self {
            connections,
            id: uuid::Uuid::new_v4().to_string(),
            heard,
            listener,
        })
    }

    fn name(&self) -> &Name {
        self.connections.name()
    }

    /// Rows of a statement.
    async fn read(&self, query: Statement) -> Result<Vec<PgRow>, StoreError> {
        let mut session = self.connections.get().await?;
        session.run(|db| Box::pin(query.fetch_all(db))).await
    }

    /// Carries out a statement; how many rows it has changed.
    async fn execute(&self, query: Statement) -> Result<u64, StoreError> {
        let mut session = self.connections.get().await?;
        let done = session.run(|db| Box::pin(query.execute(db))).await?;
        Ok(done.rows_affected())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

type Statement = Query<'static, sqlx::Postgres, PgArguments>;

/// Migrations take a lock: of control planes that start at once, one does it.
async fn prepare(connection: &mut PgConnection, name: &Name) -> Result<(), StoreError> {
    let encoding: String = sqlx::query_scalar("SHOW server_encoding")
        .fetch_one(&mut *connection)
        .await
        .map_err(name.failed())?;
    if encoding != "UTF8" {
        return Err(name.damaged(format!(
            "its encoding is {encoding}, not UTF8 (CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0)"
        )));
    }
    sqlx::migrate!("migrations/postgres")
        .run(&mut *connection)
        .await
        .map_err(|source| StoreError::Migrate {
            database: name.0.clone(),
            source,
        })?;
    sqlx::query("INSERT INTO head VALUES (1, $1, 0, $2) ON CONFLICT DO NOTHING")
        .bind(uuid::Uuid::new_v4().to_string())
        .bind(hash::root_hash([]).0.to_vec())
        .execute(connection)
        .await
        .map_err(name.failed())?;
    Ok(())
}

/// Postgres keeps no NUL in a text; nobody misses it.
fn clean(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

impl Store for Postgres {
    fn write(&self) -> BoxFuture<'_, Result<Box<dyn Write>, StoreError>> {
        Box::pin(async {
            let write = write::Transaction::begin(&self.connections).await?;
            Ok(Box::new(write) as Box<dyn Write>)
        })
    }

    fn resources_at(&self, revision: u64) -> BoxFuture<'_, Result<Vec<ResourceRow>, StoreError>> {
        Box::pin(async move {
            let query = sqlx::query(
                "SELECT project, kind, name, body, NULL::bytea AS hash FROM (
                     SELECT DISTINCT ON (project, kind, name) project, kind, name, body
                     FROM revision_changes WHERE revision <= $1
                     ORDER BY project, kind, name, revision DESC
                 ) AS newest WHERE body IS NOT NULL",
            );
            let rows = self.read(query.bind(revision as i64)).await?;
            rows.iter()
                .map(|row| rows::resource(row, self.name()))
                .collect()
        })
    }

    fn revisions(&self, limit: u32) -> BoxFuture<'_, Result<Vec<RevisionRow>, StoreError>> {
        Box::pin(async move {
            let query = sqlx::query("SELECT * FROM revisions ORDER BY number DESC LIMIT $1");
            let rows = self.read(query.bind(i64::from(limit))).await?;
            rows.iter()
                .map(|row| rows::revision(row, self.name()))
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
        Box::pin(audit::put_token(self, token, audit))
    }

    fn revoke_api_token(
        &self,
        id: String,
        at_ms: u64,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(audit::revoke_token(self, id, at_ms, audit))
    }

    fn tokens(&self) -> BoxFuture<'_, Result<Vec<TokenRow>, StoreError>> {
        Box::pin(async {
            let query = sqlx::query("SELECT * FROM tokens ORDER BY role, label");
            let rows = self.read(query).await?;
            rows.iter()
                .map(|row| rows::token(row, self.name()))
                .collect()
        })
    }

    fn put_token(&self, token: TokenRow) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let query = sqlx::query(
                "INSERT INTO tokens VALUES ($1, $2, $3, $4) ON CONFLICT (role, label)
                 DO UPDATE SET hash = excluded.hash, created_ms = excluded.created_ms",
            );
            self.execute(bound(query, token)).await.map(drop)
        })
    }

    fn add_token(&self, token: TokenRow) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let query =
                sqlx::query("INSERT INTO tokens VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING");
            Ok(self.execute(bound(query, token)).await? > 0)
        })
    }

    fn remove_token<'a>(
        &'a self,
        role: Role,
        label: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let query = sqlx::query("DELETE FROM tokens WHERE role = $1 AND label = $2")
                .bind(role.as_str())
                .bind(label.to_owned());
            self.execute(query).await.map(drop)
        })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeRow>, StoreError>> {
        Box::pin(async {
            let query = sqlx::query("SELECT * FROM nodes ORDER BY node_id");
            let rows = self.read(query).await?;
            rows.iter()
                .map(|row| rows::node(row, self.name()))
                .collect()
        })
    }

    fn save_nodes(
        &self,
        changed: Vec<NodeChange>,
        gone: Vec<String>,
    ) -> BoxFuture<'_, Result<Saved, StoreError>> {
        Box::pin(async move {
            let mut session = self.connections.get().await?;
            write::nodes(&mut session, &self.id, changed, gone).await
        })
    }

    fn set_versions(&self) -> BoxFuture<'_, Result<Vec<SetVersion>, StoreError>> {
        Box::pin(async {
            let mut session = self.connections.get().await?;
            sets::versions(&mut session, self.name()).await
        })
    }

    fn sets(&self) -> BoxFuture<'_, Result<SetRows, StoreError>> {
        Box::pin(async {
            let mut session = self.connections.get().await?;
            session.begin(session::SNAPSHOT).await?;
            let rows = sets::load(&mut session, self.name()).await?;
            session.commit().await?;
            Ok(rows)
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
        Some(self)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.listener.abort();
            // A connection that is cut off cannot be closed.
            let _ = timeout(CLOSE, self.connections.pool().close()).await;
        })
    }
}

fn bound(query: Statement, token: TokenRow) -> Statement {
    query
        .bind(token.role.as_str())
        .bind(token.label)
        .bind(token.hash.0.to_vec())
        .bind(token.created_ms as i64)
}
