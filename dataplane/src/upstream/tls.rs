//! TLS to backends: the trust store of the system, read once.

use std::sync::{Arc, LazyLock};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio_rustls::TlsConnector;

use crate::listen::tls::{HTTP1, HTTP2};

/// What is offered to a server by ALPN (RFC 7301).
#[derive(Clone, Copy)]
pub enum Offer {
    /// HTTP/2 and HTTP/1.1.
    Both,
    /// HTTP/1.1 only, which can be upgraded.
    Http1,
}

struct Connectors {
    both: TlsConnector,
    http1: TlsConnector,
}

static CONNECTORS: LazyLock<Result<Connectors, String>> = LazyLock::new(|| {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(loaded.certs);
    if taken == 0 {
        return Err(format!(
            "no trusted certificates were found on this node ({:?}): install ca-certificates or set SSL_CERT_FILE",
            loaded.errors
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    let http1 = TlsConnector::from(Arc::new(config.clone()));
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    let both = TlsConnector::from(Arc::new(config));
    Ok(Connectors { both, http1 })
});

/// What connects to a host over TLS.
///
/// # Errors
/// A message: the host is no name that a certificate can have, or the node has
/// no trust store.
pub fn to(host: &str, offer: Offer) -> Result<(TlsConnector, ServerName<'static>), String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|e| format!("host {host}: {e}"))?;
    let connectors = CONNECTORS.as_ref().map_err(String::clone)?;
    let connector = match offer {
        Offer::Both => &connectors.both,
        Offer::Http1 => &connectors.http1,
    };
    Ok((connector.clone(), name))
}
