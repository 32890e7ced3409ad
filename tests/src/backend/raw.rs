//! MCP servers of which a test decides every byte, over each transport. They greet and list as
//! they should; a call is the script's.

mod asked;
mod framing;
mod socket;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::Result;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use hyper::Method;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Backend, Script as HttpScript, Seen, answer};
use crate::programs::here;
pub use asked::Asked;
use asked::greeting;
use framing::Framer;
use socket::Socket;

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Streamable HTTP; each answer is one JSON body.
    Json,
    /// Streamable HTTP; each answer is an event stream.
    Events,
    /// HTTP+SSE of 2024-11-05.
    Sse,
    /// A WebSocket.
    WebSocket,
    /// A child process.
    Stdio,
}

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// Answers one request that is not part of a greeting.
pub type Script = Arc<dyn Fn(Asked, Out) -> BoxFuture<'static, ()> + Send + Sync>;

/// Where a script writes: to the connection, or to the body of the answer. It waits for who does
/// not read; what nobody will read is lost.
#[derive(Clone)]
pub struct Out(mpsc::Sender<Piece>);

/// What is written.
enum Piece {
    /// A message, in the frame of the transport.
    Message(Bytes),
    /// Part of a message whose end does not come.
    Part(Bytes),
    /// Nothing more: the connection breaks off.
    End,
}

/// What may be on its way to who reads.
const ROOM: usize = 64;

impl Out {
    /// Sends a message, which may be none.
    pub async fn say(&self, message: impl Into<Bytes>) -> bool {
        self.0.send(Piece::Message(message.into())).await.is_ok()
    }

    /// Sends a part of a message, and no end of it.
    pub async fn begin(&self, part: impl Into<Bytes>) -> bool {
        self.0.send(Piece::Part(part.into())).await.is_ok()
    }

    /// Breaks the connection off.
    pub async fn hang_up(&self) {
        let _ = self.0.send(Piece::End).await;
    }
}

/// What a server is made of.
#[derive(Clone)]
struct Served {
    transport: Transport,
    era: Era,
    tools: Vec<&'static str>,
    script: Script,
    listed: Arc<AtomicUsize>,
}

/// A running server, stopped when dropped.
pub struct Raw {
    at: At,
    served: Served,
}

enum At {
    Http(Backend),
    Socket(Socket),
}

impl Raw {
    /// Starts one on a free loopback port, with these tools.
    ///
    /// # Errors
    /// There is none.
    pub async fn start(
        transport: Transport,
        era: Era,
        tools: &[&'static str],
        script: Script,
    ) -> Result<Self> {
        let served = Served {
            transport,
            era,
            tools: tools.to_vec(),
            script,
            listed: Arc::default(),
        };
        let at = match transport {
            Transport::Json | Transport::Events => At::Http(Backend::start(served.http()).await?),
            Transport::Sse => At::Http(Backend::start(served.sse()).await?),
            Transport::WebSocket | Transport::Stdio => {
                At::Socket(Socket::start(served.clone()).await?)
            }
        };
        Ok(Self { at, served })
    }

    /// A backend of this name, as a document, with more fields.
    #[must_use]
    pub fn document(&self, name: &str, more: &str) -> String {
        let (kind, how) = match &self.at {
            At::Http(backend) if self.served.transport == Transport::Sse => {
                ("sse", json!({"url": backend.at("/sse")}))
            }
            At::Http(backend) => ("http", json!({"url": backend.url()})),
            At::Socket(socket) if self.served.transport == Transport::WebSocket => {
                let url = format!("ws://127.0.0.1:{}/", socket.port);
                ("websocket", json!({"url": url}))
            }
            At::Socket(socket) => {
                let pipe = here("servers/pipe.sh").display().to_string();
                let args = [pipe, socket.port.to_string()];
                ("stdio", json!({"command": "/bin/bash", "args": args}))
            }
        };
        format!("kind: Backend\nname: {name}\n{kind}: {how}\n{more}---\n")
    }

    /// How often it was asked for its tools.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.served.listed.load(Ordering::Relaxed)
    }
}

impl Served {
    /// Has a message answered.
    async fn take(&self, asked: Asked, out: Out) {
        if asked.method == "tools/list" {
            self.listed.fetch_add(1, Ordering::Relaxed);
        }
        match greeting(self, &asked) {
            Some(text) => drop(out.say(text).await),
            None => (self.script)(asked, out).await,
        }
    }

    fn opened(&self) -> (Out, mpsc::Receiver<Piece>) {
        let (to, from) = mpsc::channel(ROOM);
        (Out(to), from)
    }

    /// Each request has an answer of its own.
    fn http(&self) -> HttpScript {
        let served = self.clone();
        Arc::new(move |seen: Seen| {
            let served = served.clone();
            async move {
                let asked = (seen.http == Method::POST).then(|| Asked::read(&seen.body));
                let Some(asked) = asked.flatten() else {
                    return answer(405, "text/plain", "");
                };
                if asked.id.is_empty() {
                    return answer(202, "text/plain", "");
                }
                let status = if asked.is_refused(served.era) {
                    400
                } else {
                    200
                };
                let kind = match served.transport {
                    Transport::Json => "application/json",
                    _ => "text/event-stream",
                };
                let (out, from) = served.opened();
                let body = body(served.transport, from, Bytes::new());
                tokio::spawn(async move { served.take(asked, out).await });
                answer(status, kind, body)
            }
            .boxed()
        })
    }

    /// One stream for all that is posted beside it.
    fn sse(&self) -> HttpScript {
        let served = self.clone();
        let sessions = Arc::new(Mutex::new(Vec::<Out>::new()));
        Arc::new(move |seen: Seen| {
            let (served, sessions) = (served.clone(), sessions.clone());
            async move {
                if seen.http == Method::GET {
                    let (out, from) = served.opened();
                    let number = {
                        let mut sessions = sessions.lock();
                        sessions.push(out);
                        sessions.len() - 1
                    };
                    let first = format!("event: endpoint\r\ndata: /post/{number}\r\n\r\n");
                    let body = body(Transport::Sse, from, first.into());
                    return answer(200, "text/event-stream", body);
                }
                let number: Option<usize> =
                    seen.path.rsplit('/').next().and_then(|n| n.parse().ok());
                let out = number.and_then(|number| sessions.lock().get(number).cloned());
                let (Some(out), Some(asked)) = (out, Asked::read(&seen.body)) else {
                    return answer(404, "text/plain", "");
                };
                if !asked.id.is_empty() {
                    tokio::spawn(async move { served.take(asked, out).await });
                }
                answer(202, "text/plain", "")
            }
            .boxed()
        })
    }
}

/// A body of what is written, in chunks that end anywhere.
fn body(transport: Transport, from: mpsc::Receiver<Piece>, first: Bytes) -> Body {
    let framer = Framer::new(transport);
    let framed = stream::unfold((framer, from), |(mut framer, mut from)| async {
        let piece = from.recv().await?;
        let broken = || std::io::Error::other("broken off");
        Some((framer.chunks(&piece).ok_or_else(broken), (framer, from)))
    });
    let pieces = stream::once(async { Ok(vec![first]) })
        .chain(framed)
        .map_ok(|chunks| stream::iter(chunks).map(Ok::<_, std::io::Error>))
        .try_flatten();
    Body::from_stream(pieces)
}
