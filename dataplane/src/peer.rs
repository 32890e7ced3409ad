//! Other data planes of the fleet: who lives, and what is relayed between them.
//!
//! A session lives on the node that has opened it, its [`Home`]. Any node takes any
//! request of it, and [`relay`]s what its home must answer; [`serve`] is the other end.
//! Who the peers are comes with the control plane's stream, and is kept for when that is
//! gone; which of them can be reached each node finds out by itself ([`watch`]). Where a
//! home is gone, all nodes agree on its successor by [`hash`]. Connections ([`pool`]) are
//! mutual TLS with the nodes' certificates ([`tls`]): a node without one has no peers.

pub(crate) mod ended;
mod hash;
pub(crate) mod passing;
mod pool;
pub(crate) mod relay;
pub(crate) mod serve;
pub(crate) mod standing;
mod tls;
mod watch;

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use fleet_proto::v1;
use hyper::{Response, body::Incoming};
use tokio::{
    net::{TcpListener, TcpStream},
    sync,
    task::AbortHandle,
};
use tokio_rustls::server::TlsStream;

use crate::{
    StartError,
    call::WorkerId,
    control::Way,
    listen,
    node::Node,
    session::{Home, Session},
    settings::{PEER_PORT, PeerListen, Settings},
};
use pool::{Ask, Pool, SendError, UnderWay};
use tls::Keys;

/// Where a session is served.
pub(crate) enum Place {
    Here,
    At(Arc<Peer>),
}

/// Another data plane.
pub(crate) struct Peer {
    home: Home,
    host: String,
    port: u16,
    pool: Pool,
    /// It could not be reached the last time.
    gone: AtomicBool,
    /// Tells the one who watches it.
    left: sync::Notify,
}

/// The other data planes, as far as this one knows them.
pub struct Peers {
    me: Home,
    /// `None`: it has no peers.
    own: Option<Own>,
    others: ArcSwap<Vec<Watched>>,
    /// Whether there are others: for requests, which need not look further then.
    any: AtomicBool,
    changed: sync::watch::Sender<()>,
    relayed: AtomicU64,
}

/// What a node with peers has.
struct Own {
    keys: Keys,
    listens: SocketAddr,
    advertise: Option<String>,
}

#[derive(Clone)]
struct Watched {
    peer: Arc<Peer>,
    _task: Arc<Task>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens the peer listener, where this node is to have one.
///
/// # Errors
/// It was asked for, and there is no certificate or no such address.
pub async fn open(
    settings: &Settings,
    way: &Way,
) -> Result<(Peers, Option<TcpListener>), StartError> {
    let me = Home::begin(&settings.node_id);
    let none = |me| (Peers::new(me, None), None);
    let (address, asked) = match settings.peer_listen {
        PeerListen::Off => return Ok(none(me)),
        PeerListen::Joined => (of_clients(settings.listen), false),
        PeerListen::At(address) => (address, true),
    };
    let Some(certificate) = way.certificate() else {
        return match asked {
            true => Err(StartError::NoCertificate),
            false => Ok(none(me)),
        };
    };
    if let Some(text) = &settings.peer_advertise {
        place(text, address.port()).ok_or_else(|| StartError::Advertise(text.clone()))?;
    }
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(reason) if asked => {
            return Err(StartError::Listen {
                flag: "--peer-listen",
                address,
                reason,
            });
        }
        Err(error) => {
            tracing::error!(
                %address, %error,
                "no other data plane can reach this one, and its sessions are opened anew elsewhere: \
                 give an address with --peer-listen, or `off`"
            );
            return Ok(none(me));
        }
    };
    let own = Own {
        listens: listener.local_addr()?,
        advertise: settings.peer_advertise.clone(),
        keys: Keys::new(certificate),
    };
    tracing::info!(peers = %own.listens, "other data planes are listened for");
    Ok((Peers::new(me, Some(own)), Some(listener)))
}

/// Where peers are listened for if that is not said.
fn of_clients(listen: SocketAddr) -> SocketAddr {
    let port = if listen.port() == 0 { 0 } else { PEER_PORT };
    SocketAddr::new(listen.ip(), port)
}

