//! Connections to one HTTP backend: HTTP/1.1, one shard per worker, so that a
//! connection never leaves the runtime that drives it.

use std::{
    io,
    sync::Arc,
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
    shards: Arc<[CachePadded<Mutex<Vec<Idle>>>]>,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// A connection in use. [`Conn::release`] gives it back; dropped, it is closed.
pub struct Conn {
    sender: Sender,
    shards: Arc<[CachePadded<Mutex<Vec<Idle>>>]>,
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
        while let Some(mut sender) = self.idle(shard) {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.conn(sender, shard))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await?;
        Ok((response, self.conn(sender, shard)))
    }

    fn conn(&self, sender: Sender, shard: usize) -> Conn {
        Conn {
            sender,
            shards: self.shards.clone(),
            shard,
        }
    }

    /// The connection used last: the others age and are closed.
    fn idle(&self, shard: usize) -> Option<Sender> {
        let mut idle = self.shards[shard].lock();
        while let Some(Idle { sender, since }) = idle.pop() {
            if since.elapsed() > IDLE_TIMEOUT {
                idle.clear();
            } else if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Sender, SendError> {
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

    async fn open(&self) -> io::Result<Sender> {
        let tcp = TcpStream::connect((self.origin.host.as_str(), self.origin.port)).await?;
        tcp.set_nodelay(true)?;
        match &self.origin.tls {
            None => drive(TokioIo::new(tcp)).await,
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await?;
                drive(TokioIo::new(tls)).await
            }
        }
    }
}

/// The connection is driven by a task of this very runtime.
async fn drive<I>(io: I) -> io::Result<Sender>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

impl Conn {
    /// Gives the connection back for the next request.
    pub fn release(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.shards[self.shard].lock();
        // Those at the front are never used while there are newer ones.
        let aged = idle.partition_point(|idle| idle.since.elapsed() > IDLE_TIMEOUT);
        idle.drain(..aged);
        if idle.len() < IDLE_MOST {
            idle.push(Idle {
                sender: self.sender,
                since: Instant::now(),
            });
        }
    }
}
