//! [`Link`]: the way to a control plane, and with what this node comes.
//!
//! Beneath the streams: TLS and whom it trusts (`link/trust`), the certificate of
//! this node (`link/identity`), how it is got and renewed (`link/enrol`), or the node
//! token. A certificate that is kept goes before everything else.

use std::{io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::Notify,
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint, Uri},
};

use crate::settings::{Credentials, Secret, Settings, Source};

mod enrol;
pub(crate) mod identity;
mod stream;
#[cfg(test)]
mod tests;
mod trust;

use identity::{Identity, Kept};
use trust::Trust;

/// How long a connection may take, its handshake included.
const CONNECT: Duration = Duration::from_secs(10);
/// How long is waited after a refusal that only people can do something about.
const REFUSED: Duration = Duration::from_secs(60);

/// The way to a control plane cannot be as it was said.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// What is no address.
    #[error(
        "--control-plane {0:?}: it must be an https:// URL with a host, or http:// on this machine"
    )]
    Url(String),
    /// Nothing is encrypted.
    #[error(
        "--control-plane {0} is not on this machine, and http:// is not encrypted: use https://, or give \
         --insecure if that is meant"
    )]
    Plain(String),
    /// There is no file of authorities, or it is none.
    #[error("--control-plane-ca {path}: {reason}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing that a control plane would let this node in with.
    #[error(
        "there is nothing to show to the control plane: give --join-token-file or MCP_FLEET_JOIN_TOKEN \
         (`mcpctl node join-token` makes one), or the node token in --node-token-file or MCP_FLEET_NODE_TOKEN"
    )]
    Nothing,
    /// There is no place for a certificate.
    #[error("a node that joins keeps its key and its certificate: give --data-dir")]
    NoDataDir,
    /// A join token would cross the network unencrypted.
    #[error("a node joins over TLS only: --control-plane must be https://")]
    JoinPlain,
    /// A file cannot be read or made.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
}

/// The way to the control planes.
pub(super) struct Link {
    urls: Vec<String>,
    node_id: String,
    credentials: Credentials,
    /// Authorities that were given.
    authorities: Vec<CertificateDer<'static>>,
    kept: Option<Kept>,
    identity: ArcSwapOption<Identity>,
    /// Why the certificate in use is not good, as far as is known; it may be renewed.
    doubt: Mutex<Doubt>,
    /// One joins or renews at a time.
    turn: tokio::sync::Mutex<()>,
    /// There is another certificate.
    renewed: Notify,
}

/// What is known against a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doubt {
    #[default]
    None,
    /// A control plane did not take it.
    Suspect,
    /// Nor will one renew it.
    Refused,
}

impl Link {
    /// The way that settings describe; `None`: configuration comes from a file.
    pub(super) fn new(settings: &Settings) -> Result<Option<Self>, LinkError> {
        let Source::ControlPlane { urls, credentials } = &settings.source else {
            return Ok(None);
        };
        for url in urls {
            let place = Place::of(url)?;
            if !place.tls && !place.is_local() && !settings.insecure {
                return Err(LinkError::Plain(url.clone()));
            }
        }
        let authorities = credentials.ca.as_deref().map(authorities).transpose()?;
        let kept = settings.data_dir.as_deref().map(Kept::new);
        let found = kept.as_ref().map(Kept::load).transpose();
        // A certificate that is lost must not end the service.
        let identity = found.unwrap_or_else(|error| {
            tracing::error!(%error, "the certificate of this node cannot be used");
            None
        });
        let identity = identity.flatten();
        if let Some(other) = identity.as_ref().filter(|i| i.node_id != settings.node_id) {
            tracing::error!(
                has = other.node_id,
                is = settings.node_id,
                "the certificate in the data directory is of another node id: start with that id, or join \
                 again with a new join token"
            );
        }
        let identity = identity.filter(|identity| identity.node_id == settings.node_id);
        let mut credentials = credentials.clone();
        // A unit that always names a file has an empty one where nodes do not join.
        let is_empty = |token: &Secret| {
            token
                .read()
                .is_err_and(|e| e.kind() == io::ErrorKind::InvalidData)
        };
        if credentials.node_token.is_some() && credentials.join_token.as_ref().is_some_and(is_empty)
        {
            credentials.join_token = None;
        }
        if identity.is_none() && credentials.join_token.is_some() {
            if kept.is_none() {
                return Err(LinkError::NoDataDir);
            }
            if !urls.iter().any(|url| url.starts_with("https://")) {
                return Err(LinkError::JoinPlain);
            }
        } else if identity.is_none() && credentials.node_token.is_none() {
            return Err(LinkError::Nothing);
        }
        Ok(Some(Self {
            urls: urls.clone(),
            node_id: settings.node_id.clone(),
            credentials,
            authorities: authorities.unwrap_or_default(),
            kept,
            identity: ArcSwapOption::new(identity.map(Arc::new)),
            doubt: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            renewed: Notify::new(),
        }))
    }

