//! [`Backend`]: one MCP server as the table holds it, and the only builder of
//! its stack.

pub mod timeout;

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use fleet_proto::{hash::Hash, key::Key};
use futures_util::{StreamExt, future::BoxFuture};
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::{Layer, Service};

use crate::{
    call::{Call, Reply},
    catalog::Catalog,
    error::CallError,
    node::Node,
    telemetry::BackendMetrics,
    upstream::Upstream,
};
use timeout::TimeoutLayer;

/// The call path of one backend, boxed once. A service is called by value, so each call has
/// a clone of it; the box is not cloned with it.
type Stack = Box<dyn Fn(Call) -> BoxFuture<'static, Result<Reply, CallError>> + Send + Sync>;

/// Requests of which no client has just sent a word, at a time.
const UNASKED: usize = 64;

/// One MCP server. It lives on across tables as long as its runtime fields and
/// their resolved values stay the same: connections, processes, catalogue and
/// counters with it. Where no more than its limits has changed, a successor takes
/// all that over.
pub struct Backend {
    /// Its key.
    pub key: Arc<Key>,
    /// Never used twice in a process.
    pub serial: u64,
    /// Hash of what its transport is made of, resolved values included.
    pub fingerprint: Hash,
    /// Hash of its runtime fields as they are written.
    pub runtime: Hash,
    /// Longest silence of a call.
    pub timeout: Duration,
    /// The transport.
    pub upstream: Upstream,
    /// What it offers.
    pub catalog: Catalog,
    /// Its counters.
    pub metrics: Arc<BackendMetrics>,
    stack: Stack,
    /// Bounds how many requests of many clients it gets at once, without a word of theirs.
    unasked: OnceLock<Box<Semaphore>>,
    /// Shared with successors over the same transport; `None`: nobody is to close it.
    open: Option<Arc<Open>>,
}

/// What is open upstream, for as long as a table or a call needs it.
struct Open {
    upstream: Upstream,
    node: Weak<Node>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // With its node, everything ends.
        let Some(node) = self.node.upgrade().filter(|_| self.upstream.is_open()) else {
            return;
        };
        let (upstream, worker) = (self.upstream.clone(), node.background_worker());
        node.background
            .spawn(async move { upstream.close(worker).await });
    }
}

/// What a backend is made of.
pub struct Parts {
    /// Its key.
    pub key: Arc<Key>,
    /// Never used twice in a process.
    pub serial: u64,
    /// Hash of what its transport is made of, resolved values included.
    pub fingerprint: Hash,
    /// Hash of its runtime fields as they are written.
    pub runtime: Hash,
    /// Longest silence of a call.
    pub timeout: Duration,
    /// Longest call.
    pub max_duration: Duration,
    /// The transport.
    pub upstream: Upstream,
    /// What it offers, as far as a predecessor knew.
    pub catalog: Catalog,
    /// Its counters.
    pub metrics: Arc<BackendMetrics>,
}

impl Backend {
    /// Puts a backend together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let upstream = parts.upstream.clone();
        Self::over(parts, upstream)
    }

    /// Puts a backend together whose stack ends in this service instead of its transport.
    pub(crate) fn over<S>(parts: Parts, service: S) -> Self
    where
        S: Service<Call, Response = Reply, Error = CallError> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let stack = stack(&parts, service);
        let Parts {
            key,
            serial,
            fingerprint,
            runtime,
            timeout,
            upstream,
            catalog,
            metrics,
            ..
        } = parts;
        Self {
            key,
            serial,
            fingerprint,
            runtime,
            timeout,
            upstream,
            catalog,
            metrics,
            stack,
            unasked: OnceLock::new(),
            open: None,
        }
    }

    /// Ends what it has open upstream when the last table and the last call have let go of it.
    #[must_use]
    pub fn closing(self, node: &Arc<Node>) -> Self {
        let open = Open {
            upstream: self.upstream.clone(),
            node: Arc::downgrade(node),
        };
        Self {
            open: Some(Arc::new(open)),
            ..self
        }
    }

    /// As [`closing`](Self::closing), of the transport that this one has from a predecessor.
    #[must_use]
    pub fn closing_with(self, predecessor: &Self) -> Self {
        Self {
            open: predecessor.open.clone(),
            ..self
        }
    }

    /// Its name, the prefix of what it exposes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.key.name
    }

    /// Waits until it may be asked for something of which no client has just sent a word: it is
    /// to get through a new table, too.
    pub(crate) async fn room_for_unasked(&self) -> Option<SemaphorePermit<'_>> {
        let room = || Box::new(Semaphore::new(UNASKED));
        self.unasked.get_or_init(room).acquire().await.ok()
    }

    /// Sends a call down its stack.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(self: Arc<Self>, call: Call) -> Result<Reply, CallError> {
        // The services are always ready: waiting, where there is any, is part of the call.
        match (self.stack)(call).await? {
            // A backend that is removed meanwhile is closed when the stream has ended.
            Reply::Stream(messages) => Ok(Reply::Stream(Box::pin(messages.map(move |message| {
                let _in_use = &self;
                message
            })))),
            whole => Ok(whole),
        }
    }
}

/// The stack, outer to inner.
fn stack<S>(parts: &Parts, transport: S) -> Stack
where
    S: Service<Call, Response = Reply, Error = CallError> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let timeout = TimeoutLayer::new(parts.key.name.clone(), parts.timeout, parts.max_duration);
    let service = timeout.layer(transport);
    Box::new(move |call| service.clone().call(call))
}
