//! TLS of the listeners: a certificate from files, read again when they change, or
//! one of the fleet's CA, made in memory and renewed at two thirds of its life.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    SettingsError,
    clock::now_ms,
    identity::{IdentityError, ca::Ca},
};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long a certificate of the CA is good.
const LIFETIME: Duration = Duration::from_hours(24);
/// How often a certificate of the CA is looked at.
const AGAIN: Duration = Duration::from_secs(60);

/// Where the certificate of the listeners comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSource {
    /// PEM files, read again when they change.
    Files {
        /// The certificate, and those between it and its root.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Made by the CA of the fleet for these DNS names and IP addresses.
    Names(Vec<String>),
}

impl TlsSource {
    /// Checks what can be checked before anything is opened.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let Self::Names(names) = self else {
            return Ok(());
        };
        match names
            .iter()
            .find(|n| ServerName::try_from(n.as_str()).is_err())
        {
            None => Ok(()),
            Some(name) => Err(SettingsError::TlsName(name.clone())),
        }
    }
}

/// Files that make no TLS.
#[derive(Debug, thiserror::Error)]
#[error("TLS: {path}: {reason}")]
pub struct BadFile {
    path: PathBuf,
    reason: String,
}

/// The certificate that is shown now.
pub(crate) struct Shown {
    source: Source,
    current: ArcSwap<CertifiedKey>,
}

enum Source {
    Files {
        cert: PathBuf,
        key: PathBuf,
        /// Their texts, to tell a change.
        texts: parking_lot::Mutex<(Vec<u8>, Vec<u8>)>,
    },
    Names(Vec<String>, Arc<Ca>),
}

/// There is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTls {
    #[error(transparent)]
    File(#[from] BadFile),
    #[error(transparent)]
    Ca(#[from] IdentityError),
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the certificate of the listeners")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Shown {
    pub(crate) fn new(source: &TlsSource, ca: &Arc<Ca>) -> Result<Arc<Self>, NoTls> {
        Ok(Arc::new(match source {
            TlsSource::Files { cert, key } => {
                let texts = (text(cert)?, text(key)?);
                Self {
                    current: ArcSwap::from_pointee(read(cert, key, &texts)?),
                    source: Source::Files {
                        cert: cert.clone(),
                        key: key.clone(),
                        texts: texts.into(),
                    },
                }
            }
            TlsSource::Names(names) => Self {
                current: ArcSwap::from_pointee(ca.sign_server(names, LIFETIME)?),
                source: Source::Names(names.clone(), Arc::clone(ca)),
            },
        }))
    }

    /// Whether it is of the fleet's CA.
    pub(crate) fn is_of_the_fleet(&self) -> bool {
        matches!(self.source, Source::Names(..))
    }

    /// What shakes hands. `clients`: they may show certificates of this CA.
    pub(crate) fn acceptor(
        self: &Arc<Self>,
        clients: Option<&Ca>,
        protocols: &[&[u8]],
    ) -> Result<TlsAcceptor, IdentityError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let roots = Arc::new(ca.roots()?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Keeps it good, until dropped. What does not work leaves what is there in use.
    pub(crate) async fn keep(self: Arc<Self>) {
        match &self.source {
            Source::Files { cert, .. } => {
                let mut complained = String::new();
                loop {
                    tokio::time::sleep(LOOK).await;
                    match self.reload() {
                        Ok(true) => {
                            tracing::info!(cert = %cert.display(), "new certificate in use")
                        }
                        Ok(false) => complained.clear(),
                        Err(error) if complained != error.to_string() => {
                            tracing::error!(%error, "certificate not renewed: the one before is used on");
                            complained = error.to_string();
                        }
                        Err(_) => {}
                    }
                }
            }
            Source::Names(names, ca) => {
                let due = || now_ms() + (LIFETIME * 2 / 3).as_millis() as u64;
                let mut renewal = due();
                loop {
                    // By the clock on the wall: this machine may sleep meanwhile.
                    tokio::time::sleep(AGAIN).await;
                    if now_ms() < renewal {
                        continue;
                    }
                    match ca.sign_server(names, LIFETIME) {
                        Ok(renewed) => {
                            self.current.store(Arc::new(renewed));
                            renewal = due();
                        }
                        Err(error) => {
                            tracing::error!(%error, "certificate not renewed: trying again");
                        }
                    }
                }
            }
        }
    }

    /// Reads the files again if they have changed; whether they had.
    pub(crate) fn reload(&self) -> Result<bool, BadFile> {
        let Source::Files { cert, key, texts } = &self.source else {
            return Ok(false);
        };
        let now = (text(cert)?, text(key)?);
        if *texts.lock() == now {
            return Ok(false);
        }
        self.current.store(Arc::new(read(cert, key, &now)?));
        *texts.lock() = now;
        Ok(true)
    }
}

fn text(path: &Path) -> Result<Vec<u8>, BadFile> {
    fs::read(path).map_err(|error| bad(path, error))
}

fn bad(path: &Path, reason: impl std::fmt::Display) -> BadFile {
    BadFile {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn read(cert: &Path, key: &Path, texts: &(Vec<u8>, Vec<u8>)) -> Result<CertifiedKey, BadFile> {
    let chain = CertificateDer::pem_slice_iter(&texts.0)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(cert, format!("not a PEM certificate: {error}")))?;
    if chain.is_empty() {
        return Err(bad(cert, "there is no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_slice(&texts.1)
        .map_err(|error| bad(key, format!("not a PEM private key: {error}")))?;
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())
        .map_err(|error| bad(key, format!("it does not fit the certificate: {error}")))
}
