//! Where a backend listens.

use std::{fmt, io, path::PathBuf};

use tokio::net::UnixStream;

use crate::settings::Files;

/// Where a backend listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// On TCP.
    Tcp {
        /// Host name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// On a Unix domain socket of this machine.
    Unix(Socket),
}

/// A Unix domain socket, and which ones may be used.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Its path.
    pub path: PathBuf,
    /// What this node allows.
    pub allowed: Files,
}

impl Socket {
    /// A connection. What is allowed is asked again: links may have changed.
    ///
    /// # Errors
    /// It is not there, not allowed, or nobody listens.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let path = self.allowed.follow(&self.path)?;
        UnixStream::connect(path).await
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(socket) => socket.path.display().fmt(f),
        }
    }
}
