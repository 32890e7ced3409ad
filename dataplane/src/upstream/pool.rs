//! Connections to one HTTP backend, one shard per worker, so that a connection never
//! leaves the runtime that it was opened on. A backend that offers HTTP/2 over TLS
//! (ALPN) gets one connection per worker for all its calls.
//!
//! A connection of HTTP/1.1 has no task of its own: whoever uses it drives it, so that an answer
//! wakes the call that waits for it and nothing else. While it is idle nobody does;
//! whether the server has closed it shows when it is taken or [swept](Pool::sweep).

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_utils::CachePadded;
use http::{
    Uri,
    header::HOST,
    uri::{Authority, Scheme},
};
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{call::WorkerId, listen::tls::HTTP2};

/// Longest time to a connection, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Servers close connections that idle; below the shortest usual limit (60 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Silence after which a backend is asked whether it is still there (HTTP/2).
const KEEPALIVE: Duration = Duration::from_secs(20);
/// What a call's answer may have under way over HTTP/2 before it is read, and for how many
/// calls there is room: one whose client does not read must not stop the others.
const WINDOW: u32 = 256 << 10;
const STREAMS: u32 = 256;
/// Idle connections that a shard keeps.
const IDLE_MOST: usize = 256;

type Sender = http1::SendRequest<Full<Bytes>>;
type Sender2 = http2::SendRequest<Full<Bytes>>;
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;
type Shards = Arc<[CachePadded<Mutex<Shard>>]>;

/// Where a backend is.
#[derive(Clone)]
pub struct Origin {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS, for `https`.
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why a request brought no response head.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection could be had: nothing was sent.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        reason: io::Error,
    },
    /// The connection broke before the response head.
    #[error("{0}")]
    Broken(#[from] hyper::Error),
}

/// The connections.
pub struct Pool {
    origin: Origin,
    shards: Shards,
}

/// What a worker keeps.
#[derive(Default)]
struct Shard {
    /// HTTP/1.1, the one used last at the end.
    idle: Vec<Idle>,
    /// HTTP/2.
    shared: Option<Sender2>,
}

struct Idle {
    wire: Wire,
    since: Instant,
}

/// A connection and what drives it.
struct Wire {
    sender: Sender,
    /// `None`: it has ended.
    driver: Option<Driver>,
}

/// A connection in use. [`Conn::release`] gives it back; dropped, it is closed.
pub struct Conn(Option<Own>);

/// One that nobody else uses at the time; HTTP/2 has none.
struct Own {
    wire: Wire,
    shards: Shards,
    shard: usize,
}

/// A new connection.
enum Opened {
    Http1(Wire),
    Http2(Sender2),
}

impl Pool {
    /// An empty pool for this many workers and the background runtime.
    #[must_use]
    pub fn new(origin: Origin, workers: usize) -> Self {
        let shards = (0..=workers)
            .map(|_| CachePadded::new(Mutex::default()))
            .collect();
        Self { origin, shards }
    }

