//! Connections that bring nothing, with a paused clock and no network.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time::Instant,
};

use super::*;

struct Pipes(mpsc::Receiver<DuplexStream>);

impl Listener for Pipes {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What connects.
fn served() -> mpsc::Sender<DuplexStream> {
    let (connect, pipes) = mpsc::channel(1);
    let body = "x".repeat(1 << 20);
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/large", get(|| async move { body }));
    tokio::spawn(serve(Pipes(pipes), router));
    connect
}

/// A connection that has sent this.
async fn open(connect: &mpsc::Sender<DuplexStream>, text: &str) -> DuplexStream {
    let (mut client, server) = tokio::io::duplex(1024);
    connect.send(server).await.unwrap();
    client.write_all(text.as_bytes()).await.unwrap();
    client
}

async fn rest(mut stream: DuplexStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn who_does_not_finish_a_request_is_hung_up_on() {
    let connect = served();
    for text in ["", "GET /livez HT"] {
        let start = Instant::now();
        let answer = rest(open(&connect, text).await).await;
        assert!(!answer.contains("200"), "{answer}");
        assert_eq!(start.elapsed().as_secs(), HEAD.as_secs());
    }
    assert!(rest(open(&connect, LIVEZ).await).await.contains("200 OK"));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_and_those_that_do_not_read_give_their_places_back() {
    let connect = served();
    let large = "GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (text, patience) in [("", HEAD), (large, LONGEST)] {
        let start = Instant::now();
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            held.push(open(&connect, text).await);
        }
        // One more waits for a place, and gets it.
        let answer = rest(open(&connect, LIVEZ).await).await;
        assert!(answer.contains("200 OK"), "{answer}");
        assert_eq!(start.elapsed().as_secs(), patience.as_secs());
    }
}
