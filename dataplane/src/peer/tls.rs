//! Mutual TLS between data planes: each shows the certificate that it comes to the
//! control plane with, and takes nobody but nodes of the same CA.
//!
//! These certificates are for clients (RFC 5280, 4.2.1.12), so that none can stand for a
//! control plane; here both ends are checked as clients are. Which node it is says the
//! URI in the certificate, whatever the address.

use std::{io, sync::Arc};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::{
    control::{Certificate, Identity, node_of},
    listen::tls::HTTP2,
};

/// What this node shows its peers, and takes from them.
pub(super) struct Keys {
    certificate: Certificate,
    /// Of the newest certificate that was used.
    made: ArcSwapOption<Made>,
}

struct Made {
    of: Arc<Identity>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Keys {
    pub(super) fn new(certificate: Certificate) -> Self {
        Self {
            certificate,
            made: ArcSwapOption::empty(),
        }
    }

    /// Whether there is anything to show yet.
    pub(super) fn are_there(&self) -> bool {
        self.certificate.current().is_some()
    }

    /// Shakes hands with who has connected; gives the node that it is.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(server::TlsStream<TcpStream>, String)> {
        let config = Arc::clone(&self.current()?.server);
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let node = node(stream.get_ref().1.peer_certificates())?;
        Ok((stream, node))
    }

    /// Shakes hands with who listens there, which must be this node.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        wanted: &str,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current()?.client);
        // It is not sent, and nobody looks at it.
        let name = ServerName::try_from("peer.invalid").map_err(io::Error::other)?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let found = node(stream.get_ref().1.peer_certificates())?;
        if found == wanted {
            return Ok(stream);
        }
        let what = format!("there is node {found} instead of {wanted}");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
    }

    fn current(&self) -> io::Result<Arc<Made>> {
        let identity = self.certificate.current();
        let identity = identity.ok_or_else(|| io::Error::other("this node has not joined yet"))?;
        let made = self.made.load_full();
        if let Some(made) = made.filter(|made| Arc::ptr_eq(&made.of, &identity)) {
            return Ok(made);
        }
        let made = Arc::new(make(identity).map_err(io::Error::other)?);
        self.made.store(Some(Arc::clone(&made)));
        Ok(made)
    }
}

fn node(chain: Option<&[CertificateDer<'_>]>) -> io::Result<String> {
    let certificate = chain.and_then(<[_]>::first);
    certificate.and_then(node_of).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::PermissionDenied,
            "its certificate names no node",
        )
    })
}

fn make(identity: Arc<Identity>) -> Result<Made, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(identity.ca.clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let chain = vec![identity.certificate.clone()];
    let versions = [&rustls::version::TLS13];
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)?
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(chain.clone(), identity.key_der())?;
    server.alpn_protocols = vec![HTTP2.to_vec()];
    // Whoever resumes shows no certificate again.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OfTheFleet(verifier)))
        .with_client_auth_cert(chain, identity.key_der())?;
    client.alpn_protocols = vec![HTTP2.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
    Ok(Made {
        of: identity,
        server: server.into(),
        client: client.into(),
    })
}

/// Takes servers whose certificate is one of a node of the fleet.
#[derive(Debug)]
struct OfTheFleet(Arc<dyn ClientCertVerifier>);

impl ServerCertVerifier for OfTheFleet {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now);
        verified.map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
