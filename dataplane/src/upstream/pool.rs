//! Connections to one HTTP backend: HTTP/1.1, one shard per worker, so that a
//! connection never leaves the runtime that it was opened on.
//!
//! A connection has no task of its own: whoever uses it drives it, so that an answer
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
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::call::WorkerId;

/// Longest time to a connection, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Servers close connections that idle; below the shortest usual limit (60 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Idle connections that a shard keeps.
const IDLE_MOST: usize = 256;

type Sender = http1::SendRequest<Full<Bytes>>;
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;
type Shards = Arc<[CachePadded<Mutex<Vec<Idle>>>]>;

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
pub struct Conn {
    wire: Wire,
    shards: Shards,
    shard: usize,
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
        self.shards.iter().map(|shard| shard.lock().len()).sum()
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
        let mut wire = self.connect().await?;
        let answer = wire.sender.send_request(request);
        let response = wire.drive(answer).await?;
        Ok((response, self.conn(wire, shard)))
    }

    fn conn(&self, wire: Wire, shard: usize) -> Conn {
        Conn {
            wire,
            shards: self.shards.clone(),
            shard,
        }
    }

    /// The connection used last: the others age and are closed.
    fn idle(&self, shard: usize) -> Option<Wire> {
        let mut idle = self.shards[shard].lock();
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
        self.shards[shard].lock().retain_mut(fits);
    }

    async fn connect(&self) -> Result<Wire, SendError> {
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

    async fn open(&self) -> io::Result<Wire> {
        let tcp = TcpStream::connect((self.origin.host.as_str(), self.origin.port)).await?;
        tcp.set_nodelay(true)?;
        match &self.origin.tls {
            None => wire(TokioIo::new(tcp)).await,
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await?;
                wire(TokioIo::new(tls)).await
            }
        }
    }
}

async fn wire<I>(io: I) -> io::Result<Wire>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
    Ok(Wire {
        sender,
        driver: Some(Box::pin(connection)),
    })
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
        self.wire.drive(work).await
    }

    /// Gives the connection back for the next request.
    pub fn release(self) {
        if self.wire.driver.is_none() || self.wire.sender.is_closed() {
            return;
        }
        let mut idle = self.shards[self.shard].lock();
        // Those at the front are never used while there are newer ones.
        let aged = idle.partition_point(|idle| idle.since.elapsed() > IDLE_TIMEOUT);
        idle.drain(..aged);
        if idle.len() < IDLE_MOST {
            idle.push(Idle {
                wire: self.wire,
                since: Instant::now(),
            });
        }
    }
}
