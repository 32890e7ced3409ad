use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;

/// Writes a certificate for `localhost` that is its own root.
fn certify(files: &TlsFiles) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(&files.cert, cert.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    cert.der().clone()
}

fn files(dir: &Path) -> TlsFiles {
    TlsFiles {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
    }
}

/// Whether a client that trusts `root` gets its byte echoed.
async fn echoes(tls: Arc<Tls>, root: CertificateDer<'static>) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = tls.accept(stream).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await
    });
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    let answer = async {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await?;
        stream.write_u8(7).await?;
        stream.read_u8().await
    };
    let echoed = matches!(answer.await, Ok(7));
    let served = server.await.unwrap().is_ok();
    echoed && served
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let first = certify(&files);
    let tls = Arc::new(Tls::load(files.clone()).unwrap());
    assert!(echoes(tls.clone(), first.clone()).await);
    assert!(!tls.reload().unwrap());

    let second = certify(&files);
    assert!(tls.reload().unwrap());
    assert!(echoes(tls.clone(), second.clone()).await);
    assert!(!echoes(tls.clone(), first).await);

    fs::write(&files.cert, "nonsense").unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("cert.pem"));
    assert!(echoes(tls, second).await);
}

#[tokio::test]
async fn http2_is_offered_to_clients_of_mcp_and_not_on_the_admin_listener() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    certify(&files);
    let tls = Tls::load(files).unwrap();
    let offers = |config: &ServerConfig| config.alpn_protocols.clone();
    let loaded = tls.current.load();
    assert_eq!(offers(&loaded.config), [HTTP2, HTTP1]);
    assert_eq!(offers(&loaded.http1), [HTTP1]);
}

#[test]
fn files_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    assert!(
        Tls::load(files.clone())
            .unwrap_err()
            .to_string()
            .contains("cert.pem")
    );
    certify(&files);
    fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(
        Tls::load(files.clone())
            .unwrap_err()
            .to_string()
            .contains("key.pem")
    );
    fs::write(&files.cert, "").unwrap();
    assert!(
        Tls::load(files)
            .unwrap_err()
            .to_string()
            .contains("no certificate")
    );
}
