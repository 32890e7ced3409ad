//! The authority that a control plane shows, before anybody trusts it.
//!
//! Only for `mcpctl login`: nothing is sent on such a connection. What has been shown
//! is then compared with what somebody knows, and trusted like the contents of a file.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{client, failure::Failure};

/// How long a control plane may take to show it.
const PATIENCE: Duration = Duration::from_secs(10);

/// An authority.
pub(crate) struct Shown {
    pub(crate) pem: String,
    /// Of its certificate, in hex.
    pub(crate) sha256: String,
}

/// The authority with this hash, if a control plane shows it.
///
/// # Errors
/// It shows another one, or cannot be reached.
pub(crate) async fn pinned(url: &str, sha256: &str) -> Result<String, Failure> {
    let wanted: String = sha256.chars().filter(|c| *c != ':').collect();
    let shown = shown(url).await?;
    if shown.sha256.eq_ignore_ascii_case(&wanted) {
        return Ok(shown.pem);
    }
    Err(Failure::NotAllowed(format!(
        "{url} shows the authority {}, not {wanted}: it is another control plane, or somebody in between",
        shown.sha256
    )))
}

/// The authority at the end of the chain that a control plane shows.
///
/// # Errors
/// It cannot be reached, or shows none.
pub(crate) async fn shown(url: &str) -> Result<Shown, Failure> {
    let failed = |why: String| Failure::Unreachable(format!("cannot reach {url}: {why}"));
    let authority = client::authority(url);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (
            host,
            port.parse()
                .map_err(|_| failed("the port is no number".to_owned()))?,
        ),
        _ => (authority, 443),
    };
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|e| failed(e.to_string()))?;
    let chain = Arc::new(Chain::default());
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Chain>::clone(&chain))
        .with_no_client_auth();
    let handshake = async {
        let stream = TcpStream::connect((host, port)).await?;
        // It ends by our own refusal; the chain has been seen by then.
        let _ = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        Ok::<_, std::io::Error>(())
    };
    let done = timeout(PATIENCE, handshake).await;
    done.map_err(|_| failed("no answer in time".to_owned()))?
        .map_err(|e| failed(e.to_string()))?;
    let last = chain.0.lock().pop();
    let Some(ca) = last else {
        return Err(failed(
            "it shows no authority: name it with --ca-file".to_owned(),
        ));
    };
    let text = STANDARD.encode(&ca);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    Ok(Shown {
        pem: format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        ),
        sha256: hex::encode(Sha256::digest(&ca)),
    })
}

/// Remembers what follows the certificate of a server, and trusts nobody.
#[derive(Debug, Default)]
struct Chain(Mutex<Vec<CertificateDer<'static>>>);

impl ServerCertVerifier for Chain {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = intermediates.iter().map(|der| der.clone().into_owned());
        *self.0.lock() = chain.collect();
        Err(Error::General("only looked at".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only looked at".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only looked at".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
