//! A scripted MCP server over WebSockets, of the revisions with sessions. What a tool does, its
//! name says. To every subscription it says at once that the resource has changed.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use hyper::{HeaderMap, header::HeaderValue};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// How many notifications `flood` sends before its answer.
pub const FLOOD: usize = 20_000;
/// The tools.
const TOOLS: [&str; 6] = ["echo", "report", "hang", "noise", "flood", "leave"];

/// A running server; dropped, it is gone without a word.
pub struct WebSocketServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Value>>,
    upgrades: Mutex<Vec<HeaderMap>>,
    connections: Mutex<JoinSet<()>>,
}

impl WebSocketServer {
    /// Starts one on a free loopback port.
    ///
    /// # Errors
    /// There is none.
    pub async fn start() -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts one where another one was.
    ///
    /// # Errors
    /// Somebody else listens there.
    pub async fn start_at(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serve(stream, accepting.clone());
                accepting.connections.lock().spawn(async move {
                    // A test sees what the client makes of it.
                    let _ = serving.await;
                });
            }
        });
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// The messages of one method that it has received.
    #[must_use]
    pub fn seen_of(&self, method: &str) -> Vec<Value> {
        let seen = self.shared.seen.lock();
        let of = |message: &&Value| message["method"] == method;
        seen.iter().filter(of).cloned().collect()
    }

    /// The headers of the requests that its connections began with.
    #[must_use]
    pub fn upgrades(&self) -> Vec<HeaderMap> {
        self.shared.upgrades.lock().clone()
    }

    /// Ends it with all its connections, without a word, and waits until it is gone.
    pub async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        let mut connections = std::mem::take(&mut *self.shared.connections.lock());
        connections.shutdown().await;
    }
}

impl Drop for WebSocketServer {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.connections.lock().abort_all();
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Result<()> {
    #[expect(clippy::result_large_err, reason = "as the library has it")]
    let upgrade = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        shared.upgrades.lock().push(request.headers().clone());
        let headers = response.headers_mut();
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("mcp"));
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, upgrade).await?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else {
            continue;
        };
        let message: Value = serde_json::from_str(&text)?;
        shared.seen.lock().push(message.clone());
        for reply in replies(&message) {
            socket.send(reply).await?;
        }
    }
    Ok(())
}

/// What is sent for a message.
fn replies(message: &Value) -> Vec<Message> {
    let id = &message["id"];
    let result = |result: Value| text(json!({"jsonrpc": "2.0", "id": id, "result": result}));
    let params = &message["params"];
    match message["method"].as_str().unwrap_or_default() {
        "initialize" => vec![result(json!({
            "protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}, "resources": {"subscribe": true}},
            "serverInfo": {"name": "websocket", "version": "0"},
        }))],
        "ping" => vec![result(json!({}))],
        "tools/list" => {
            let tools = TOOLS.map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
            vec![result(json!({"tools": tools}))]
        }
        "tools/call" => {
            let said = params["arguments"]["text"].as_str().unwrap_or_default();
            let answer = result(json!({"content": [{"type": "text", "text": said}]}));
            call(params, answer)
        }
        "resources/subscribe" => {
            let params = json!({"uri": params["uri"]});
            let method = "notifications/resources/updated";
            let updated = json!({"jsonrpc": "2.0", "method": method, "params": params});
            vec![result(json!({})), text(updated)]
        }
        "resources/unsubscribe" => vec![result(json!({}))],
        _ if id.is_null() => Vec::new(),
        _ => {
            let error = json!({"code": -32601, "message": "Method not found"});
            vec![text(json!({"jsonrpc": "2.0", "id": id, "error": error}))]
        }
    }
}

fn call(params: &Value, answer: Message) -> Vec<Message> {
    let note = |method: &str, params: Value| {
        text(json!({"jsonrpc": "2.0", "method": method, "params": params}))
    };
    match params["name"].as_str().unwrap_or_default() {
        "report" => {
            let token = &params["_meta"]["progressToken"];
            let progress = json!({"progressToken": token, "progress": 1});
            vec![note("notifications/progress", progress), answer]
        }
        "hang" => Vec::new(),
        "noise" => vec![
            Message::text("not JSON"),
            Message::binary(vec![0, 159, 146, 150]),
            Message::text(r#"{"jsonrpc":"2.0","id":"nobody's","result":{}}"#),
            note(
                "notifications/progress",
                json!({"progressToken": "nobody's", "progress": 1}),
            ),
            Message::Ping(Default::default()),
            answer,
        ],
        "flood" => {
            let flood = note(
                "notifications/message",
                json!({"level": "info", "data": "x".repeat(100)}),
            );
            let mut all = vec![flood; FLOOD];
            all.push(answer);
            all
        }
        "leave" => vec![Message::Close(Some(CloseFrame {
            code: CloseCode::Away,
            reason: "going away".into(),
        }))],
        _ => vec![answer],
    }
}

fn text(message: Value) -> Message {
    Message::text(message.to_string())
}
