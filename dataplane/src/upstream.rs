//! Backends on the wire: opens by kind, and tells which era a backend speaks.

pub mod address;
mod client;
pub mod duplex;
pub mod guard;
pub mod http;
pub mod http1;
mod http2;
pub(crate) mod listening;
pub mod message;
pub mod pool;
pub mod slot;
pub mod sse;
pub mod stdio;
pub mod tls;
pub mod websocket;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tower::Service;

use crate::{
    call::{Call, Era, Reply, WorkerId},
    error::CallError,
};
use listening::{Listening, Wanted};

/// What a backend said of itself when it was met.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The era it was met in.
    pub era: Era,
    /// JSON text of its `DiscoverResult` or `InitializeResult`.
    pub result: Bytes,
}

/// The transport to one backend: the innermost service of its stack.
#[derive(Clone)]
pub enum Upstream {
    /// Streamable HTTP, over TCP or a Unix socket.
    Http(http::Http),
    /// One connection for all calls: a child process, a WebSocket, HTTP+SSE.
    Duplex(Arc<duplex::Adapter>),
    /// Cannot work on this node; every call is told why.
    Broken(Arc<CallError>),
}

impl Upstream {
    /// One that cannot work on this node.
    #[must_use]
    pub fn broken(backend: String, reason: String) -> Self {
        Self::Broken(Arc::new(CallError::unavailable(
            backend,
            "it is not set up on this node",
            reason,
        )))
    }

    /// Opens a stream of notifications: at a backend of the legacy era with subscriptions to the
    /// resources. `None`: the backend offers no such stream.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(crate) async fn subscribe(
        &self,
        worker: WorkerId,
        wanted: Wanted<'_>,
    ) -> Result<Option<Listening>, CallError> {
        match self {
            Self::Http(http) => {
                let stream = http.subscribe(worker, wanted).await?;
                Ok(stream.map(|stream| Listening::Http(Box::new(stream))))
            }
            Self::Duplex(duplex) => {
                let stream = duplex.subscribe(wanted).await?;
                Ok(stream.map(Listening::Duplex))
            }
            Self::Broken(_) => Ok(None),
        }
    }

    /// Whether clients share its connection, and so its subscriptions.
    #[must_use]
    pub(crate) const fn is_shared(&self) -> bool {
        matches!(self, Self::Duplex(_))
    }

    /// Whether it is shut down for good.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Duplex(duplex) => duplex.duplex().state() == duplex::State::Closed,
            Self::Http(http) => http.is_closed(),
            Self::Broken(_) => false,
        }
    }

    /// Waits until it is served no longer; one behind a connection loses that then, which is
    /// noticed anyway.
    pub(crate) async fn until_closed(&self) {
        match self {
            Self::Http(http) => http.until_closed().await,
            Self::Duplex(_) | Self::Broken(_) => std::future::pending().await,
        }
    }

    /// Whether the backend is known to speak this era.
    #[must_use]
    pub(crate) fn speaks(&self, era: Era) -> bool {
        match self {
            Self::Http(http) => http.speaks(era),
            Self::Duplex(duplex) => duplex.duplex().era() == Some(era),
            Self::Broken(_) => true,
        }
    }

    /// What the backend says of itself, asking it where that is not known.
    ///
    /// # Errors
    /// It cannot be reached, or answers garbage.
    pub async fn greet(&self, worker: WorkerId) -> Result<Greeting, CallError> {
        match self {
            Self::Http(http) => http.greet(worker).await,
            Self::Duplex(duplex) => duplex.greet().await,
            Self::Broken(error) => Err(CallError::clone(error)),
        }
    }

    /// Lets go of what is kept for later calls of a worker and has become useless. Called
    /// by each worker from time to time.
    pub fn sweep(&self, worker: WorkerId) {
        if let Self::Http(http) = self {
            http.sweep(worker);
        }
    }

    /// Whether there is anything to [`close`](Self::close).
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Http(http) => http.has_sessions(),
            Self::Duplex(_) => true,
            Self::Broken(_) => false,
        }
    }

    /// Ends what can be ended in order: child processes, upstream sessions.
    pub async fn close(&self, worker: WorkerId) {
        match self {
            Self::Http(http) => http.close(worker).await,
            Self::Duplex(duplex) => duplex.close().await,
            Self::Broken(_) => {}
        }
    }
}

impl Service<Call> for Upstream {
    type Response = Reply;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Reply, CallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        match self {
            Self::Http(http) => {
                let http = http.clone();
                if call.method.is_about_subscription() {
                    return Box::pin(async move { http.subscription(call).await });
                }
                Box::pin(async move { http.call(call).await })
            }
            Self::Duplex(duplex) => {
                let duplex = duplex.clone();
                Box::pin(async move { duplex.call(call).await })
            }
            Self::Broken(error) => {
                let error = CallError::clone(error);
                Box::pin(async move { Err(error) })
            }
        }
    }
}