    /// Whether connections use TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.origin.tls.is_some()
    }

    /// Connections that wait for a request.
    #[cfg(test)]
    pub(super) fn idle_now(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().idle.len())
            .sum()
    }

    /// Sends a request and gives the response head with its connection, which
    /// is to be released when the body has been read to its end.
    ///
    /// A kept connection that turns out to be closed before anything was sent
    /// on it is replaced.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &self,
        worker: WorkerId,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Conn), SendError> {
        let shard = worker.0.min(self.shards.len() - 1);
        if let Some(sender) = self.shared(shard) {
            match Box::pin(over_http2(sender, request)).await {
                Ok(response) => return Ok((response, Conn(None))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        while let Some(mut wire) = self.idle(shard) {
            let answer = wire.sender.try_send_request(request);
            match wire.drive(answer).await {
                Ok(response) => return Ok((response, self.conn(wire, shard))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        match Box::pin(self.connect()).await? {
            Opened::Http1(mut wire) => {
                let answer = wire.sender.send_request(request);
                let response = wire.drive(answer).await?;
                Ok((response, self.conn(wire, shard)))
            }
            Opened::Http2(sender) => {
                self.shards[shard].lock().shared = Some(sender.clone());
                let answer = Box::pin(over_http2(sender, request)).await;
                let response = answer.map_err(TrySendError::into_error)?;
                Ok((response, Conn(None)))
            }
        }
    }

    /// The connection that all calls of a worker share, if there is one that lives.
    fn shared(&self, shard: usize) -> Option<Sender2> {
        let mut shard = self.shards[shard].lock();
        shard.shared.take_if(|sender| sender.is_closed());
        shard.shared.clone()
    }

    fn conn(&self, wire: Wire, shard: usize) -> Conn {
        Conn(Some(Own {
            wire,
            shards: self.shards.clone(),
            shard,
        }))
    }

    /// The connection used last: the others age and are closed.
    fn idle(&self, shard: usize) -> Option<Wire> {
        let idle = &mut self.shards[shard].lock().idle;
        while let Some(Idle { mut wire, since }) = idle.pop() {
            if since.elapsed() > IDLE_TIMEOUT {
                idle.clear();
            } else if wire.is_ready() {
                return Some(wire);
            }
        }
        None
    }

    /// Closes the idle connections of a worker that are too old or closed by the server.
    /// Called by that worker from time to time.
    pub fn sweep(&self, worker: WorkerId) {
        let shard = worker.0.min(self.shards.len() - 1);
        let fits = |idle: &mut Idle| idle.since.elapsed() <= IDLE_TIMEOUT && idle.wire.is_ready();
        let mut shard = self.shards[shard].lock();
        shard.idle.retain_mut(fits);
        shard.shared.take_if(|sender| sender.is_closed());
    }

    async fn connect(&self) -> Result<Opened, SendError> {
        let failed = |reason| SendError::Connect {
            address: format!("{}:{}", self.origin.host, self.origin.port),
            reason,
        };
        tokio::time::timeout(CONNECT_TIMEOUT, self.open())
            .await
            .unwrap_or_else(|_| {
                let what = format!("no connection within {CONNECT_TIMEOUT:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, what))
            })
            .map_err(failed)
    }

    async fn open(&self) -> io::Result<Opened> {
        let tcp = TcpStream::connect((self.origin.host.as_str(), self.origin.port)).await?;
        tcp.set_nodelay(true)?;
        match &self.origin.tls {
            None => wire(TokioIo::new(tcp)).await,
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await?;
                if tls.get_ref().1.alpn_protocol() == Some(HTTP2) {
                    return shared(TokioIo::new(tls)).await;
                }
                wire(TokioIo::new(tls)).await
            }
        }
    }
}

/// A connection for many calls is driven by a task of its own.
async fn shared<I>(io: I) -> io::Result<Opened>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * STREAMS)
        .handshake(io);
    let (sender, connection) = handshake.await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(Opened::Http2(sender))
}

/// Sends a request; its URI becomes absolute (RFC 9113, section 8.3.1).
async fn over_http2(
    mut sender: Sender2,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
    if let Some(host) = request.headers().get(HOST) {
        let mut uri = request.uri().clone().into_parts();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Authority::try_from(host.as_bytes()).ok();
        if let Ok(uri) = Uri::from_parts(uri) {
            *request.uri_mut() = uri;
        }
    }
    sender.try_send_request(request).await
}

async fn wire<I>(io: I) -> io::Result<Opened>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
    Ok(Opened::Http1(Wire {
        sender,
        driver: Some(Box::pin(connection)),
    }))
}

impl Wire {
    /// Does `work`, which needs the connection to go on.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.advance(cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    fn advance(&mut self, cx: &mut Context<'_>) {
        let Some(driver) = &mut self.driver else {
            return;
        };
        if let Poll::Ready(ended) = driver.as_mut().poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%error, "upstream connection ended");
            }
            // Who still waits for something of it is told by this.
            self.driver = None;
        }
    }

    /// Whether it takes a request now.
    fn is_ready(&mut self) -> bool {
        self.advance(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }
}

impl Conn {
    /// Does `work`, which reads what comes over this connection.
    pub async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        match &mut self.0 {
            Some(own) => own.wire.drive(work).await,
            None => work.await,
        }
    }

    /// Gives the connection back for the next request.
    pub fn release(self) {
        let Some(Own {
            wire,
            shards,
            shard,
        }) = self.0
        else {
            return;
        };
        if wire.driver.is_none() || wire.sender.is_closed() {
            return;
        }
        let idle = &mut shards[shard].lock().idle;
        // Those at the front are never used while there are newer ones.
        let aged = idle.partition_point(|idle| idle.since.elapsed() > IDLE_TIMEOUT);
        idle.drain(..aged);
        if idle.len() < IDLE_MOST {
            idle.push(Idle {
                wire,
                since: Instant::now(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
