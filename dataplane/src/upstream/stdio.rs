//! Backends that are child processes (specification, stdio): one child for all calls, as the
//! connection of a [`Duplex`](super::duplex::Duplex).
//!
//! [`child`] finds the program, starts it under its [guard](super::guard), logs what it writes to
//! its standard error and ends it; [`lines`] reads and writes the messages.

mod child;
mod lines;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use futures_util::future::{self, BoxFuture, FutureExt};

use super::duplex::{Connection, Duplex, DuplexError, OnNotification, Transport};
use crate::settings::Guard;
use child::Process;

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

/// The backend that this child is. Its child will live on `runtime`; nothing is started.
#[must_use]
pub fn backend(
    config: StdioConfig,
    runtime: tokio::runtime::Handle,
    on_notification: OnNotification,
) -> Duplex {
    Duplex::new(config, runtime, on_notification)
}

impl Transport for StdioConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "stdio"
    }

    fn open(
        &self,
        on_notification: OnNotification,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, DuplexError>> {
        future::lazy(|_| Ok(Box::new(Process::start(self, on_notification)?) as _)).boxed()
    }
}
