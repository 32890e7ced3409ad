//! HTTP/2 connections to one data plane, a shard per worker: a connection never leaves
//! the runtime that it was opened on.
//!
//! Windows are such that answers which nobody reads stop only themselves: there is room
//! on a connection for as many of them as it may carry.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use crossbeam_utils::CachePadded;
use http::{HeaderMap, Method as Verb, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::timeout};

use super::{Peer, tls::Keys};
use crate::call::WorkerId;

/// Longest time to a connection, TLS handshake included.
const CONNECT: Duration = Duration::from_secs(3);
/// Silence after which a peer is asked whether it is still there, and how long it has to
/// say so: what it holds is given up then.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// What an answer may have under way before it is read.
pub(super) const WINDOW: u32 = 256 << 10;
/// Requests under way that the listener takes on one connection.
pub(super) const STREAMS: u32 = 256;
/// Those that are sent on one before another one is opened: some leave without a word.
const BUSY: usize = 200;
/// Connections that are found closed when they are to be used, one after the other.
const STALE: usize = 4;
/// Longest head of a request, in bytes.
pub(super) const HEAD_MOST: u32 = 80 << 10;

/// What is asked of a peer.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) verb: Verb,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// It cannot be reached, or has not begun with the request.
    #[error("it cannot be reached: {0}")]
    NotSent(io::Error),
    /// The connection broke, and it may have begun.
    #[error("the connection broke: {0}")]
    Lost(hyper::Error),
}

/// The connections.
pub(super) struct Pool(Box<[CachePadded<Mutex<Vec<Wire>>>]>);

#[derive(Clone)]
struct Wire {
    sender: http2::SendRequest<Full<Bytes>>,
    under_way: Arc<AtomicUsize>,
}

/// A request under way. Dropped when its answer has been read.
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// No connections, for this many workers and the background runtime.
    pub(super) fn new(workers: usize) -> Self {
        Self((0..=workers).map(|_| CachePadded::default()).collect())
    }

    fn idle(&self, worker: WorkerId) -> Option<Wire> {
        let mut wires = self.0.get(worker.0)?.lock();
        wires.retain(|wire| !wire.sender.is_closed());
        let free = |wire: &&Wire| wire.under_way.load(Ordering::Relaxed) < BUSY;
        wires.iter().find(free).cloned()
    }

    fn keep(&self, worker: WorkerId, wire: Wire) {
        if let Some(shard) = self.0.get(worker.0) {
            shard.lock().push(wire);
        }
    }
}

impl Peer {
    /// Sends a request; gives the head of the answer, and what is to be kept until the
    /// body has been read.
    pub(super) async fn send(
        &self,
        keys: &Keys,
        worker: WorkerId,
        ask: &Ask,
    ) -> Result<(Response<Incoming>, UnderWay), SendError> {
        let mut why = io::Error::other("each connection closed before it was used");
        for _ in 0..STALE {
            let mut wire = match self.pool.idle(worker) {
                Some(wire) => wire,
                None => {
                    let opened = self.open(keys).await.map_err(SendError::NotSent)?;
                    self.pool.keep(worker, opened.clone());
                    opened
                }
            };
            wire.under_way.fetch_add(1, Ordering::Relaxed);
            let under_way = UnderWay(wire.under_way);
            if let Err(error) = wire.sender.ready().await {
                why = io::Error::other(error);
                continue;
            }
            match wire.sender.try_send_request(ask.request()).await {
                Ok(response) => return Ok((response, under_way)),
                Err(mut failed) => {
                    let unsent = failed.take_message().is_some();
                    let error = failed.into_error();
                    if !unsent && !is_untouched(&error) {
                        return Err(SendError::Lost(error));
                    }
                    why = io::Error::other(error);
                }
            }
        }
        Err(SendError::NotSent(why))
    }

    /// Whether it can be reached now, on a new connection.
    pub(super) async fn answers(&self, keys: &Keys) -> bool {
        self.open(keys).await.is_ok()
    }

    async fn open(&self, keys: &Keys) -> io::Result<Wire> {
        let opened = timeout(CONNECT, async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let stream = keys.connect(stream, &self.home.node).await?;
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW * STREAMS)
                .max_header_list_size(HEAD_MOST)
                .keep_alive_interval(KEEPALIVE)
                .keep_alive_timeout(KEEPALIVE_ANSWER)
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)
        });
        let (sender, connection) = opened
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))??;
        tokio::spawn(async move {
            // Those who wait on it are told.
            let _ = connection.await;
        });
        Ok(Wire {
            sender,
            under_way: Arc::default(),
        })
    }
}

impl Ask {
    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.verb.clone();
        if let Ok(uri) = format!("https://peer.invalid{}", self.path).parse() {
            *request.uri_mut() = uri;
        }
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Whether the peer says that it has not begun: it leaves, or has too much to do (RFC
/// 9113, sections 6.8 and 8.7).
fn is_untouched(error: &hyper::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            let refused = h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            return h2.is_remote() && (refused || h2.is_go_away());
        }
        cause = error.source();
    }
    false
}
