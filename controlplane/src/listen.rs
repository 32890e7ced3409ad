//! What listens: connections, shaken hands with where there is TLS, and limited.
//!
//! Before `api` and `sync` on every way. A client that is slow to shake hands or to
//! say its first words holds up nobody and does not stay; there are only so many
//! connections at once.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

pub(crate) mod tls;

/// Longest time for a handshake, and then for the first words.
const PATIENCE: Duration = Duration::from_secs(10);
/// After running out of descriptors: the next accept would fail as fast.
const AGAIN: Duration = Duration::from_millis(50);
/// Connections that are ready and not yet taken.
const QUEUE: usize = 64;
/// The first words: as long as the preface of HTTP/2 (RFC 9113, 3.4), and hardly a
/// request of HTTP/1.1 is shorter.
const FIRST_WORDS: usize = 24;

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at once.
    pub(crate) connections: usize,
    /// How long a handshake may take, and then the first words.
    pub(crate) patience: Duration,
}

impl Limits {
    pub(crate) const fn of(connections: usize) -> Self {
        Self {
            connections,
            patience: PATIENCE,
        }
    }
}

/// Who is at the other end. Found in the extensions of every request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The connection is encrypted.
    pub(crate) tls: bool,
    /// The certificate that the client has shown, of this fleet's CA.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A connection, ready for HTTP.
pub(crate) struct Connection {
    io: Io,
    pub(crate) peer: Peer,
    /// Until when first words must have come; `None`: they have.
    silence: Option<(usize, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts connections until the receiver is dropped.
pub(crate) fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: Limits,
) -> mpsc::Receiver<Connection> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        tokio::select! {
            () = accept_all(&listener, tls, limits, &sender) => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

async fn accept_all(
    listener: &TcpListener,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    sender: &mpsc::Sender<Connection>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut full = false;
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            sleep(AGAIN).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if !full {
                let most = limits.connections;
                tracing::warn!(most, %address, "too many connections: new ones are closed at once");
            }
            full = true;
            continue;
        };
        full = false;
        // It is a hint: calls work without it.
        let _ = stream.set_nodelay(true);
        let (tls, sender) = (tls.clone(), sender.clone());
        tokio::spawn(async move {
            match greet(stream, tls, limits.patience).await {
                Ok((io, certificate)) => {
                    let peer = Peer {
                        address,
                        tls: matches!(io, Io::Tls(_)),
                        certificate,
                    };
                    let connection = Connection {
                        io,
                        peer,
                        silence: Some((FIRST_WORDS, Box::pin(sleep(limits.patience)))),
                        _place: place,
                    };
                    // The server is gone, and so is whoever would serve it.
                    let _ = sender.send(connection).await;
                }
                Err(error) => tracing::debug!(%address, %error, "no TLS handshake"),
            }
        });
    }
}

type Greeted = (Io, Option<CertificateDer<'static>>);

async fn greet(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    patience: Duration,
) -> io::Result<Greeted> {
    let Some(tls) = tls else {
        return Ok((Io::Plain(stream), None));
    };
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "not in time"));
    let stream = timeout(patience, tls.accept(stream)).await;
    let stream = stream.unwrap_or_else(late)?;
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|chain| chain.first().cloned());
    Ok((
        Io::Tls(Box::new(stream)),
        certificate.map(CertificateDer::into_owned),
    ))
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buffer),
        };
        let Some((missing, until)) = &mut self.silence else {
            return read;
        };
        if read.is_pending() {
            ready!(until.as_mut().poll(cx));
            let silent = io::Error::new(io::ErrorKind::TimedOut, "nothing was said in time");
            return Poll::Ready(Err(silent));
        }
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            self.silence = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
