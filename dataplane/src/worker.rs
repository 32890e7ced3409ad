//! Acceptor and workers: one thread per core, each with a runtime of its own.
//!
//! One acceptor hands each connection to the worker that has the fewest
//! (`SO_REUSEPORT` would skew few long connections, and reset queued ones when
//! a listener closes). A connection never leaves its worker.

mod http2;
mod idle;

use std::{
    convert::Infallible,
    io,
    net::TcpStream as StdStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use socket2::{SockFilter, SockRef};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use crate::{
    call::WorkerId,
    listen::{self, tls},
    node::Node,
    peer,
};
use idle::{Busy, Idle, Watched};

/// A client of HTTP/1 that does not finish its request head in this time, idle time before
/// it included, is hung up on, or up to a fifth later; so is one that takes nothing of an
/// answer for as long. One of HTTP/2 loses that answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Silence after which the system asks whether a client is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long connections that were being opened when the listener was barred have to be accepted and
/// to bring their request. Less than the second after which a barred client asks again.
const LATE: Duration = Duration::from_millis(500);
/// How often a worker looks after the connections that it keeps.
const SWEEP: Duration = Duration::from_secs(10);
/// Backends that are looked after at once.
const SWEPT: usize = 64;
/// Connections handed to a worker and not yet taken.
const QUEUE: usize = 1024;

/// The workers of a data plane.
pub struct Workers {
    hands: Vec<Hand>,
    threads: Vec<JoinHandle<()>>,
    closed: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

/// The acceptor's end of a worker.
#[derive(Clone)]
struct Hand {
    connections: mpsc::Sender<(Door, StdStream)>,
    load: Arc<AtomicUsize>,
}

/// Who connects.
#[derive(Clone, Copy)]
enum Door {
    Clients,
    /// Other data planes.
    Peers,
}

/// Gives up its place in the worker's load.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread or its runtime cannot be had.
    pub fn start(node: &Arc<Node>) -> io::Result<Self> {
        let stop = watch::Sender::new(false);
        let (mut hands, mut threads) = (Vec::new(), Vec::new());
        for number in 0..node.workers {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (connections, taken) = mpsc::channel(QUEUE);
            let load = node.loads[number].clone();
            let work = work(
                node.clone(),
                WorkerId(number),
                taken,
                load.clone(),
                stop.subscribe(),
            );
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            threads.push(thread.spawn(move || runtime.block_on(work))?);
            hands.push(Hand { connections, load });
        }
        Ok(Self {
            hands,
            threads,
            closed: watch::Sender::new(false),
            stop,
        })
    }

    /// Accepts connections until [`close`](Self::close), and those that have come by then.
    pub fn accept(&self, listener: TcpListener) -> impl Future<Output = ()> + Send + 'static {
        let hands = self.hands.clone();
        let mut closed = self.closed.subscribe();
        async move {
            tokio::select! {
                () = accept_all(&listener, &hands, Door::Clients) => {}
                () = stopped(&mut closed) => {}
            }
            // Closing a listener resets what waits in its queue, although a balancer may have sent a
            // call by now, which it will not send again. So nobody new gets in first.
            if let Err(error) = bar(&listener) {
                tracing::debug!(%error, "connections may come until the listener closes");
            }
            let _ = tokio::time::timeout(LATE, accept_all(&listener, &hands, Door::Clients)).await;
        }
    }

    /// Accepts connections of other data planes until [`close`](Self::close). Their requests find
    /// another node by themselves from then on.
    pub fn accept_peers(&self, listener: TcpListener) -> impl Future<Output = ()> + Send + 'static {
        let hands = self.hands.clone();
        let mut closed = self.closed.subscribe();
        async move {
            tokio::select! {
                () = accept_all(&listener, &hands, Door::Peers) => {}
                () = stopped(&mut closed) => {}
            }
        }
    }

    /// Ends [`accept`](Self::accept): who connects from then on is refused, and a balancer goes to
    /// another replica. Connections live on.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Ends the connections once their requests are answered, then the threads.
    /// Blocks until they have ended.
    pub fn stop(self) {
        self.stop.send_replace(true);
        drop(self.hands);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

/// Resolves when the workers are to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender being gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Drops what would open a connection: its client asks again after a second, and is refused when
/// the listener is closed by then. Connections that are being opened are completed.
fn bar(listener: &TcpListener) -> io::Result<()> {
    // Classic BPF over the TCP header: flags & SYN ? drop : pass.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(0x30, 0, 0, FLAGS),
        SockFilter::new(0x45, 0, 1, SYN),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ])
}