/// Host and port of an address as it is advertised.
fn place(text: &str, port: u16) -> Option<(String, u16)> {
    let host = listen::host_of(text)?;
    let port = match text[host.len()..].strip_prefix(':') {
        Some(given) => given.parse().ok()?,
        None => port,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), port))
}

/// Takes over who the peers are.
///
/// # Errors
/// One of them has no address that can be used; the others are taken.
pub(crate) fn replace(node: &Arc<Node>, all: &[v1::Peer]) -> Result<(), String> {
    let peers = &node.peers;
    if peers.own.is_none() {
        return Ok(());
    }
    let before = peers.others.load();
    let mut others = Vec::with_capacity(all.len());
    let mut wrong = Ok(());
    for given in all.iter().filter(|peer| peer.node_id != peers.me.node) {
        let Some(peer) = Peer::new(given, node.workers) else {
            wrong = Err(format!(
                "data plane {} says that it is reached at {:?}, which is no address",
                given.node_id, given.address
            ));
            continue;
        };
        let same = before.iter().find(|known| known.peer.is_same(&peer));
        others.push(same.cloned().unwrap_or_else(|| {
            tracing::info!(node = given.node_id, address = given.address, "a new peer");
            let peer = Arc::new(peer);
            let watch = watch::watch(node.clone(), peer.clone());
            let task = node.background.spawn(watch).abort_handle();
            Watched {
                peer,
                _task: Arc::new(Task(task)),
            }
        }));
    }
    peers.any.store(!others.is_empty(), Ordering::Relaxed);
    peers.others.store(Arc::new(others));
    peers.changed.send_replace(());
    wrong
}

impl Peers {
    fn new(me: Home, own: Option<Own>) -> Self {
        Self {
            me,
            own,
            others: ArcSwap::default(),
            any: AtomicBool::new(false),
            changed: sync::watch::Sender::new(()),
            relayed: AtomicU64::new(0),
        }
    }

    /// None, and there will be none.
    #[must_use]
    pub fn none(node_id: &str) -> Self {
        Self::new(Home::begin(node_id), None)
    }

    /// This start of this node.
    #[must_use]
    pub const fn me(&self) -> &Home {
        &self.me
    }

    /// Whether no other one is known of.
    pub(crate) fn is_alone(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// How many requests were relayed to others.
    pub(crate) fn relayed(&self) -> u64 {
        self.relayed.load(Ordering::Relaxed)
    }

    /// How many there are, and how many of them can be reached.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let others = self.others.load();
        let reached = others.iter().filter(|known| !known.peer.has_left());
        (others.len(), reached.count())
    }

    /// Knows nobody any more.
    pub(crate) fn forget(&self) {
        self.any.store(false, Ordering::Relaxed);
        self.others.store(Arc::default());
    }