    /// The addresses of the control planes.
    pub(super) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Whether this node has a certificate, or is to get one.
    pub(super) fn joins(&self) -> bool {
        let is_there = self.identity.load().is_some();
        let is_given = self.credentials.join_token.is_some();
        (is_there || is_given) && self.urls.iter().any(|url| is_tls(url))
    }

    /// The certificate of this node, as soon as it has one.
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.load_full()
    }

    /// How long to wait before this is tried again, beside what others say.
    pub(super) fn patience(&self) -> Duration {
        if *self.doubt.lock() == Doubt::Refused {
            REFUSED
        } else {
            Duration::ZERO
        }
    }

    /// A connection on which this node is known: with its certificate, if it has or
    /// can get one.
    pub(super) async fn connect(&self, url: &str) -> Result<Channel, Status> {
        self.enrol(url).await?;
        let identity = self.identity.load_full().filter(|_| is_tls(url));
        let failed = |error: &Failed| {
            if identity.is_some() && error.blames_the_certificate() {
                self.suspect();
            }
        };
        let connected = self.channel(url, identity.as_deref()).await;
        connected.inspect_err(failed).map_err(Status::from)
    }

    /// A request that shows the node token, if there is no certificate.
    pub(super) fn authorized<T>(&self, url: &str, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        if self.identity.load().is_some() && is_tls(url) {
            return Ok(request);
        }
        let token = self.credentials.node_token.as_ref().ok_or_else(|| {
            Status::unauthenticated(
                "there is no node token, and a certificate is shown over https:// only",
            )
        })?;
        let token = token
            .read()
            .map_err(|e| Status::unauthenticated(format!("the node token cannot be read: {e}")))?;
        request
            .metadata_mut()
            .insert("authorization", bearer(&token)?);
        Ok(request)
    }

    /// A stream has ended like this; `answered`: not before the control plane had said
    /// something. In TLS 1.3 a client learns only after its handshake that its
    /// certificate was not taken (RFC 8446, 4.4.2.4), by a connection that breaks off:
    /// asking for the next certificate tells that from other failures.
    pub(super) fn ended(&self, status: &Status, answered: bool) {
        let broken = [Code::Unknown, Code::Cancelled, Code::Internal];
        if status.code() == Code::Unauthenticated || (!answered && broken.contains(&status.code()))
        {
            self.suspect();
        }
    }

    fn suspect(&self) {
        let mut doubt = self.doubt.lock();
        if *doubt == Doubt::None && self.identity.load().is_some() {
            *doubt = Doubt::Suspect;
        }
    }

    /// A connection, with this certificate or without one.
    async fn channel(&self, url: &str, identity: Option<&Identity>) -> Result<Channel, Failed> {
        let place = Place::of(url).map_err(|e| Failed::Setup(e.to_string()))?;
        // The connector does TLS itself: tonic must not see that there is any.
        let plain = format!("http://{}", place.authority);
        let endpoint = Endpoint::from_shared(plain)
            .map_err(|e| Failed::Setup(e.to_string()))?
            .origin(place.uri.clone())
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        let tls = if place.tls {
            Some((self.tls(identity)?, place.server_name()?))
        } else {
            None
        };
        let address = (place.host, place.port);
        let connector = tower::service_fn(move |_: Uri| {
            let (address, tls) = (address.clone(), tls.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(match tls {
                    None => Stream::Plain(stream),
                    Some((tls, name)) => Stream::Tls(Box::new(
                        TlsConnector::from(tls).connect(name, stream).await?,
                    )),
                }))
            }
        });
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(Failed::Transport)
    }

    fn tls(&self, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, Failed> {
        let setup = |e: rustls::Error| Failed::Setup(e.to_string());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.trust(provider)?));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(vec![identity.certificate.clone()], identity.key_der())
                .map_err(setup)?,
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Whoever resumes shows no certificate again: a new one would go unseen.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// Whom this node takes for a control plane: those of the authorities that were
    /// given, of the CA it has joined, and of the one that its join token names.
    /// Where neither was given, of the system's.
    fn trust(&self, provider: Arc<rustls::crypto::CryptoProvider>) -> Result<Trust, Failed> {
        let identity = self.identity.load();
        let pin = self.join_token().and_then(|token| token.pin);
        let mut roots = self.authorities.clone();
        roots.extend(identity.as_ref().map(|identity| identity.ca.clone()));
        let pinned = pin.is_some() || identity.as_ref().is_some_and(|identity| identity.pinned);
        let system = self.authorities.is_empty() && !pinned;
        Trust::new(roots, system, pin, provider).map_err(Failed::Setup)
    }
}

