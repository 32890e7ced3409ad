//! Connections over the network: where they lead, and the two tasks that serve one.

use std::{
    fmt, io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Connection, DuplexError, Link};

/// Longest time until a server can be spoken to: TCP, TLS, and what its transport begins with.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what has arrived may take to be read, and a server to take its leave.
const DRAIN: Duration = Duration::from_secs(1);
/// Silence after which the system asks whether the other end is still there, and how often.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));

/// What TCP or TLS gives.
pub(in crate::upstream) trait Io:
    AsyncRead + AsyncWrite + Send + Unpin
{
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where a server is.
#[derive(Clone)]
pub struct Place {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS, where the address asks for it. HTTP/1.1 must be what is agreed on.
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Place {
    /// A connection.
    pub(in crate::upstream) async fn connect(&self) -> io::Result<Box<dyn Io>> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        let (time, interval) = KEEP_ALIVE;
        let keep_alive = TcpKeepalive::new().with_time(time).with_interval(interval);
        SockRef::from(&tcp).set_tcp_keepalive(&keep_alive)?;
        Ok(match &self.tls {
            None => Box::new(tcp),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), tcp).await?),
        })
    }

    /// What `connecting` gives, in time.
    pub(in crate::upstream) async fn in_time<T>(
        &self,
        connecting: impl Future<Output = Result<T, String>>,
    ) -> Result<T, DuplexError> {
        let connected = timeout(CONNECT_TIMEOUT, connecting).await;
        let connected =
            connected.unwrap_or_else(|_| Err(format!("not done within {CONNECT_TIMEOUT:?}")));
        connected.map_err(|reason| DuplexError::Connect {
            address: self.to_string(),
            reason,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why a connection has ended: who knows first says it.
#[derive(Clone, Default)]
pub(in crate::upstream) struct Why(Arc<OnceLock<String>>);

impl Why {
    pub(in crate::upstream) fn is(&self, reason: impl Into<String>) {
        let _ = self.0.set(reason.into());
    }
}

/// A connection that is served by a task that reads and one that writes. Each says
/// [why](Why) it has ended, and breaks the link.
pub(in crate::upstream) struct Network {
    link: Arc<Link>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    leave: Arc<Notify>,
    why: Why,
}

impl Network {
    /// Starts the two, on the current runtime. When `leave` is notified, the writer is to take
    /// its leave of the server.
    pub(in crate::upstream) fn new(
        link: &Arc<Link>,
        leave: &Arc<Notify>,
        why: &Why,
        reader: impl Future<Output = ()> + Send + 'static,
        writer: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self {
            link: link.clone(),
            reader: tokio::spawn(reader),
            writer: tokio::spawn(writer),
            leave: leave.clone(),
            why: why.clone(),
        }
    }

    /// Waits until what the server has said before is read.
    async fn drain(&mut self) {
        if !self.reader.is_finished() {
            let _ = timeout(DRAIN, &mut self.reader).await;
        }
    }
}

impl Connection for Network {
    fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn ended(&mut self) -> BoxFuture<'_, DuplexError> {
        Box::pin(async move {
            self.link.broken().await;
            self.drain().await;
            let reason = self.why.0.get().cloned();
            DuplexError::Lost {
                reason: reason.unwrap_or_else(|| "it was closed".to_owned()),
            }
        })
    }

    fn end(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.leave.notify_one();
            self.drain().await;
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
        self.link.close(&DuplexError::Closed);
    }
}
