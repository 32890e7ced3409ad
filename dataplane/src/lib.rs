//! The data plane of mcp-fleet: a stateless proxy for MCP.
//!
//! Modules in the order in which a request meets them:
//!
//! - [`settings`], [`node`]: what a node is told at boot, and what its workers share;
//! - [`worker`]: acceptor, one runtime per core;
//! - [`listen`]: HTTP edge: gateway by path, Host and Origin, limits;
//! - [`auth`]: credentials to a principal;
//! - [`codec`]: HTTP to [`call::Call`] and back, for both eras; [`envelope`]: scan and
//!   splice of JSON-RPC; [`body`]: response bodies;
//! - [`session`], [`sealed`]: sessions of legacy clients; [`peer`]: those that live on
//!   other data planes;
//! - [`stack`]: the whole call path; [`route`]: name or URI to backend; [`rounds`]: calls that
//!   take several rounds; `bridge`: those between the eras; `tasks`: calls that go on by themselves; `subscriptions`: streams of
//!   notifications;
//! - [`catalog`]: what backends offer;
//! - [`backend`]: one MCP server and its resilience stack;
//! - [`upstream`]: the transports;
//! - [`error`]: why a call failed, folded into JSON-RPC and HTTP.
//!
//! And in the order in which configuration does: [`control`] (stream or file),
//! [`table`] (compile and swap), [`resolve`] (references), [`secrets`]. [`admin`] and
//! [`telemetry`] look at it all; [`logs`] hands log lines to who follows them.

pub mod admin;
pub mod auth;
pub mod backend;
#[doc(hidden)]
pub mod bench_support;
pub mod body;
mod bridge;
pub mod call;
pub mod catalog;
pub mod codec;
pub mod control;
pub mod envelope;
pub mod error;
pub mod listen;
pub mod logs;
pub mod node;
pub mod peer;
pub mod resolve;
mod room;
pub mod rounds;
pub mod route;
pub mod sealed;
pub mod secrets;
pub mod session;
pub mod settings;
pub mod stack;
mod subscriptions;
pub mod table;
mod tasks;
pub mod telemetry;
pub mod upstream;
pub mod worker;

use std::{
    io, net::SocketAddr, os::unix::fs::DirBuilderExt, path::PathBuf, sync::Arc, time::Duration,
};

use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle};

use listen::tls::{BadFile, Tls, TlsListener};
use node::Node;
use sealed::KeyRing;
use session::Sessions;
use settings::Settings;
use worker::Workers;

/// How often idle sessions are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// How long calls in flight may take to end on shutdown.
const FINISH: Duration = Duration::from_secs(30);

