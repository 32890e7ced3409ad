//! Connections to one HTTP backend, one shard per worker, so that a connection never
//! leaves the runtime that it was opened on. A backend that offers HTTP/2 over TLS
//! (ALPN) gets one connection per worker for all its calls.
//!
//! A connection of HTTP/1.1 has no task of its own: whoever uses it drives it
//! ([http1](super::http1)), so that an answer wakes the call that waits for it and nothing
//! else. While it is idle nobody does; whether the server has closed it shows when it is taken
//! or [swept](Pool::sweep).

use std::{
    io,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{
    address::Address,
    http1::{Head, Io, Wire, WireError},
    http2,
};
use crate::{call::WorkerId, listen::tls::HTTP2};

/// Longest time to a connection, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Servers close connections that idle; below the shortest usual limit (60 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Idle connections that a shard keeps.
const IDLE_MOST: usize = 256;

/// Made by the first connection of its worker: most of ten thousand backends have none. So each
/// is in the memory of its own thread, too.
type Shards = Box<[OnceLock<Arc<Mutex<Shard>>>]>;

/// Where a backend is.
#[derive(Clone)]
pub struct Origin {
    /// The address.
    pub address: Address,
    /// TLS, for `https`; not on a Unix socket.
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// What is asked of a backend.
pub struct Ask<'a> {
    /// The method.
    pub verb: &'static str,
    /// Path and query.
    pub path: &'a str,
    /// Writes the header lines, each with its line end, but for the length.
    pub lines: &'a (dyn Fn(&mut Vec<u8>) + Sync),
    /// The body.
    pub body: Bytes,
}

/// Why a request brought no response head.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection could be had: nothing was sent.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Host and port, or path.
        address: String,
        /// Why.
        reason: io::Error,
    },
    /// The connection broke before the response head.
    #[error(transparent)]
    Broken(#[from] ReadError),
}

/// Why a response cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] WireError),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    /// The body is longer than its reader takes.
    #[error("a body of more than {0} bytes")]
    TooLarge(usize),
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
    shared: Option<http2::Sender>,
}

struct Idle {
    wire: Box<Wire>,
    since: Instant,
}

/// A response's body, read as it comes. Read to its end, its connection is free for the next
/// request; dropped before that, it is closed.
pub struct Received(Source);

enum Source {
    Http1(Own),
    Http2(hyper::body::Incoming),
    Done,
}

/// A connection that nobody else uses at the time.
struct Own {
    wire: Box<Wire>,
    shard: Arc<Mutex<Shard>>,
}

/// A new connection.
enum Opened {
    Http1(Box<Wire>),
    Http2(http2::Sender),
}

impl Pool {
    /// An empty pool for this many workers and the background runtime.
    #[must_use]
    pub fn new(origin: Origin, workers: usize) -> Self {
        let shards = (0..=workers).map(|_| OnceLock::new()).collect();
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
        let shards = self.shards.iter().filter_map(OnceLock::get);
        shards.map(|shard| shard.lock().idle.len()).sum()
    }

