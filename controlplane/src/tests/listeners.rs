//! Clients that are slow, silent or too many hold up nobody.

use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    TlsSource,
    identity::ca::Ca,
    listen::{Limits, accept, tls::Shown},
    store::{Store, sqlite::Sqlite},
    vault,
};

/// A listener with TLS of a fleet of its own, and its limits.
async fn listener(
    limits: Limits,
) -> (
    std::net::SocketAddr,
    mpsc::Receiver<crate::listen::Connection>,
) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.db");
    let store = Sqlite::open(&file).await.unwrap();
    let vault = vault::find(None, &file.into(), false).unwrap();
    let ca = Ca::open(&store, &vault).await.unwrap().into();
    let shown = Shown::new(&TlsSource::Names(vec!["localhost".into()]), &ca).unwrap();
    let acceptor = shown.acceptor(None, &[b"h2"]).unwrap();
    store.close().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, accept(listener, Some(acceptor), limits))
}

const SHORT: Limits = Limits {
    connections: 2,
    patience: Duration::from_millis(200),
};

/// Waits until the other end has closed the connection.
async fn closed(connection: &mut TcpStream) {
    let read = timeout(PATIENCE, connection.read_to_end(&mut Vec::new())).await;
    let _ = read.expect("the connection stays open");
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_let_go_and_holds_up_nobody() {
    let (address, _incoming) = listener(SHORT).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    // A handshake record that never ends (RFC 8446, 5.1).
    slow.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    // The third is one too many.
    let mut third = TcpStream::connect(address).await.unwrap();
    closed(&mut third).await;
    closed(&mut silent).await;
    closed(&mut slow).await;
    // There is room again, once the places are given back.
    let mut next = TcpStream::connect(address).await.unwrap();
    closed(&mut next).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let limits = Limits {
        connections: 10,
        ..SHORT
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut incoming = accept(listener, None, limits);
    let mut client = TcpStream::connect(address).await.unwrap();
    // Almost the preface of HTTP/2.
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM").await.unwrap();
    let mut connection = incoming.recv().await.unwrap();
    assert!(!connection.peer.tls);
    let error = connection.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_client_that_has_said_enough_may_be_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut incoming = accept(listener, None, SHORT);
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&[b'x'; 24]).await.unwrap();
    let mut connection = incoming.recv().await.unwrap();
    connection.read_exact(&mut [0; 24]).await.unwrap();
    let more = timeout(SHORT.patience * 3, connection.read_u8()).await;
    assert!(more.is_err(), "it was ended");
}

#[tokio::test]
async fn certificates_from_files_are_read_again_and_bad_ones_leave_the_old() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let write = |name: &str| {
        let pair = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let own = own.self_signed(&pair).unwrap();
        std::fs::write(&cert, own.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
    };
    let start = async || {
        start(Settings {
            tls: Some(TlsSource::Files {
                cert: cert.clone(),
                key: key.clone(),
            }),
            ..settings(&folder)
        })
        .await
    };
    let error = start().await.err().unwrap().to_string();
    assert!(error.contains("c.pem"), "{error}");
    write("localhost");
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = start().await.err().unwrap().to_string();
    assert!(error.contains("does not fit"), "{error}");
    write("localhost");
    start().await.unwrap().shutdown().await;

    let ca = {
        let vault = vault::find(None, &folder.path().join("fleet.db").into(), true).unwrap();
        let store = Sqlite::open(&folder.path().join("fleet.db")).await.unwrap();
        std::sync::Arc::new(Ca::open(&store, &vault).await.unwrap())
    };
    let source = TlsSource::Files {
        cert: cert.clone(),
        key: key.clone(),
    };
    let shown = Shown::new(&source, &ca).unwrap();
    assert!(!shown.reload().unwrap(), "nothing has changed");
    write("localhost");
    assert!(shown.reload().unwrap());
    std::fs::write(&cert, "nonsense").unwrap();
    shown.reload().unwrap_err();
    write("localhost");
    assert!(shown.reload().unwrap());
}
