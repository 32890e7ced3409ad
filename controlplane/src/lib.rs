//! The control plane of mcp-fleet: stores, validates, numbers and pushes configuration.
//!
//! The modules in the order in which configuration meets them:
//!
//! - [`settings`]: what a control plane is told at start;
//! - `listen`: connections and their TLS;
//! - `serve`: which service is behind which guard;
//! - `identity`: who may be a node: certificates, and the guard of the nodes' doors;
//! - `api`: the service behind the doors; `api/grpc` and `api/rest` are the doors,
//!   `api/auth` their guard, and `api/strict` turns away what this version would not
//!   understand in full;
//! - `change`: request to revision, inside one transaction;
//! - `store`: where revisions are kept (`store/sqlite`, `store/postgres`);
//! - `vault`: seals what must not be readable there;
//! - `sets`: values of Secrets, session keys and revocations, beside the revisions;
//! - `peers`: the data planes that live, for each other;
//! - `publish`: the newest revision in memory, and what a node is to see;
//!   `publish/follow` brings in what other control planes write;
//! - `sync`: the streams to the data planes, and what is known of each node;
//! - `reports`: how they say they do, and their logs for who follows them.

use std::{
    fs::{File, TryLockError},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fleet_proto::validate::Problem;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};

mod api;
mod change;
mod clock;
mod identity;
mod listen;
mod peers;
mod publish;
mod reports;
mod serve;
mod sets;
pub mod settings;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod vault;

pub use listen::tls::{BadFile, TlsSource};
pub use settings::{Database, Settings, SettingsError};
pub use vault::{StoreKey, StoreKeyError};

use api::{
    Api,
    auth::{Role, TokenError, Tokens},
    rest,
};
use change::{ChangeError, Changes};
use identity::Identities;
use listen::Limits;
use peers::Peers;
use publish::follow::Follow;
use reports::Reports;
use serve::{Tls, secure};
use sets::{Sets, SetsError};
use store::{
    Store, StoreError,
    postgres::Postgres,
    sqlite::{Sqlite, lock_path},
};
use sync::{Sync, node::Registry};
use vault::Vault;

/// Largest message of the API: a 10,000-document apply has a few MiB.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;
/// Connections at once: nodes hold one each, people and CI are few.
const GRPC_CONNECTIONS: usize = 16_384;
const REST_CONNECTIONS: usize = 1024;
/// How long streams and calls may take to end at shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// A running control plane. Dropped, it stops without waiting for anything.
pub struct ControlPlane {
    grpc_addr: SocketAddr,
    rest: Option<rest::Server>,
    plain_tokens: [Option<String>; 2],
    tokens: Arc<Tokens>,
    store: Arc<dyn Store>,
    nodes: Arc<Registry>,
    shutdown: watch::Sender<bool>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    persist: JoinHandle<()>,
    follow: JoinHandle<()>,
    tend: JoinHandle<()>,
    /// Aborted at the end.
    background: Vec<JoinHandle<()>>,
    tls: bool,
    ca_sha256: Option<String>,
    #[cfg(test)]
    identities: Arc<Identities>,
    /// Held as long as the file is in use.
    _lock: Option<File>,
}

/// The control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The address is taken or not ours.
    #[error("cannot listen on {addr}: {reason}: choose another address with {flag}")]
    Listen {
        /// What was to be listened on.
        addr: SocketAddr,
        /// The flag that says so.
        flag: &'static str,
        /// Why not.
        reason: io::Error,
    },
    /// Another process has the database.
    #[error("database {0} is used by another control plane: stop that one, or choose another file")]
    InUse(PathBuf),
    /// The database cannot be reached.
    #[error("database {database}: {reason}: its folder must exist and be writable")]
    Open {
        /// The file.
        database: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// The stored configuration does not pass this version's validation.
    #[error(
        "the stored configuration is not valid for this version ({} problems): {}: \
         correct it with the version that wrote it, or restore a backup",
        .0.len(), listed(.0)
    )]
    Stored(Vec<Problem>),
    /// The database server does not answer.
    #[error(
        "database {database} is out of reach: {reason} (tried for 10 s): see that it runs and accepts \
         this user, or correct MCP_FLEET_DATABASE or --database"
    )]
    Unreachable {
        /// The database.
        database: String,
        /// Why not.
        reason: String,
    },
    /// The certificate of the listeners cannot be used.
    #[error(transparent)]
    Tls(#[from] BadFile),
    /// The store key is missing, or not the one of this database.
    #[error(transparent)]
    StoreKey(#[from] StoreKeyError),
    /// The database failed.
    #[error("{0}")]
    Store(String),
}

fn listed(problems: &[Problem]) -> String {
    problems
        .iter()
        .take(5)
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unreachable { database, reason } => Self::Unreachable { database, reason },
            other => Self::Store(other.to_string()),
        }
    }
}