    /// Sends a request and gives the response's head, and its body to be read.
    ///
    /// A kept connection that turns out to be closed before anything was sent
    /// on it is replaced.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &self,
        worker: WorkerId,
        ask: &Ask<'_>,
    ) -> Result<(Head, Received), SendError> {
        let shard = worker.0.min(self.shards.len() - 1);
        if let Some(sender) = self.shared(shard)
            && let Some(answer) = Box::pin(http2::send(sender, ask)).await
        {
            return over_http2(answer);
        }
        while let Some(mut wire) = self.idle(shard) {
            match wire.send(|out| ask.write(out), &ask.body).await {
                Ok(head) => return Ok((head, self.received(wire, shard))),
                Err(WireError::Unsent) => {}
                Err(error) => return Err(ReadError::from(error).into()),
            }
        }
        match Box::pin(self.connect()).await? {
            Opened::Http1(mut wire) => {
                let head = wire.send(|out| ask.write(out), &ask.body).await;
                let head = head.map_err(ReadError::from)?;
                Ok((head, self.received(wire, shard)))
            }
            Opened::Http2(sender) => {
                self.shard(shard).lock().shared = Some(sender.clone());
                match Box::pin(http2::send(sender, ask)).await {
                    Some(answer) => over_http2(answer),
                    None => Err(ReadError::from(WireError::Unsent).into()),
                }
            }
        }
    }

    /// The connection that all calls of a worker share, if there is one that lives.
    fn shared(&self, shard: usize) -> Option<http2::Sender> {
        // Only https can have one.
        self.origin.tls.as_ref()?;
        let mut shard = self.shards[shard].get()?.lock();
        shard.shared.take_if(|sender| sender.is_closed());
        shard.shared.clone()
    }

    fn shard(&self, shard: usize) -> &Arc<Mutex<Shard>> {
        self.shards[shard].get_or_init(Arc::default)
    }

    fn received(&self, wire: Box<Wire>, shard: usize) -> Received {
        let own = Own {
            wire,
            shard: self.shard(shard).clone(),
        };
        let mut received = Received(Source::Http1(own));
        received.settle();
        received
    }

    /// The connection used last: the others age and are closed.
    fn idle(&self, shard: usize) -> Option<Box<Wire>> {
        let idle = &mut self.shards[shard].get()?.lock().idle;
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
        let Some(shard) = self.shards[shard].get() else {
            return;
        };
        let mut shard = shard.lock();
        shard.idle.retain_mut(fits);
        if shard.idle.is_empty() {
            shard.idle = Vec::new();
        }
        shard.shared.take_if(|sender| sender.is_closed());
    }

    async fn connect(&self) -> Result<Opened, SendError> {
        let failed = |reason| SendError::Connect {
            address: self.origin.address.to_string(),
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
        let tcp = match &self.origin.address {
            Address::Unix(socket) => {
                let io = Io::Unix(socket.connect().await?);
                return Ok(Opened::Http1(Box::new(Wire::new(io))));
            }
            Address::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await?,
        };
        tcp.set_nodelay(true)?;
        let io = match &self.origin.tls {
            None => Io::Tcp(tcp),
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await?;
                if tls.get_ref().1.alpn_protocol() == Some(HTTP2) {
                    return http2::open(tls).await.map(Opened::Http2);
                }
                Io::Tls(Box::new(tls))
            }
        };
        Ok(Opened::Http1(Box::new(Wire::new(io))))
    }
}

impl Ask<'_> {
    /// Request line and header lines, as HTTP/1.1 writes them.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.verb.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.path.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        (self.lines)(out);
    }
}

fn over_http2(answer: hyper::Result<http2::Answer>) -> Result<(Head, Received), SendError> {
    let (head, body) = answer.map_err(ReadError::from)?.into_parts();
    let head = Head::of_map(head.status, head.headers);
    Ok((head, Received(Source::Http2(body))))
}

impl Received {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, or what comes is no HTTP.
    pub async fn frame(&mut self) -> Result<Option<Bytes>, ReadError> {
        let piece = match &mut self.0 {
            Source::Http1(own) => own.wire.frame().await?,
            Source::Http2(body) => http2::frame(body).await?,
            Source::Done => return Ok(None),
        };
        if piece.is_none() {
            self.settle();
        }
        Ok(piece)
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`frame`](Self::frame); it has more than `most` bytes.
    pub async fn collect(mut self, most: usize) -> Result<Bytes, ReadError> {
        let body = match &mut self.0 {
            Source::Http1(own) => own.wire.collect(most).await,
            Source::Http2(body) => return Box::pin(http2::collect(body, most)).await,
            Source::Done => return Ok(Bytes::new()),
        };
        let body = body.map_err(|error| match error {
            WireError::TooLarge(most) => ReadError::TooLarge(most),
            other => other.into(),
        })?;
        self.settle();
        Ok(body)
    }

    /// Whether its end is there already.
    pub fn is_over(&mut self) -> bool {
        match &mut self.0 {
            Source::Http1(own) => {
                let over = own.wire.is_over();
                self.settle();
                over
            }
            Source::Http2(body) => hyper::body::Body::is_end_stream(body),
            Source::Done => true,
        }
    }

    /// Gives a connection back whose body was read to its end.
    fn settle(&mut self) {
        match &self.0 {
            Source::Http1(own) if own.wire.is_done() => {
                if let Source::Http1(own) = std::mem::replace(&mut self.0, Source::Done) {
                    own.release();
                }
            }
            _ => {}
        }
    }
}

impl Own {
    fn release(mut self) {
        if !self.wire.is_kept() {
            return;
        }
        self.wire.rest();
        let idle = &mut self.shard.lock().idle;
        let now = Instant::now();
        // Those at the front are never used while there are newer ones.
        let aged = idle.partition_point(|idle| now - idle.since > IDLE_TIMEOUT);
        idle.drain(..aged);
        if idle.len() < IDLE_MOST {
            idle.push(Idle {
                wire: self.wire,
                since: now,
            });
        }
    }
}

#[cfg(test)]
mod tests;
