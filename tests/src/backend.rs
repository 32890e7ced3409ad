//! Scripted MCP servers over streamable HTTP. A script sees each request whole and answers it as
//! it likes; [`Backend`] keeps what arrived. [`server`] scripts one that behaves, of either era;
//! [`talker`] one that asks its clients and tells them things; [`broken`] those that do not behave.
//! [`websocket`] is one over another transport; [`raw`] one of which every byte is decided, over each.

pub mod broken;
pub mod raw;
pub mod server;
pub mod talker;
#[cfg(test)]
mod tests;
pub mod websocket;

use std::{path::Path, sync::Arc};

use anyhow::Result;
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    response::Response,
    serve::Listener,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Method};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};

use crate::wait::until;

/// A request that a backend received.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its HTTP method.
    pub http: Method,
    /// Its path.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: Bytes,
    /// The body read as JSON; null where it is none.
    pub message: Value,
}

impl Seen {
    /// The JSON-RPC method; empty where there is none.
    #[must_use]
    pub fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or_default()
    }

    /// A header as text; empty where it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// Answers one request.
pub type Script = Arc<dyn Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync>;

/// A running scripted server, stopped when dropped.
pub struct Backend {
    /// Host and port, or the path of a socket.
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Backend {
    /// Starts one on a free loopback port. It answers on every path.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(script: Script) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        Ok(Self::on(listener, address, script))
    }

    /// Starts one at the address of one that was stopped, host and port.
    ///
    /// # Errors
    /// The address is in use.
    pub async fn start_at(address: &str, script: Script) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self::on(listener, address.to_owned(), script))
    }

    /// Starts one on a Unix socket, where there is none yet.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub async fn on_socket(path: &Path, script: Script) -> Result<Self> {
        let listener = UnixListener::bind(path)?;
        Ok(Self::on(listener, path.display().to_string(), script))
    }

    fn on<L>(listener: L, address: String, script: Script) -> Self
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let handler = move |request: Request| {
            let (script, kept) = (Arc::clone(&script), Arc::clone(&kept));
            async move {
                let request = read(request).await;
                kept.lock().push(request.clone());
                script(request).await
            }
        };
        let app = Router::new()
            .fallback(handler)
            .layer(DefaultBodyLimit::disable());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Self {
            address,
            seen,
            task,
        }
    }

    /// Its host and port, or the path of its socket.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        self.at("/mcp")
    }

    /// The endpoint of this path: backends of different names can share one server.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything it has received so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// What it has received of one JSON-RPC method.
    #[must_use]
    pub fn seen_of(&self, method: &str) -> Vec<Seen> {
        self.seen
            .lock()
            .iter()
            .filter(|seen| seen.method() == method)
            .cloned()
            .collect()
    }

    /// Waits until somebody has opened a stream for what it says by itself.
    ///
    /// # Errors
    /// Nobody does.
    pub async fn is_listened_to(&self) -> Result<()> {
        until("its upstream stream", || async {
            let seen = self.seen.lock();
            let mut seen = seen.iter();
            seen.any(|seen| seen.http == Method::GET).then_some(())
        })
        .await
    }

    /// Forgets what it has received.
    pub fn forget(&self) {
        self.seen.lock().clear();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(request: Request) -> Seen {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|whole| whole.to_bytes())
        .unwrap_or_default();
    let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Seen {
        http: head.method,
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body,
        message,
    }
}

/// An answer of this status, content type and body.
#[must_use]
pub fn answer(status: u16, content_type: &str, body: impl Into<Body>) -> Response {
    let response = Response::builder()
        .status(status)
        .header("content-type", content_type);
    response
        .body(body.into())
        .expect("status and content type are well-formed")
}

/// A JSON answer.
#[must_use]
pub fn json(status: u16, message: &Value) -> Response {
    answer(status, "application/json", message.to_string())
}

/// An event stream of these messages, complete.
#[must_use]
pub fn events(messages: &[Value]) -> Response {
    let text: String = messages
        .iter()
        .map(|m| format!("event: message\ndata: {m}\n\n"))
        .collect();
    answer(200, "text/event-stream", text)
}