async fn accept_all(listener: &TcpListener, hands: &[Hand], door: Door) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => hand_over(hands, door, stream).await,
            Err(error) => {
                // Out of descriptors: the next accept would fail as fast.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn hand_over(hands: &[Hand], door: Door, stream: TcpStream) {
    let Some(hand) = hands
        .iter()
        .min_by_key(|hand| hand.load.load(Ordering::Relaxed))
    else {
        return;
    };
    let stream = match stream.into_std() {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a connection was lost before it was served"),
    };
    hand.load.fetch_add(1, Ordering::Relaxed);
    if hand.connections.send((door, stream)).await.is_err() {
        hand.load.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn work(
    node: Arc<Node>,
    worker: WorkerId,
    mut connections: mpsc::Receiver<(Door, StdStream)>,
    load: Arc<AtomicUsize>,
    mut stop: watch::Receiver<bool>,
) {
    let sweeper = tokio::spawn(sweep(node.clone(), worker));
    let (done, mut all_done) = mpsc::channel::<()>(1);
    loop {
        let stream = tokio::select! {
            stream = connections.recv() => stream,
            () = stopped(&mut stop) => None,
        };
        let Some((door, stream)) = stream else { break };
        let place = Place(load.clone());
        let (node, stop, done) = (node.clone(), stop.clone(), done.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection(node, worker, door, stream, stop).await {
                tracing::debug!(%error, "client connection ended");
            }
            drop(done);
        });
    }
    drop(done);
    // Ends when the last connection has dropped its sender.
    let _ = all_done.recv().await;
    sweeper.abort();
}

/// Sees to what a worker keeps and nobody uses.
pub(crate) async fn sweep(node: Arc<Node>, worker: WorkerId) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let table = node.table.load_full();
        for (place, (_, backend)) in table.backends().enumerate() {
            backend.upstream.sweep(worker);
            // No call is to wait for ten thousand of them.
            if place % SWEPT == SWEPT - 1 {
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn connection(
    node: Arc<Node>,
    worker: WorkerId,
    door: Door,
    stream: StdStream,
    stop: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    // A client that has vanished without a word is noticed on a silent stream.
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
    if matches!(door, Door::Peers) {
        return Box::pin(peer::serve::connection(node, worker, stream, stop)).await;
    }
    match node.tls.clone() {
        None => {
            let mut over = stop.clone();
            let preface = tokio::select! {
                preface = has_preface(&stream) => preface?,
                () = stopped(&mut over) => return Ok(()),
            };
            if preface {
                http2::serve(node, worker, stream, stop).await
            } else {
                serve(node, worker, stream, stop).await
            }
        }
        Some(tls) => {
            let stream = tls.accept(stream).await?;
            if stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2) {
                http2::serve(node, worker, stream, stop).await
            } else {
                serve(node, worker, stream, stop).await
            }
        }
    }
}

/// Whether the client begins with HTTP/2, which it knows the server to speak (RFC 9113,
/// sections 3.3 and 3.4).
async fn has_preface(stream: &TcpStream) -> io::Result<bool> {
    // No method of HTTP/1 starts with more than the first letter of this.
    const START: &[u8] = b"PRI * HTTP/2.0";
    let mut start = [0; START.len()];
    let peeked = tokio::time::timeout(HEAD_TIMEOUT, stream.peek(&mut start)).await??;
    Ok(peeked > 1 && START.starts_with(&start[..peeked]))
}

async fn serve<I>(
    node: Arc<Node>,
    worker: WorkerId,
    stream: I,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let idle = Arc::new(Idle::default());
    let stream = Watched::new(stream, &idle);
    let reached = idle.clone().reached(HEAD_TIMEOUT);
    let service = service_fn(move |request| {
        let (node, busy) = (node.clone(), Busy::begin(&idle));
        async move {
            let Ok(response) = listen::serve(node, worker, request).await;
            Ok::<_, Infallible>(busy.until_sent(response))
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Polled when it is woken, and not whenever the connection is.
    let mut aside: FuturesUnordered<_> = [async move {
        tokio::select! {
            () = stopped(&mut stop) => Ended::Stopped,
            () = reached => Ended::Idle,
        }
    }]
    .into_iter()
    .collect();
    tokio::pin!(connection);
    let why = tokio::select! {
        biased;
        ended = connection.as_mut() => return Ok(ended?),
        why = aside.next() => why,
    };
    if let Some(Ended::Idle) = why {
        return Ok(());
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}

/// Why a connection ends that its client keeps open.
enum Ended {
    Stopped,
    Idle,
}
