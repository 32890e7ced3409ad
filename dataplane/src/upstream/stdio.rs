//! Backends that are child processes: one child, shared by all calls (specification, stdio).
//!
//! On the way of a request this is the last stop. [`Stdio`] is the handle; behind it
//! [`supervise`] starts the child when it is first needed, greets it ([`handshake`]) and
//! starts it again, with backoff, after it has died. [`link`] is the connection to one living
//! child: it gives every call an id (and progress token) of its own, and its source text back
//! to the caller. [`wire`] reads and writes the lines. [`Adapter`] makes it a service of the
//! stack.
//!
//! The child and its tasks live on a background runtime; callers may be on any other.

mod adapter;
mod child;
mod handshake;
mod hidden;
mod link;
mod replies;
mod supervise;
#[cfg(test)]
mod tests;
mod wire;

use std::{collections::BTreeMap, fmt, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;

pub use adapter::Adapter;
pub use replies::{Incoming, Replies};
use supervise::Supervisor;

use crate::{call::Era, settings::Guard};

/// What to run, and how.
#[derive(Clone)]
pub struct StdioConfig {
    /// Name of the backend, for the log.
    pub name: String,
    /// Program: a path (relative to `cwd`), or a name looked up in `PATH`.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables added to those of this process.
    pub env: BTreeMap<String, String>,
    /// Working directory; `None`: that of this process.
    pub cwd: Option<PathBuf>,
    /// What ends the child when this process dies.
    pub guard: Guard,
    /// Directories added at the end of `PATH`, for the lookup and for the child.
    pub extra_path: Vec<PathBuf>,
    /// What references in its texts stood for: not shown where the child writes it to
    /// its standard error.
    pub hidden: Vec<String>,
}

/// Without the values of variables.
impl fmt::Debug for StdioConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdioConfig")
            .field("name", &self.name)
            .field("env", &self.env.keys())
            .finish_non_exhaustive()
    }
}

impl StdioConfig {
    /// Where the program is on this machine, now.
    ///
    /// # Errors
    /// A message: where it was looked for, and what to do.
    pub fn find(&self) -> Result<PathBuf, String> {
        child::find(self)
    }
}

/// Takes notifications that belong to no call: method and whole message. Called on the task
/// that reads from the child, so it must not block.
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
}

/// Where the child is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started yet.
    Idle,
    /// Started or being greeted.
    Starting,
    /// Takes calls.
    Running {
        /// Process id of its guard; without a guard, of the child.
        pid: u32,
    },
    /// Could not be started, or died. The first use after `retry_in` starts it again.
    Backoff {
        /// Time left; zero when it has passed and nobody has used the backend since.
        retry_in: Duration,
        /// Failures in a row.
        failures: u32,
        /// Why, with the last line the child wrote to its standard error.
        error: String,
    },
    /// Shut down for good.
    Closed,
}

/// Why a call got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StdioError {
    /// The program could not be started.
    #[error("cannot start `{command}`: {reason}")]
    Spawn {
        /// The command as configured.
        command: String,
        /// What went wrong and where it was looked for.
        reason: String,
    },
    /// The child runs but does not greet as an MCP server does.
    #[error("the handshake failed: {reason}; is the command an MCP stdio server?")]
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
    /// The child failed a moment ago.
    #[error("the server process failed and is not started again for {} ms: {error}", retry_in.as_millis())]
    Backoff {
        /// Time left.
        retry_in: Duration,
        /// The failure.
        error: Arc<StdioError>,
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

impl StdioError {
    /// The error for clients, who need not know what is run here and where it was looked for.
    #[must_use]
    pub fn for_client(&self) -> String {
        match self {
            Self::Spawn { .. } => "its command cannot be started".to_owned(),
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

    /// The error for the operator: with the last words of the child.
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

/// A stdio backend. Clones share the child; it is ended in an orderly way when the last clone
/// and the last [`Replies`] are gone.
#[derive(Clone)]
pub struct Stdio(Arc<Handle>);

/// Ends the child when the last user is gone.
pub(crate) struct Handle(Arc<Supervisor>);

impl Stdio {
    /// A backend whose child will live on `runtime`. Starts nothing; the first use does.
    #[must_use]
    pub fn new(
        config: StdioConfig,
        runtime: tokio::runtime::Handle,
        on_notification: OnNotification,
    ) -> Self {
        Self(Arc::new(Handle(Supervisor::new(
            config,
            runtime,
            on_notification,
        ))))
    }

    /// Sends a request, starting the child if it does not run; returns when the request is in
    /// the queue to the child. Dropping the [`Replies`] before the response cancels the call.
    ///
    /// # Errors
    /// [`StdioError`] when there is no child to send it to. What happens later is reported
    /// through the [`Replies`].
    ///
    /// # Panics
    /// When a range lies outside the body, or two overlap.
    pub async fn request(&self, request: Request) -> Result<Replies, StdioError> {
        let link = self.0.0.link().await?;
        link.request(request, Some(self.0.clone())).await
    }

    /// Sends a notification. A child that does not run has nothing to be told: it is not
    /// started for this, and the notification is dropped.
    ///
    /// # Errors
    /// [`StdioError`] when the child dies meanwhile.
    pub async fn notify(&self, message: Bytes) -> Result<(), StdioError> {
        match self.0.0.running() {
            Some(link) => link.notify(&message).await,
            None => Ok(()),
        }
    }

    /// What the server said when it was greeted; starts it if it does not run.
    ///
    /// # Errors
    /// [`StdioError`] when it does not start.
    pub async fn hello(&self) -> Result<Arc<Hello>, StdioError> {
        Ok(self.0.0.link().await?.hello())
    }

    /// Name of the backend.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.0.name()
    }

    /// Where the child is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.0.state()
    }

    /// Ends the child for good: closes its input, waits, `SIGTERM`, waits, `SIGKILL`. Returns
    /// when it has ended, 8 s at the most. Calls in flight fail with [`StdioError::Closed`].
    pub async fn shutdown(&self) {
        self.0.0.shutdown().await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdio")
            .field("backend", &self.name())
            .field("state", &self.state())
            .finish()
    }
}