impl From<SetsError> for StartError {
    fn from(error: SetsError) -> Self {
        match error {
            SetsError::Store(error) => error.into(),
            other => Self::Store(other.to_string()),
        }
    }
}

impl From<TokenError> for StartError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => error.into(),
            other @ TokenError::Random(_) => Self::Store(other.to_string()),
        }
    }
}

impl From<ChangeError> for StartError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Invalid(problems) => Self::Stored(problems),
            ChangeError::Store(error) => error.into(),
            other => Self::Store(other.to_string()),
        }
    }
}

/// A token could not be made or kept.
#[derive(Debug, thiserror::Error)]
#[error("no token could be issued: {0}")]
pub struct IssueError(String);

/// Starts a control plane: it serves when this returns.
///
/// # Errors
/// Settings that cannot be used, an address or a database that is out of reach or
/// taken, a stored configuration that this version cannot serve.
pub async fn start(settings: Settings) -> Result<ControlPlane, StartError> {
    settings.check()?;
    let (store, lock) = open(&settings.database).await?;
    let vault = Arc::new(unlock(&*store, &settings).await?);
    let sets = Arc::new(Sets::open(Arc::clone(&store), Arc::clone(&vault)).await?);
    let changes = Arc::new(Changes::open(Arc::clone(&store), Arc::clone(&sets)).await?);
    let (tokens, plain_tokens) = Tokens::open(Arc::clone(&store), &settings).await?;
    let tokens = Arc::new(tokens);
    let nodes = Arc::new(Registry::new(store.nodes().await?));
    sync::recall::recall(changes.publisher(), &*store, &nodes.verdicts()).await?;
    let mut follow = Follow::new(
        Arc::clone(&store),
        Arc::clone(changes.publisher()),
        Arc::clone(&nodes),
        Arc::clone(&sets),
    );
    follow.look().await?;
    let lifetime = settings.node_certificate_lifetime;
    let identities = Identities::open(
        Arc::clone(&store),
        Arc::clone(&tokens),
        Arc::clone(&vault),
        lifetime,
    );
    let identities = Arc::new(identities.await?);
    let resealed = identities.reseal().await;
    resealed.map_err(|error| StartError::Store(error.to_string()))?;
    // After all else that is sealed.
    vault.finish_rotation(&*store).await?;
    let tls = secure(&settings, &identities).await?;

    let (listener, grpc_addr) = listen(settings.grpc_listen, "--grpc-listen").await?;
    let rest = match settings.rest_listen {
        Some(address) => Some(listen(address, "--rest-listen").await?),
        None => None,
    };
    let (shutdown, stopped) = watch::channel(false);

    let publisher = Arc::clone(changes.publisher());
    let reports = Arc::new(Reports::default());
    let api = Arc::new(Api {
        changes,
        store: Arc::clone(&store),
        nodes: Arc::clone(&nodes),
        reports: Arc::clone(&reports),
        tokens: Arc::clone(&tokens),
        identities: Arc::clone(&identities),
        certificate: tls.as_ref().map(|tls| tls.shown.clone()),
        shutdown: stopped.clone(),
        writes: Default::default(),
    });
    let [grpc_tls, rest_tls] = tls.as_ref().map_or([None, None], Tls::acceptors);
    let rest = rest.map(|(listener, address)| {
        tracing::info!(rest = %address, tls = rest_tls.is_some(), "REST API");
        let incoming = listen::accept(listener, rest_tls, Limits::of(REST_CONNECTIONS));
        rest::Server::start(Arc::clone(&api), incoming, address)
    });
    let incoming = listen::accept(listener, grpc_tls, Limits::of(GRPC_CONNECTIONS));
    let peers = Arc::new(Peers::new(Arc::clone(&nodes), Arc::clone(&identities)));
    let sync = Sync::new(
        publisher,
        Arc::clone(sets.shown()),
        Arc::clone(&peers),
        Arc::clone(&nodes),
        stopped.clone(),
    );
    let reports = reports::stream::Server::new(reports, stopped.clone());
    let server = tokio::spawn(serve::grpc(api, sync, reports, incoming, stopped.clone()));
    let follow = tokio::spawn(follow.run(stopped.clone()));
    let tend = tokio::spawn(sets.run(stopped.clone()));
    let mut background = vec![tokio::spawn(Arc::clone(&identities).run(stopped.clone()))];
    background.push(tokio::spawn(peers.run(stopped.clone())));
    let keep = |tls: &Tls| tokio::spawn(Arc::clone(&tls.shown).keep());
    background.extend(tls.as_ref().map(keep));
    let persist = tokio::spawn(Arc::clone(&nodes).persist(Arc::clone(&store), stopped));
    let ca_sha256 = match tls.as_ref().filter(|tls| tls.shown.is_of_the_fleet()) {
        Some(_) => identities
            .ca()
            .await
            .ok()
            .map(|ca| hex::encode(ca.fingerprint().0)),
        None => None,
    };
    let tls = tls.is_some();
    tracing::info!(grpc = %grpc_addr, tls, database = %settings.database, "control plane started");
    Ok(ControlPlane {
        grpc_addr,
        rest,
        plain_tokens,
        tokens,
        store,
        nodes,
        shutdown,
        server,
        persist,
        follow,
        tend,
        background,
        tls,
        ca_sha256,
        #[cfg(test)]
        identities,
        _lock: lock,
    })
}

