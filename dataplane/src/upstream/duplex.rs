//! Backends behind one connection that all calls share: stdio children, WebSockets,
//! the HTTP+SSE transport of 2024-11-05.
//!
//! On the way of a request this is the last stop. [`Duplex`] is the handle; behind it
//! [`supervise`] connects when that is first needed, greets the server ([`handshake`]) and
//! connects again, with backoff, after the connection was lost. [`link`] is what runs over one
//! connection: it gives every call an id (and progress token) of its own, and its source text
//! back to the caller. [`Adapter`] makes it a service of the stack. What a connection is made
//! of, the [`Transport`] knows.
//!
//! The connection and its tasks live on a background runtime; callers may be on any other.

mod adapter;
mod handshake;
mod hidden;
mod link;
mod listening;
mod network;
mod replies;
mod supervise;
mod waiting;
mod watched;
mod wire;

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use adapter::Adapter;
pub(super) use hidden::Hidden;
pub(super) use link::{Link, Queues};
pub(crate) use listening::Listening;
pub use network::Place;
pub(super) use network::{Io, Network, Why};
pub use replies::{Incoming, Replies};
use supervise::Supervisor;
pub(super) use wire::Throttle;

use crate::{
    call::Era,
    session::{Session, inflight::CallId},
    upstream::message::logs::Logs,
};

/// Longest message taken from a server.
pub(super) const MAX_MESSAGE: usize = 64 << 20;
/// News that may wait for who has subscribed to them. More are dropped.
const HEARD: usize = 1024;

/// A way to a server.
pub(super) trait Transport: Send + Sync + 'static {
    /// The backend, for messages.
    fn name(&self) -> &str;

    /// What it is: `stdio`, `websocket`, `sse`.
    fn kind(&self) -> &'static str;

    /// Whether it belongs to the era of `initialize`, and no server need be asked for its era.
    fn is_legacy(&self) -> bool {
        false
    }

    /// Opens a connection, with the tasks that read and write it, on the current runtime. What
    /// they read goes to a new [`Link`], whose [`Queues`] they empty.
    fn open(
        &self,
        on_notification: OnNotification,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, DuplexError>>;
}

/// A connection that lives. Dropped, it ends at once.
pub(super) trait Connection: Send {
    /// What runs over it.
    fn link(&self) -> &Arc<Link>;

    /// Process id of the server, if it is a child.
    fn pid(&self) -> Option<u32> {
        None
    }

    /// To be called when the server has answered.
    fn greeted(&mut self) {}

    /// Waits until it has ended, and is of no use any more. Returns why, when all that the
    /// server has written is delivered. May be dropped and called again.
    fn ended(&mut self) -> BoxFuture<'_, DuplexError>;

    /// Ends it in order.
    fn end(&mut self) -> BoxFuture<'_, ()>;
}

/// Takes notifications that belong to no call: method and whole message. Called on the task
/// that reads from the server, so it must not block.
pub type OnNotification = Arc<dyn Fn(&str, Bytes) + Send + Sync>;

/// A request as the caller has it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The JSON-RPC request. Line breaks between its tokens are allowed.
    pub body: Bytes,
    /// Where the value of `id` is.
    pub id: Range<usize>,
    /// Where the value of `params._meta.progressToken` is, if there is one.
    pub progress_token: Option<Range<usize>>,
    /// Whom the server may ask while it works on this.
    pub(crate) client: Option<Client>,
    /// It is of a client, and no request of the proxy's own: the server may ask about it.
    pub(crate) may_ask: bool,
    /// It is a subscription: what names it in its notifications is for its caller.
    pub(crate) listens: bool,
    /// Which log messages its client is to see.
    pub(crate) logs: Logs,
}

/// Who can be asked: a session, and its call.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) session: Arc<Session>,
    pub(crate) call: CallId,
}

/// What the server said when it was greeted.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Its era.
    pub era: Era,
    /// The version to speak with it.
    pub protocol_version: String,
    /// Source text of its `DiscoverResult` or `InitializeResult`. `{}` from a modern server
    /// that refused to be discovered.
    pub result: Bytes,
    /// Whether it is of the legacy era, and has a level of logs to be set.
    pub logs: bool,
}

/// Where the connection is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not connected yet.
    Idle,
    /// Being opened, or the server being greeted.
    Starting,
    /// Takes calls.
    Running {
        /// Process id of a child's guard; without a guard, of the child.
        pid: Option<u32>,
    },
    /// Could not be opened, or was lost. The first use after `retry_in` opens it again.
    Backoff {
        /// Time left; zero when it has passed and nobody has used the backend since.
        retry_in: Duration,
        /// Failures in a row.
        failures: u32,
        /// Why; of a child, with the last line that it wrote to its standard error.
        error: String,
    },
    /// Shut down for good.
    Closed,
}