/// There is no connection.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Setup(String),
    #[error("{}", in_words(.0))]
    Transport(tonic::transport::Error),
}

impl Failed {
    /// Whether the other end did not take the certificate (RFC 8446, 6.2).
    fn blames_the_certificate(&self) -> bool {
        use rustls::AlertDescription as Alert;
        let Self::Transport(error) = self else {
            return false;
        };
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            let inner = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            let found = error
                .downcast_ref::<rustls::Error>()
                .or_else(|| inner.and_then(|inner| inner.downcast_ref()));
            if let Some(rustls::Error::AlertReceived(alert)) = found {
                return matches!(
                    alert,
                    Alert::BadCertificate
                        | Alert::CertificateExpired
                        | Alert::CertificateRevoked
                        | Alert::CertificateUnknown
                        | Alert::UnknownCA
                );
            }
            cause = error.source();
        }
        false
    }
}

impl From<Failed> for Status {
    fn from(failed: Failed) -> Self {
        Self::unavailable(failed.to_string())
    }
}

/// An address.
struct Place {
    uri: Uri,
    authority: String,
    host: String,
    port: u16,
    tls: bool,
}

impl Place {
    fn of(url: &str) -> Result<Self, LinkError> {
        let wrong = || LinkError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(wrong)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let authority = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        Ok(Self {
            authority,
            host,
            port,
            tls,
            uri,
        })
    }

    fn is_local(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    fn server_name(&self) -> Result<ServerName<'static>, Failed> {
        ServerName::try_from(self.host.clone()).map_err(|e| Failed::Setup(e.to_string()))
    }
}

/// The address of this machine on the way to a control plane.
pub(super) async fn local_address(url: &str) -> io::Result<IpAddr> {
    let place = Place::of(url).map_err(io::Error::other)?;
    // Nothing is sent: the system says only which way it would go.
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    if socket
        .connect((place.host.as_str(), place.port))
        .await
        .is_ok()
    {
        return Ok(socket.local_addr()?.ip());
    }
    let socket = UdpSocket::bind("[::]:0").await?;
    socket.connect((place.host.as_str(), place.port)).await?;
    Ok(socket.local_addr()?.ip())
}

fn is_tls(url: &str) -> bool {
    Place::of(url).is_ok_and(|place| place.tls)
}

/// The certificates in a file.
fn authorities(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let wrong = |reason: String| LinkError::Ca {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(wrong("there is no certificate in it".to_owned())),
        Err(e) => Err(wrong(format!("not a PEM certificate: {e}"))),
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Status> {
    let wrong = |_| {
        Status::invalid_argument(
            "the node token cannot be sent: it has characters that no token has",
        )
    };
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a status says, with what caused it.
pub(super) fn told(status: &Status) -> String {
    let cause = std::error::Error::source(status).map(in_words);
    match cause {
        Some(cause) if !status.message().contains(&cause) => {
            format!("{}: {cause}", status.message())
        }
        _ => status.message().to_owned(),
    }
}

/// An error with what caused it: tonic's own text is just "transport error".
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}

/// A connection, encrypted or not.
enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}
