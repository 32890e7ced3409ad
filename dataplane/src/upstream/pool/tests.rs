use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use http::header::HOST;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::listen::tls::HTTP1;

const WORKER: WorkerId = WorkerId(0);

/// A server that answers with its request's body and counts its connections.
struct Server {
    pool: Pool,
    accepted: Arc<AtomicUsize>,
    /// Ends the connections when dropped.
    connections: Arc<Mutex<JoinSet<()>>>,
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = request.headers().contains_key(HOST) || request.uri().host().is_some();
    assert!(host, "a request without a host");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Ok(Response::new(Full::new(body)))
}

fn ask(text: &'static str) -> Ask<'static> {
    Ask {
        verb: "POST",
        path: "/mcp",
        lines: &|out: &mut Vec<u8>| out.extend_from_slice(b"host: localhost\r\n"),
        body: Bytes::from_static(text.as_bytes()),
    }
}

impl Server {
    async fn plain() -> Self {
        Self::start(None).await
    }

    async fn tls(offers: &[&[u8]]) -> Self {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let cert = cert.self_signed(&key).unwrap().der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(cert.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        server.alpn_protocols = offers.iter().map(|offer| offer.to_vec()).collect();
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        let connector = TlsConnector::from(Arc::new(client));
        Self::start(Some((TlsAcceptor::from(Arc::new(server)), connector))).await
    }

    async fn start(tls: Option<(TlsAcceptor, TlsConnector)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (acceptor, connector) = tls.unzip();
        let origin = Origin {
            address: Address::Tcp {
                host: "localhost".to_owned(),
                port,
            },
            tls: connector.map(|c| (c, ServerName::try_from("localhost").unwrap())),
        };
        let (accepted, connections) = (Arc::<AtomicUsize>::default(), Arc::default());
        let server = Self {
            pool: Pool::new(origin, 1),
            accepted: Arc::clone(&accepted),
            connections: Arc::clone(&connections),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Relaxed);
                let acceptor = acceptor.clone();
                connections.lock().spawn(async move {
                    let Some(acceptor) = acceptor else {
                        let connection = conn::http1::Builder::new();
                        let io = TokioIo::new(stream);
                        let _ = connection.serve_connection(io, service_fn(echo)).await;
                        return;
                    };
                    let stream = acceptor.accept(stream).await.unwrap();
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
                    let io = TokioIo::new(stream);
                    if http2 {
                        let connection = conn::http2::Builder::new(TokioExecutor::new());
                        let _ = connection.serve_connection(io, service_fn(echo)).await;
                    } else {
                        let connection = conn::http1::Builder::new();
                        let _ = connection.serve_connection(io, service_fn(echo)).await;
                    }
                });
            }
        });
        server
    }

    async fn call(&self, text: &'static str) -> Result<Bytes, SendError> {
        let (_, body) = self.pool.send(WORKER, &ask(text)).await?;
        Ok(body.collect(1 << 20).await?)
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    /// Closes all connections, and waits until this is seen here.
    async fn hang_up(&self) {
        let mut connections = std::mem::take(&mut *self.connections.lock());
        connections.shutdown().await;
        let none_is_left = || {
            self.pool.sweep(WORKER);
            let shard = self.pool.shard(WORKER.0).lock();
            shard.idle.is_empty() && shard.shared.is_none()
        };
        let seen = async {
            while !none_is_left() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_connection_is_used_again_and_one_that_was_closed_is_swept() {
    let server = Server::plain().await;
    for text in ["one", "two", "three"] {
        assert_eq!(server.call(text).await.unwrap(), text);
    }
    assert_eq!((server.accepted(), server.pool.idle_now()), (1, 1));
    server.hang_up().await;
    assert_eq!(server.call("four").await.unwrap(), "four");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn an_answer_that_is_left_closes_its_connection() {
    let server = Server::plain().await;
    drop(server.pool.send(WORKER, &ask("x")).await.unwrap());
    assert_eq!(server.pool.idle_now(), 0);
    assert_eq!(server.call("y").await.unwrap(), "y");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn http2_is_used_where_it_is_offered_and_its_calls_share_one_connection() {
    let server = Server::tls(&[HTTP2, HTTP1]).await;
    assert_eq!(server.call("first").await.unwrap(), "first");
    let calls = (0..20).map(|_| server.call("side by side"));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap(), "side by side");
    }
    assert_eq!((server.accepted(), server.pool.idle_now()), (1, 0));
    server.hang_up().await;
    assert_eq!(server.call("again").await.unwrap(), "again");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn http1_is_used_over_tls_where_nothing_else_is_offered() {
    let server = Server::tls(&[HTTP1]).await;
    for text in ["one", "two"] {
        assert_eq!(server.call(text).await.unwrap(), text);
    }
    assert_eq!((server.accepted(), server.pool.idle_now()), (1, 1));
}