/// Why a call got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DuplexError {
    /// The program could not be started.
    #[error("cannot start `{command}`: {reason}")]
    Spawn {
        /// The command as configured.
        command: String,
        /// What went wrong and where it was looked for.
        reason: String,
    },
    /// No connection could be made.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Where it was looked for.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The server is there but does not greet as an MCP server does.
    #[error("the handshake failed: {reason}; is it an MCP server?")]
    Handshake {
        /// What it did instead.
        reason: String,
    },
    /// It speaks none of our protocol versions.
    #[error("it speaks none of the protocol versions known here, only {supported}")]
    Version {
        /// What it speaks, separated by commas.
        supported: String,
    },
    /// The child ended with the call in flight.
    #[error("the server process ended: {status}")]
    Exited {
        /// How: its exit code or signal.
        status: String,
        /// Last line of its standard error. For logs and the operator; may say anything.
        last_words: String,
    },
    /// The connection broke with the call in flight.
    #[error("the connection to the server was lost: {reason}")]
    Lost {
        /// What is known of why.
        reason: String,
    },
    /// It failed a moment ago.
    #[error("the server failed and is not tried again for {} ms: {error}", retry_in.as_millis())]
    Backoff {
        /// Time left.
        retry_in: Duration,
        /// The failure.
        error: Arc<DuplexError>,
    },
    /// The answer to this call is not a valid JSON-RPC response.
    #[error("the server's answer is not a valid response: {reason}")]
    Garbage {
        /// What is wrong with it.
        reason: String,
    },
    /// The backend was removed or the data plane stops.
    #[error("the backend is shut down")]
    Closed,
}

impl DuplexError {
    /// The error for clients, who need not know what is run here and where it was looked for.
    #[must_use]
    pub fn for_client(&self) -> String {
        match self {
            Self::Spawn { .. } => "its command cannot be started".to_owned(),
            Self::Connect { .. } => "it cannot be reached".to_owned(),
            Self::Backoff { retry_in, error } => {
                format!(
                    "{}; tried again in {} ms",
                    error.for_client(),
                    retry_in.as_millis()
                )
            }
            _ => self.to_string(),
        }
    }

    /// The error for the operator: with the last words of a child.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Exited { last_words, .. } if !last_words.is_empty() => {
                format!("{self}; it said last: {last_words}")
            }
            _ => self.to_string(),
        }
    }
}

/// A backend behind one connection, which clones share; it is ended in an orderly way when the last clone
/// and the last [`Replies`] are gone.
#[derive(Clone)]
pub struct Duplex(Arc<Handle>);

/// Ends the connection when the last user is gone.
pub(crate) struct Handle(Arc<Supervisor>);

impl Duplex {
    /// A backend whose connection will live on `runtime`. Opens nothing; the first use does.
    #[must_use]
    pub(super) fn new(
        transport: impl Transport,
        runtime: tokio::runtime::Handle,
        on_notification: OnNotification,
    ) -> Self {
        Self(Arc::new(Handle(Supervisor::new(
            Box::new(transport),
            runtime,
            on_notification,
        ))))
    }

    /// Sends a request, connecting if need be; returns when the request is in
    /// the queue to the server. Dropping the [`Replies`] before the response cancels the call.
    ///
    /// # Errors
    /// [`DuplexError`] when there is no connection to send it over. What happens later is reported
    /// through the [`Replies`].
    ///
    /// # Panics
    /// When a range lies outside the body, or two overlap.
    pub async fn request(&self, request: Request) -> Result<Replies, DuplexError> {
        let link = self.0.0.link().await?;
        link.request(request, Some(self.0.clone())).await
    }

    /// The era of the server, as far as it is known.
    #[must_use]
    pub(crate) fn era(&self) -> Option<Era> {
        self.0.0.era()
    }

    /// Gives the server an answer to what it has asked over this very connection, or the
    /// progress of one. `false`: it is another one now, or takes nothing.
    #[must_use]
    pub(crate) fn deliver(&self, connection: &str, message: &Bytes) -> bool {
        let link = self.0.0.running();
        link.is_some_and(|link| link.deliver(connection, message))
    }

    /// Tells the server that a client has cancelled one of its calls.
    pub(crate) fn cancel(&self, session: &Session, call: CallId) {
        if let Some(link) = self.0.0.running() {
            link.cancel(session, call);
        }
    }

    /// Sends a notification. A server that is not connected to has nothing to be told: that is
    /// not done for this, and the notification is dropped.
    ///
    /// # Errors
    /// [`DuplexError`] when the connection is lost meanwhile.
    pub async fn notify(&self, message: Bytes) -> Result<(), DuplexError> {
        match self.0.0.running() {
            Some(link) => link.notify(&message).await,
            None => Ok(()),
        }
    }

    /// What the server said when it was greeted; connects to it first if need be.
    ///
    /// # Errors
    /// [`DuplexError`] when that fails.
    pub async fn hello(&self) -> Result<Arc<Hello>, DuplexError> {
        Ok(self.0.0.link().await?.hello())
    }

    /// Name of the backend.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.0.name()
    }

    /// What the connection is made of: `stdio`, `websocket`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.0.0.kind()
    }

    /// Where the connection is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.0.state()
    }

    /// Ends the connection for good: of a child, closes its input, waits, `SIGTERM`, waits,
    /// `SIGKILL`. Returns when it has ended, 8 s at the most. Calls in flight fail with [`DuplexError::Closed`].
    pub async fn shutdown(&self) {
        self.0.0.shutdown().await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex")
            .field("backend", &self.name())
            .field("state", &self.state())
            .finish()
    }
}