/// Why a data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is reachable from other machines, and nothing is encrypted.
    #[error(
        "{flag} {address} is not a loopback address, and there is no TLS: give --tls-cert and --tls-key, or --insecure if that is meant"
    )]
    Exposed {
        /// The flag that gave it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The admin listener is reachable from other machines and asks for nothing.
    #[error(
        "--admin-listen {0} is not a loopback address: set MCP_FLEET_ADMIN_LISTENER_TOKEN to the token that it is to ask for"
    )]
    OpenAdmin(SocketAddr),
    /// Peers know each other by their certificates.
    #[error(
        "--peer-listen: this node has no certificate, by which others would know it: join with \
         --join-token-file, or leave it out"
    )]
    NoCertificate,
    /// Others cannot reach what is no address.
    #[error("--peer-advertise {0:?}: it must be HOST or HOST:PORT")]
    Advertise(String),
    /// The way to the control planes is not as it should be.
    #[error(transparent)]
    Link(#[from] control::LinkError),
    /// Certificate or key do not work.
    #[error("TLS: {0}")]
    Tls(#[from] BadFile),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({flag}): {reason}")]
    Listen {
        /// The flag that gave it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        reason: io::Error,
    },
    /// The data directory does not work.
    #[error("data directory {path}: {reason}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The key for what is kept on disk does not work.
    #[error("state key {path}: {reason}")]
    StateKey {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The system does not give what is needed.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// A running data plane.
pub struct DataPlane {
    node: Arc<Node>,
    mcp_addr: SocketAddr,
    admin_addr: SocketAddr,
    workers: Workers,
    acceptor: JoinHandle<()>,
    peers: Option<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts a data plane. The runtime that this is called on carries its control
/// stream, discovery and child processes; its workers have their own.
///
/// # Errors
/// See [`StartError`].
pub async fn start(settings: Settings) -> Result<DataPlane, StartError> {
    if !settings.admin_listen.ip().is_loopback() && settings.admin_token.is_none() {
        return Err(StartError::OpenAdmin(settings.admin_listen));
    }
    let tls = settings
        .tls
        .clone()
        .map(Tls::load)
        .transpose()?
        .map(Arc::new);
    let plain_is_fine = settings.insecure || tls.is_some();
    let mcp = listen_on("--listen", settings.listen, plain_is_fine).await?;
    let admin = listen_on("--admin-listen", settings.admin_listen, plain_is_fine).await?;
    let way = control::way(&settings)?;
    let (mcp_addr, admin_addr) = (mcp.local_addr()?, admin.local_addr()?);
    let (peers, peer_listener) = peer::open(&settings, &way).await?;
    let ring = key_ring(&settings)?;
    let kept = control::kept_sets(&settings)?;
    let workers = match settings.workers {
        0 => std::thread::available_parallelism()?.get(),
        some => some,
    };
    let node = Arc::new(Node::new(
        settings,
        tls,
        workers,
        Sessions::new(ring).at(peers.me().clone()),
        peers,
        Handle::current(),
    ));
    // Before anybody is served: what was kept on disk is there from the first request on.
    let restored = control::restore(&node, kept).await;
    let workers = Workers::start(&node)?;
    let router = admin::router(node.clone());
    let acceptor = tokio::spawn(workers.accept(mcp));
    let peers = peer_listener.map(|listener| tokio::spawn(workers.accept_peers(listener)));
    let mut tasks = vec![
        serve_admin(&node, admin, router)?,
        tokio::spawn(control::follow(node.clone(), restored, way)),
        tokio::spawn(sweep(node.clone())),
        tokio::spawn(bridge::held::Held::watch(node.clone())),
        tokio::spawn(worker::sweep(node.clone(), node.background_worker())),
        tokio::spawn(catalog::kept::keep(node.clone())),
        tokio::spawn(catalog::announce::announce(node.clone())),
    ];
    if let Some(tls) = &node.tls {
        tasks.push(tokio::spawn(tls.clone().watch()));
    }
    tracing::info!(mcp = %mcp_addr, admin = %admin_addr, tls = node.tls.is_some(), "listening");
    Ok(DataPlane {
        node,
        mcp_addr,
        admin_addr,
        workers,
        acceptor,
        peers,
        tasks,
    })
}

impl DataPlane {
    /// Where MCP clients connect.
    #[must_use]
    pub const fn mcp_addr(&self) -> SocketAddr {
        self.mcp_addr
    }

    /// Where probes and metrics are.
    #[must_use]
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// What its workers share.
    #[must_use]
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Resolves when the first configuration is served.
    pub async fn ready(&self) {
        // The sender lives as long as the node.
        let _ = self
            .node
            .configured
            .subscribe()
            .wait_for(|configured| *configured)
            .await;
    }

    /// Stops: not ready but serving for the drain time, then calls in flight
    /// end, then connections, then child processes.
    pub async fn shutdown(self) {
        self.node.leave();
        tokio::time::sleep(self.node.settings.drain).await;
        let workers = self.workers;
        // First the listener, then the connections: one that a balancer has just opened would be
        // closed under the call that it was opened for.
        workers.close();
        let _ = self.acceptor.await;
        if let Some(peers) = self.peers {
            let _ = peers.await;
        }
        // Not `spawn_blocking`: the runtime would wait for it when it is dropped,
        // however long the last call takes.
        let (done, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            workers.stop();
            let _ = done.send(());
        });
        if tokio::time::timeout(FINISH, stopped).await.is_err() {
            tracing::warn!("calls in flight did not end in {FINISH:?}: left");
        }
        for task in &self.tasks {
            task.abort();
        }
        self.node.discoveries.close();
        self.node.peers.forget();
        let worker = self.node.background_worker();
        let table = self.node.table.swap(Arc::default());
        let closing = table
            .backends()
            .map(|(_, backend)| backend.upstream.close(worker));
        futures_util::future::join_all(closing).await;
    }
}

fn serve_admin(
    node: &Node,
    listener: TcpListener,
    router: axum::Router,
) -> io::Result<JoinHandle<()>> {
    Ok(match &node.tls {
        None => tokio::spawn(admin::serve(listener, router)),
        Some(tls) => {
            let listener = TlsListener::new(listener, tls.clone())?;
            tokio::spawn(admin::serve(listener, router))
        }
    })
}

async fn listen_on(
    flag: &'static str,
    address: SocketAddr,
    plain_is_fine: bool,
) -> Result<TcpListener, StartError> {
    if !address.ip().is_loopback() && !plain_is_fine {
        return Err(StartError::Exposed { flag, address });
    }
    TcpListener::bind(address)
        .await
        .map_err(|reason| StartError::Listen {
            flag,
            address,
            reason,
        })
}

fn key_ring(settings: &Settings) -> Result<KeyRing, StartError> {
    let Some(path) = &settings.data_dir else {
        return Ok(KeyRing::random()?);
    };
    let mut folder = std::fs::DirBuilder::new();
    // Keys and configuration are its owner's alone.
    folder.recursive(true).mode(0o700);
    let kept = folder.create(path).and_then(|()| KeyRing::kept_in(path));
    kept.map_err(|reason| StartError::DataDir {
        path: path.clone(),
        reason,
    })
}

async fn sweep(node: Arc<Node>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let worker = node.background_worker();
        for session in node.sessions.sweep() {
            for live in session.upstreams().iter().filter_map(|slot| slot.take()) {
                upstream::http::end_in_background(worker, live);
            }
        }
    }
}
