//! TLS for what listens: certificate and key from files, read again when they
//! change, so that a renewal needs no restart.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The protocols as ALPN names them (RFC 7301, RFC 9113 section 3.1).
pub(crate) const HTTP1: &[u8] = b"http/1.1";
pub(crate) const HTTP2: &[u8] = b"h2";
/// Longest time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time, with connections that wait to be taken; more wait to be
/// accepted.
const HANDSHAKES: usize = 64;
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Admin connections that have shaken hands and are not yet taken.
const QUEUE: usize = 64;

/// Where certificate and key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why files make no TLS.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct BadFile {
    path: PathBuf,
    reason: String,
}

/// What shakes hands with clients.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// Of the admin listener.
    http1: Arc<ServerConfig>,
    /// The texts of the files, to tell a change.
    texts: (Vec<u8>, Vec<u8>),
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read, or they do not fit together; says which.
    pub fn load(files: TlsFiles) -> Result<Self, BadFile> {
        let loaded = read(&files)?;
        Ok(Self {
            files,
            current: ArcSwap::from_pointee(loaded),
        })
    }

    /// Shakes hands; HTTP/2 is offered.
    ///
    /// # Errors
    /// The client does not, or not in time.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        shake(self.current.load().config.clone(), stream).await
    }

    async fn accept_http1(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        shake(self.current.load().http1.clone(), stream).await
    }

    /// Follows the files. Ones that do not work leave those in use that did.
    pub async fn watch(self: Arc<Self>) {
        let mut complained = None;
        loop {
            tokio::time::sleep(LOOK).await;
            match self.reload() {
                Ok(true) => {
                    complained = None;
                    tracing::info!(cert = %self.files.cert.display(), "new certificate in use");
                }
                Ok(false) => complained = None,
                Err(error) if complained.as_ref() != Some(&error.to_string()) => {
                    tracing::error!(%error, "certificate not renewed: the one before is used on");
                    complained = Some(error.to_string());
                }
                Err(_) => {}
            }
        }
    }

    /// Reads the files again if they have changed; whether they had.
    fn reload(&self) -> Result<bool, BadFile> {
        let texts = (text(&self.files.cert)?, text(&self.files.key)?);
        if self.current.load().texts == texts {
            return Ok(false);
        }
        self.current.store(Arc::new(read(&self.files)?));
        Ok(true)
    }
}

async fn shake(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let accepted = TlsAcceptor::from(config).accept(stream);
    let in_time = tokio::time::timeout(HANDSHAKE, accepted).await;
    in_time.unwrap_or_else(|_| {
        let what = "no TLS handshake in time";
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    })
}

fn text(path: &Path) -> Result<Vec<u8>, BadFile> {
    fs::read(path).map_err(|e| BadFile {
        path: path.to_owned(),
        reason: e.to_string(),
    })
}

fn read(files: &TlsFiles) -> Result<Loaded, BadFile> {
    let bad = |path: &Path, reason: String| BadFile {
        path: path.to_owned(),
        reason,
    };
    let texts = (text(&files.cert)?, text(&files.key)?);
    let chain = CertificateDer::pem_slice_iter(&texts.0)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| bad(&files.cert, format!("not a PEM certificate: {e}")))?;
    if chain.is_empty() {
        return Err(bad(&files.cert, "there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&texts.1)
        .map_err(|e| bad(&files.key, format!("not a PEM private key: {e}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&files.cert, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| bad(&files.key, format!("it does not fit the certificate: {e}")))?;
    config.alpn_protocols = vec![HTTP1.to_vec()];
    let http1 = Arc::new(config.clone());
    config.alpn_protocols.insert(0, HTTP2.to_vec());
    Ok(Loaded {
        config: Arc::new(config),
        http1,
        texts,
    })
}

/// A listener for the admin routes: one slow handshake does not hold up another.
#[derive(Debug)]
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    /// Accepts on this listener, until dropped.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn new(listener: TcpListener, tls: Arc<Tls>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(QUEUE);
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        tokio::spawn(async move {
            while !sender.is_closed() {
                // Nobody closes the semaphore.
                let place = places.clone().acquire_owned().await;
                let Ok((stream, from)) = listener.accept().await else {
                    // Out of descriptors: the next accept would fail as fast.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (tls, sender) = (tls.clone(), sender.clone());
                tokio::spawn(async move {
                    let _place = place;
                    match tls.accept_http1(stream).await {
                        // The listener is gone, and so is whoever would serve it.
                        Ok(stream) => drop(sender.send((stream, from)).await),
                        Err(error) => tracing::debug!(%error, "no TLS handshake"),
                    }
                });
            }
        });
        Ok(Self { ready, address })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests;