    /// Where others reach this node, if it has a listener and a certificate. `local`
    /// finds out its own address where that cannot be told otherwise.
    pub(crate) async fn advertised<F>(&self, local: impl Fn() -> F) -> io::Result<Option<String>>
    where
        F: Future<Output = io::Result<IpAddr>>,
    {
        let Some(own) = self.own.as_ref().filter(|own| own.keys.are_there()) else {
            return Ok(None);
        };
        let port = own.listens.port();
        if let Some(text) = &own.advertise {
            let place = place(text, port);
            return Ok(place.map(|(host, port)| match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            }));
        }
        let address = match own.listens.ip() {
            any if any.is_unspecified() => local().await?,
            here if here.is_loopback() && !local().await?.is_loopback() => {
                let what = format!("{here} is reached from this machine only");
                return Err(io::Error::other(what));
            }
            one => one,
        };
        Ok(Some(SocketAddr::new(address, port).to_string()))
    }

    /// Where a session is to be served: at its home or, where that is gone, at the node
    /// that all nodes come to.
    pub(crate) fn place(&self, session: &Session) -> Place {
        let home = session.home().map(|home| home.boot.as_str());
        if home == Some(&self.me.boot) {
            return Place::Here;
        }
        let others = self.others.load();
        let live = || others.iter().map(|o| &o.peer).filter(|p| !p.has_left());
        if let Some(peer) = live().find(|peer| home == Some(&peer.home.boot)) {
            return Place::At(Arc::clone(peer));
        }
        let starts = live().map(|peer| (peer.home.boot.as_str(), Some(peer)));
        let starts = starts.chain([(self.me.boot.as_str(), None)]);
        match hash::pick(session.name(), starts).flatten() {
            Some(peer) => Place::At(Arc::clone(peer)),
            None => Place::Here,
        }
    }

    /// Waits until a session is to be served elsewhere.
    pub(crate) async fn moves(&self, session: &Session) {
        let mut changed = self.changed.subscribe();
        while matches!(self.place(session), Place::Here) {
            if changed.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Those that can be reached.
    fn live(&self) -> Vec<Arc<Peer>> {
        let others = self.others.load();
        let live = others.iter().filter(|known| !known.peer.has_left());
        live.map(|known| known.peer.clone()).collect()
    }

    /// A peer can be reached, again or for the first time.
    fn is_back(&self, peer: &Peer) {
        if peer.is_back() {
            self.changed.send_replace(());
        }
    }

    /// The home of a session, if it is a peer, whether it can be reached or not.
    pub(crate) fn home(&self, session: &Session) -> Option<Arc<Peer>> {
        self.at(session.home()?)
    }

    /// The peer that is this very start of a node, whether it can be reached or not.
    pub(crate) fn at(&self, home: &Home) -> Option<Arc<Peer>> {
        let others = self.others.load();
        let found = others.iter().find(|known| known.peer.home == *home);
        found.map(|known| Arc::clone(&known.peer))
    }

    /// Waits until this node is a peer.
    async fn met(&self, node: &str) {
        let mut changed = self.changed.subscribe();
        let is_it = |known: &Watched| known.peer.home.node == node;
        while !self.others.load().iter().any(is_it) {
            if changed.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    async fn send(
        &self,
        peer: &Peer,
        worker: WorkerId,
        ask: &Ask,
    ) -> Result<(Response<Incoming>, UnderWay), SendError> {
        let own = self.own.as_ref().ok_or_else(nobody);
        peer.send(&own.map_err(SendError::NotSent)?.keys, worker, ask)
            .await
    }

    /// Whether a peer can be reached now.
    async fn answers(&self, peer: &Peer) -> bool {
        match &self.own {
            None => false,
            Some(own) => peer.answers(&own.keys).await,
        }
    }

    async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, String)> {
        let own = self.own.as_ref().ok_or_else(nobody)?;
        stream.set_nodelay(true)?;
        own.keys.accept(stream).await
    }
}

fn nobody() -> io::Error {
    io::Error::other("this node has no peers")
}

impl Peer {
    fn new(given: &v1::Peer, workers: usize) -> Option<Self> {
        let (host, port) = place(&given.address, 0).filter(|(_, port)| *port != 0)?;
        let is_text = given.boot_id.bytes().all(|byte| byte.is_ascii_graphic());
        is_text.then(|| Self {
            home: Home {
                node: given.node_id.clone(),
                boot: given.boot_id.clone(),
            },
            host,
            port,
            pool: Pool::new(workers),
            gone: AtomicBool::new(false),
            left: sync::Notify::new(),
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.home, &self.host, self.port) == (&other.home, &other.host, other.port)
    }

    fn has_left(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// It cannot be reached. The one who watches it finds out when it can.
    fn leave(&self, why: &str) {
        if !self.gone.swap(true, Ordering::Relaxed) {
            let Home { node, boot } = &self.home;
            tracing::warn!(node, boot, why, "a peer is gone: others take its sessions");
            self.left.notify_waiters();
        }
    }

    fn is_back(&self) -> bool {
        let was_gone = self.gone.swap(false, Ordering::Relaxed);
        if was_gone {
            tracing::info!(node = self.home.node, "a peer can be reached again");
        }
        was_gone
    }
}

#[cfg(test)]
mod tests;
