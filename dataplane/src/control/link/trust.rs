//! Whom a node takes for a control plane.

use std::sync::{Arc, LazyLock};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest, Sha256};

/// The authorities of the system, read once.
static SYSTEM: LazyLock<Vec<CertificateDer<'static>>> =
    LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

/// Takes servers of known authorities, and of one that only its hash is known of.
#[derive(Debug)]
pub(super) struct Trust {
    known: Option<Arc<WebPkiServerVerifier>>,
    /// SHA-256 of the certificate of an authority, which the server sends along.
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// Trusts these, and with `system` also the system's own.
    pub(super) fn new(
        given: Vec<CertificateDer<'static>>,
        system: bool,
        pin: Option<[u8; 32]>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(given);
        if system {
            roots.add_parsable_certificates(SYSTEM.iter().cloned());
        }
        let known = match roots.is_empty() {
            false => Some(verifier(roots, &provider).map_err(|e| e.to_string())?),
            true if pin.is_some() => None,
            true => {
                return Err(format!(
                    "there is no authority to trust ({taken} given): give --control-plane-ca, a join token \
                     with a pin, or install ca-certificates"
                ));
            }
        };
        Ok(Self {
            known,
            pin,
            provider,
        })
    }
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let check = |verifier: &WebPkiServerVerifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        let unknown = Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let by_known = self.known.as_deref().map_or(unknown, check);
        let Some(pin) = self.pin.filter(|_| by_known.is_err()) else {
            return by_known;
        };
        let is_pinned = |der: &&CertificateDer<'_>| <[u8; 32]>::from(Sha256::digest(der)) == pin;
        match intermediates.iter().find(is_pinned) {
            None => by_known,
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.clone().into_owned())?;
                check(&*verifier(roots, &self.provider)?)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
