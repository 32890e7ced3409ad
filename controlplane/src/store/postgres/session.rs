//! Connections to Postgres that never wait for ever.
//!
//! A server that has gone away without a word answers nothing and refuses
//! nothing: every statement therefore has a limit, and a connection that has
//! missed it is not used again.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{runtime::Handle, time::timeout};

use crate::store::StoreError;

/// How long a connection may take to be had.
const ACQUIRE: Duration = Duration::from_secs(5);
/// How long a statement may take: far more than any of ours does.
const ANSWER: Duration = Duration::from_secs(10);
/// How long an idle connection may take to show that it is still good.
const PING: Duration = Duration::from_secs(2);
/// Connections used within this time are taken to be good.
const FRESH: Duration = Duration::from_secs(1);
/// After a failure, others fail at once for so long: a queue of writers is not to
/// wait [`ACQUIRE`] one after the other.
const FAIL_FAST: Duration = Duration::from_secs(1);
const CONNECTIONS: u32 = 10;

/// Of every connection. The server is to notice a control plane that has
/// vanished: it would hold the head for hours.
const SESSION: &str = "SET idle_in_transaction_session_timeout = '15s';
    SET lock_timeout = '8s';
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 3;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '15s';
    SET synchronous_commit = on";

/// Starts a transaction that writes. Each of its statements sees what is committed
/// by then.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// Starts a transaction all of whose statements see the same moment.
pub(super) const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The pool.
pub(super) struct Connections {
    pool: PgPool,
    name: Name,
    failed: Mutex<Option<(Instant, String)>>,
}

/// The name of the database, for error messages.
#[derive(Clone)]
pub(super) struct Name(pub(super) String);

impl Name {
    pub(super) fn damaged(&self, what: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            database: self.0.clone(),
            what: what.into(),
        }
    }

    pub(super) fn unreachable(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Unreachable {
            database: self.0.clone(),
            reason: reason.into(),
        }
    }

    /// Tells a server that is out of reach from one that refuses.
    pub(super) fn failed(&self) -> impl Fn(sqlx::Error) -> StoreError + use<> {
        let name = self.clone();
        move |error| match &error {
            sqlx::Error::PoolTimedOut => name.unreachable(format!(
                "no connection could be made within {} s",
                ACQUIRE.as_secs()
            )),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            // Also what a connection says that is closed in its first words.
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => name.unreachable(error.to_string()),
            sqlx::Error::Database(refusal) if passes(refusal.code().as_deref()) => {
                name.unreachable(refusal.message())
            }
            _ => StoreError::Database {
                database: name.0.clone(),
                source: error,
            },
        }
    }
}

/// Whether a server that says so will take the same later (SQLSTATE; PostgreSQL,
/// Appendix A).
fn passes(code: Option<&str>) -> bool {
    let code = code.unwrap_or_default();
    // Connection exceptions, insufficient resources, operator intervention.
    ["08", "53", "57"].iter().any(|class| code.starts_with(class))
        // Terminated while idle in a transaction, read only (a standby after a
        // failover), serialisation failure, deadlock, lock timeout.
        || ["25P03", "25006", "40001", "40P01", "55P03"].contains(&code)
}

impl Connections {
    /// Connects later, when a connection is needed.
    pub(super) fn new(options: PgConnectOptions, name: Name) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < FRESH {
                        return Ok(true);
                    }
                    timeout(PING, connection.ping())
                        .await
                        .map_err(|_| sqlx::Error::PoolTimedOut)??;
                    Ok(true)
                })
            })
            .after_connect(|connection, _| {
                Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(drop) })
            })
            .connect_lazy_with(options);
        Self {
            pool,
            name,
            failed: Mutex::new(None),
        }
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(super) async fn get(&self) -> Result<Session, StoreError> {
        let recent = self
            .failed
            .lock()
            .clone()
            .filter(|(at, _)| at.elapsed() < FAIL_FAST);
        if let Some((_, reason)) = recent {
            return Err(self.name.unreachable(reason));
        }
        match self.pool.acquire().await {
            Ok(connection) => {
                *self.failed.lock() = None;
                Ok(Session {
                    connection: Some(connection),
                    sound: true,
                    in_transaction: false,
                    name: self.name.clone(),
                })
            }
            Err(error) => {
                let error = self.name.failed()(error);
                if let StoreError::Unreachable { reason, .. } = &error {
                    *self.failed.lock() = Some((Instant::now(), reason.clone()));
                }
                Err(error)
            }
        }
    }
}

/// One connection, given back when dropped. A transaction that is still open then
/// is rolled back.
pub(super) struct Session {
    /// Taken when dropped.
    connection: Option<PoolConnection<Postgres>>,
    /// No statement has been cut off.
    sound: bool,
    in_transaction: bool,
    name: Name,
}

/// What is done on a connection.
pub(super) type Work<'c, T> = BoxFuture<'c, sqlx::Result<T>>;

impl Session {
    /// Carries out a statement, or a few.
    pub(super) async fn run<T>(
        &mut self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T>,
    ) -> Result<T, StoreError> {
        let Some(connection) = &mut self.connection else {
            return Err(self.name.unreachable("the connection is closed"));
        };
        // Also when this future is dropped half-way.
        self.sound = false;
        let outcome = timeout(ANSWER, work(connection)).await.map_err(|_| {
            let reason = format!("no answer within {} s", ANSWER.as_secs());
            self.name.unreachable(reason)
        })?;
        self.sound = match &outcome {
            Ok(_) => true,
            // The server has refused a statement, and takes the next one; 57P: it
            // ends the connection.
            Err(sqlx::Error::Database(refusal)) => {
                !refusal.code().is_some_and(|code| code.starts_with("57P"))
            }
            Err(_) => false,
        };
        outcome.map_err(self.name.failed())
    }

    /// Carries out a statement without an answer.
    async fn command(&mut self, statement: &'static str) -> Result<(), StoreError> {
        self.run(|db| Box::pin(async move { sqlx::raw_sql(statement).execute(db).await.map(drop) }))
            .await
    }

    /// Starts a transaction with this statement.
    pub(super) async fn begin(&mut self, statement: &'static str) -> Result<(), StoreError> {
        self.in_transaction = true;
        self.command(statement).await
    }

    /// Commits it.
    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        self.command("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if !self.sound {
            // The server rolls back when it is closed.
            connection.close_on_drop();
        } else if self.in_transaction {
            let rollback = async move {
                let rollback = sqlx::raw_sql("ROLLBACK").execute(&mut *connection);
                if !matches!(timeout(ANSWER, rollback).await, Ok(Ok(_))) {
                    connection.close_on_drop();
                }
            };
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(rollback)),
                // Dropped with the runtime: so is its socket.
                Err(_) => drop(rollback),
            }
        }
    }
}
