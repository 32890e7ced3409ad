//! Scripted servers that misbehave.

use std::{future::pending, net::SocketAddr, sync::Arc};

use anyhow::Result;
use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Script, Seen, answer, json as answer_json};

/// An address at which nobody listens.
///
/// # Errors
/// There is no free port.
pub async fn refusing() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?)
}

/// Accepts every request and never answers.
#[must_use]
pub fn hanging() -> Script {
    Arc::new(|_| pending().boxed())
}

/// Answers every request in the same wrong way.
fn always(wrong: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Script {
    Arc::new(move |seen| {
        let response = wrong(&seen);
        async move { response }.boxed()
    })
}

/// Says JSON and sends something else.
#[must_use]
pub fn not_json() -> Script {
    always(|_| answer(200, "application/json", "<html>It works!</html>"))
}

/// Answers a page, as a web server does that knows nothing of MCP.
#[must_use]
pub fn not_mcp() -> Script {
    always(|_| answer(200, "text/html", "<html>It works!</html>"))
}

/// Answers with the id of another request.
#[must_use]
pub fn wrong_id() -> Script {
    always(|_| {
        answer_json(
            200,
            &json!({"jsonrpc": "2.0", "id": "not yours", "result": {}}),
        )
    })
}

/// Starts an event stream and breaks it off in the middle of an event.
#[must_use]
pub fn truncated() -> Script {
    always(|_| {
        let start = Bytes::from_static(b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":");
        let end = std::io::Error::other("broken off");
        answer(
            200,
            "text/event-stream",
            Body::from_stream(stream::iter([Ok(start), Err(end)])),
        )
    })
}

/// Answers without end.
#[must_use]
pub fn endless() -> Script {
    always(|_| {
        let block = Bytes::from(vec![b' '; 64 * 1024]);
        let body = stream::repeat_with(move || Ok::<_, std::io::Error>(block.clone()));
        answer(200, "application/json", Body::from_stream(body))
    })
}

/// Fails inside, whatever is asked.
#[must_use]
pub fn failing() -> Script {
    always(|_| answer(500, "text/plain", "Internal Server Error"))
}

/// Initializes well; then each of its lists is of the wrong shape.
#[must_use]
pub fn wrong_lists() -> Script {
    always(|seen| {
        let id = &seen.message["id"];
        let result: Value = match seen.method() {
            "initialize" => json!({
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "scripted", "version": "0"},
            }),
            "server/discover" => return answer(400, "text/plain", "what?"),
            _ if id.is_null() => return answer(202, "text/plain", ""),
            _ => json!({"tools": [{"name": 7}, "nothing", {"title": "no name"}], "nextCursor": 1}),
        };
        answer_json(200, &json!({"jsonrpc": "2.0", "id": id, "result": result}))
    })
}