/// A SQLite file is this process's alone; a Postgres is anybody's.
async fn open(database: &Database) -> Result<(Arc<dyn Store>, Option<File>), StartError> {
    Ok(match database {
        Database::Sqlite(path) => {
            let lock = lock(path)?;
            (Arc::new(Sqlite::open(path).await?), Some(lock))
        }
        Database::Postgres(postgres) => (Arc::new(Postgres::open(postgres).await?), None),
    })
}

/// The vault of a database, with keys that have proved to be its own.
async fn unlock(store: &dyn Store, settings: &Settings) -> Result<Vault, StartError> {
    let database = &settings.database;
    let is_sealed = store.vault_check().await?.is_some();
    let vault = vault::find(settings.store_key.as_ref(), database, is_sealed)?;
    vault.prove(store, &database.to_string()).await?;
    Ok(vault)
}

async fn listen(
    addr: SocketAddr,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |reason| StartError::Listen { addr, flag, reason };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

/// One process per file: another one's revisions would never be published here.
fn lock(database: &Path) -> Result<File, StartError> {
    let open = |reason| StartError::Open {
        database: database.to_owned(),
        reason,
    };
    let file = File::create(lock_path(database)).map_err(open)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(database.to_owned())),
        Err(TryLockError::Error(reason)) => Err(open(reason)),
    }
}

impl ControlPlane {
    /// Where the gRPC API and the sync stream are.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where the REST API is, if there is one.
    #[must_use]
    pub fn rest_addr(&self) -> Option<SocketAddr> {
        self.rest.as_ref().map(rest::Server::address)
    }

    /// Whether both are spoken to over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// SHA-256 of the CA's certificate, in hex, if that of the listeners is of the CA.
    #[must_use]
    pub fn ca_sha256(&self) -> Option<&str> {
        self.ca_sha256.as_deref()
    }

    /// The admin token, if it was given or has been generated at this start.
    #[must_use]
    pub fn admin_token(&self) -> Option<&str> {
        self.plain_tokens[0].as_deref()
    }

    /// The node token, if it was given or has been generated at this start.
    #[must_use]
    pub fn node_token(&self) -> Option<&str> {
        self.plain_tokens[1].as_deref()
    }

    /// Makes an admin token that lasts until the next one is issued. For a process
    /// that embeds a control plane.
    ///
    /// # Errors
    /// The store cannot keep it, or the system gives no random numbers.
    pub async fn issue_admin_token(&self) -> Result<String, IssueError> {
        self.tokens
            .issue(Role::Admin)
            .await
            .map_err(|error| IssueError(error.to_string()))
    }

    /// Makes a node token that lasts until the next one is issued.
    ///
    /// # Errors
    /// As [`issue_admin_token`](Self::issue_admin_token).
    pub async fn issue_node_token(&self) -> Result<String, IssueError> {
        self.tokens
            .issue(Role::Node)
            .await
            .map_err(|error| IssueError(error.to_string()))
    }

    /// Ends all that this control plane does itself, as if it had been killed.
    #[cfg(test)]
    fn abandon(&self) {
        self.server.abort();
        self.follow.abort();
        self.tend.abort();
        self.persist.abort();
        for task in &self.background {
            task.abort();
        }
    }

    /// Tells the nodes to come back later, ends all streams and calls, and closes
    /// the database.
    pub async fn shutdown(self) {
        self.shutdown.send_replace(true);
        let rest = async {
            if let Some(rest) = self.rest {
                rest.stopped(GRACE).await;
            }
        };
        let mut server = self.server;
        let grpc = async {
            match timeout(GRACE, &mut server).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => tracing::error!(%error, "the gRPC server failed"),
                Ok(Err(error)) => tracing::error!(%error, "the gRPC server failed"),
                // Somebody keeps a call open: they have been told.
                Err(_) => server.abort(),
            }
        };
        tokio::join!(rest, grpc);
        let _ = self.persist.await;
        let _ = self.follow.await;
        for task in self.background {
            task.abort();
        }
        let _ = self.tend.await;
        self.nodes.flush(&*self.store).await;
        if let Some(shared) = self.store.shared()
            && let Err(error) = shared.leave().await
        {
            tracing::warn!(%error, "other control planes will notice later that this one is gone");
        }
        self.store.close().await;
        tracing::info!("control plane stopped");
    }
}
