//! What the end-to-end tests cannot see: silence, TLS, servers without the subprotocol.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Uri};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::Handle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::accept_async;

use super::*;
use crate::upstream::duplex::State;

const INITIALIZED: &str =
    r#"{"jsonrpc":"2.0","id":ID,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
const REFUSED: &str = r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32601,"message":"no"}}"#;

/// Answers the handshake of MCP; pings only where `lives`. It knows no subprotocol.
async fn serve(io: impl AsyncRead + AsyncWrite + Unpin, lives: bool) {
    let Ok(mut socket) = accept_async(io).await else {
        return;
    };
    while let Some(Ok(frame)) = socket.next().await {
        let Message::Text(text) = frame else { continue };
        let rest = text.split_once(r#""id":"#).map_or("", |(_, rest)| rest);
        let Some((id, _)) = rest.split_once(',') else {
            continue;
        };
        let greeted = text.contains(r#""initialize""#);
        let answer = if greeted { INITIALIZED } else { REFUSED };
        let answer = answer.replace("ID", id);
        socket.send(Message::text(answer)).await.unwrap();
        if greeted && !lives {
            // It reads nothing more, and so answers no ping.
            std::future::pending::<()>().await;
        }
    }
}

async fn server(tls: Option<TlsAcceptor>, lives: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Some(tls) = tls else {
                    return serve(tcp, lives).await;
                };
                if let Ok(io) = tls.accept(tcp).await {
                    serve(io, lives).await;
                }
            });
        }
    });
    port
}

fn config(port: u16, keep_alive: Duration) -> WebSocketConfig {
    WebSocketConfig {
        name: "test".to_owned(),
        url: format!("ws://localhost:{port}/ws").parse::<Uri>().unwrap(),
        place: Place {
            host: "localhost".to_owned(),
            port,
            tls: None,
        },
        headers: HeaderMap::new(),
        hidden: Vec::new(),
        keep_alive,
    }
}

fn opened(config: WebSocketConfig) -> Duplex {
    backend(config, Handle::current(), Arc::new(|_, _| {}))
}

#[tokio::test]
async fn a_server_that_knows_no_subprotocol_is_spoken_to_all_the_same() {
    let duplex = opened(config(server(None, true).await, KEEP_ALIVE));
    let hello = duplex.hello().await.unwrap();
    assert_eq!(hello.protocol_version, "2025-11-25");
    assert_eq!(duplex.state(), State::Running { pid: None });
    duplex.shutdown().await;
    assert_eq!(duplex.state(), State::Closed);
}

#[tokio::test]
async fn a_server_that_answers_no_ping_is_lost() {
    let silent = config(server(None, false).await, Duration::from_millis(100));
    let silent = opened(silent);
    silent.hello().await.unwrap();
    let lost = loop {
        match silent.state() {
            State::Running { .. } => time::sleep(Duration::from_millis(10)).await,
            State::Backoff { error, .. } => break error,
            state => panic!("{state:?}"),
        }
    };
    assert_eq!(
        lost,
        "the connection to the server was lost: nothing was heard for 200ms"
    );
}

#[tokio::test]
async fn a_server_that_answers_pings_is_kept() {
    let living = opened(config(server(None, true).await, Duration::from_millis(200)));
    living.hello().await.unwrap();
    // Several times as long as the longest silence.
    time::sleep(Duration::from_secs(2)).await;
    assert_eq!(living.state(), State::Running { pid: None });
}

fn certificate() -> (CertificateDer<'static>, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let cert = cert.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], key)
        .unwrap();
    (cert, TlsAcceptor::from(Arc::new(server)))
}

/// What trusts this certificate only.
fn trusting(cert: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(cert).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(client))
}

#[tokio::test]
async fn a_certificate_is_checked() {
    let ((cert, acceptor), (other, _)) = (certificate(), certificate());
    let port = server(Some(acceptor), true).await;
    let over_tls = |cert, name: &'static str| {
        let mut config = config(port, KEEP_ALIVE);
        config.place.tls = Some((trusting(cert), ServerName::try_from(name).unwrap()));
        config
    };
    let right = opened(over_tls(cert.clone(), "localhost"));
    right.hello().await.unwrap();
    for wrong in [over_tls(other, "localhost"), over_tls(cert, "example.com")] {
        let error = opened(wrong).hello().await.unwrap_err();
        assert!(matches!(error, DuplexError::Connect { .. }), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
        assert_eq!(error.for_client(), "it cannot be reached");
    }
}
