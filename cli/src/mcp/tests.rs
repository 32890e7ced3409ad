//! The client against a scripted server over real HTTP.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::any,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Client, McpError, Params, Protocol, Target};
use crate::failure::Failure;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

pub(super) type Script = fn(&Seen) -> Response;

#[derive(Clone)]
pub(super) struct Server {
    address: SocketAddr,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Serves what `script` says to everything but the handshake.
    pub(super) async fn start(script: Script) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self {
            address,
            seen: Arc::default(),
        };
        let app = Router::new()
            .route("/mcp", any(answer))
            .with_state((server.clone(), script));
        tokio::spawn(async move { axum::serve(listener, app).await });
        server
    }

    pub(super) fn target(&self, protocol: Protocol) -> Target {
        Target {
            url: format!("http://{}/mcp", self.address),
            token: Some("secret".to_owned()),
            protocol,
            limit: Duration::from_secs(20),
        }
    }

    pub(super) async fn of(&self, method: &str) -> Vec<Seen> {
        let seen = self.seen.lock().await;
        seen.iter()
            .filter(|s| s.body["method"] == method)
            .cloned()
            .collect()
    }
}

async fn answer(
    State((server, script)): State<(Server, Script)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let seen = Seen {
        headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    server.seen.lock().await.push(seen.clone());
    match seen.body["method"].as_str() {
        Some("initialize") => {
            let version = &seen.body["params"]["protocolVersion"];
            let result =
                json!({ "protocolVersion": version, "capabilities": {}, "serverInfo": {} });
            let mut response = result_of(&seen, &result);
            response
                .headers_mut()
                .insert("mcp-session-id", "s-1".parse().unwrap());
            response
        }
        None if seen.headers.contains_key("last-event-id") => script(&seen),
        Some("notifications/initialized") | None => StatusCode::ACCEPTED.into_response(),
        Some(_) => script(&seen),
    }
}

pub(super) fn result_of(seen: &Seen, result: &Value) -> Response {
    axum::Json(json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": result })).into_response()
}

pub(super) fn sse(text: String) -> Response {
    ([("content-type", "text/event-stream; charset=utf-8")], text).into_response()
}

fn call() -> Params {
    Params::default()
        .with("name", "t")
        .with("arguments", &json!({ "region": "us", "n": 1 }))
}

#[tokio::test]
async fn an_sse_answer_comes_after_notifications_and_requests_of_the_server() {
    let server = Server::start(|seen| {
        let id = &seen.body["id"];
        sse(format!(
            "id: 1\ndata:\n\n\
             data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{}}}}\n\n\
             data: {{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}}\n\n\
             data: {{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"sampling/createMessage\"}}\n\n\
             data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"x\":1.10}}}}\n\n"
        ))
    })
    .await;
    let mut client = Client::connect(&server.target(Protocol::V20251125))
        .await
        .unwrap();
    let result = client.request("tools/call", call()).await.unwrap();
    assert_eq!(result.get(), r#"{"x":1.10}"#);
    client.close().await;
    let seen = server.seen.lock().await;
    let replies: Vec<&Value> = seen
        .iter()
        .map(|s| &s.body)
        .filter(|b| b["method"].is_null())
        .collect();
    assert_eq!(
        replies[0],
        &json!({ "jsonrpc": "2.0", "id": "p", "result": {} })
    );
    assert_eq!(
        (&replies[1]["id"], &replies[1]["error"]["code"]),
        (&json!(7), &json!(-32601))
    );
}

#[tokio::test]
async fn a_session_carries_its_id_version_and_token() {
    let server = Server::start(|seen| result_of(seen, &json!({ "tools": [] }))).await;
    let mut client = Client::connect(&server.target(Protocol::V20250618))
        .await
        .unwrap();
    client.list("tools/list", "tools").await.unwrap();
    let seen = server.of("tools/list").await.remove(0).headers;
    assert_eq!(seen["mcp-session-id"], "s-1");
    assert_eq!(seen["mcp-protocol-version"], "2025-06-18");
    assert_eq!(seen["authorization"], "Bearer secret");
}

#[tokio::test]
async fn lists_follow_every_cursor_and_refuse_a_circle() {
    let server = Server::start(|seen| {
        result_of(
            seen,
            &match seen.body["params"]["cursor"].as_str() {
                None => json!({ "tools": [{ "name": "a" }], "nextCursor": "1" }),
                Some("1") => json!({ "tools": [{ "name": "b" }], "nextCursor": "2" }),
                Some("2") if seen.body["method"] == "tools/list" => {
                    json!({ "tools": [{ "name": "c" }] })
                }
                Some(_) => json!({ "tools": [], "nextCursor": "1" }),
            },
        )
    })
    .await;
    let mut client = Client::connect(&server.target(Protocol::V20251125))
        .await
        .unwrap();
    assert_eq!(client.list("tools/list", "tools").await.unwrap().len(), 3);
    let error = client.list("circle/list", "tools").await.unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}

#[tokio::test]
async fn a_call_that_lacks_parameter_headers_is_sent_again_with_them() {
    let server = Server::start(|seen| {
        if seen.body["method"] == "tools/list" {
            let schema = json!({ "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } });
            return result_of(seen, &json!({ "tools": [{ "name": "t", "inputSchema": schema }] }));
        }
        match seen.headers.get("mcp-param-region") {
            Some(_) => result_of(seen, &json!({})),
            None => {
                let error = json!({ "code": -32020, "message": "Header mismatch" });
                let body = json!({ "jsonrpc": "2.0", "id": seen.body["id"], "error": error });
                (StatusCode::BAD_REQUEST, axum::Json(body)).into_response()
            }
        }
    })
    .await;
    let mut client = Client::connect(&server.target(Protocol::V20260728))
        .await
        .unwrap();
    client.request("tools/call", call()).await.unwrap();
    let calls = server.of("tools/call").await;
    assert_eq!(calls.len(), 2);
    let headers = &calls[1].headers;
    assert_eq!(headers["mcp-param-region"], "us");
    assert_eq!(
        (&headers["mcp-method"], &headers["mcp-name"]),
        (&"tools/call".parse().unwrap(), &"t".parse().unwrap())
    );
    assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
    let meta = &calls[1].body["params"]["_meta"];
    assert_eq!(
        meta["io.modelcontextprotocol/protocolVersion"],
        "2026-07-28"
    );
    assert!(server.of("initialize").await.is_empty());
}

#[tokio::test]
async fn what_goes_wrong_has_its_own_exit_code() {
    async fn outcome(script: Script) -> McpError {
        let server = Server::start(script).await;
        let mut client = Client::connect(&server.target(Protocol::V20251125))
            .await
            .unwrap();
        client.request("tools/call", call()).await.unwrap_err()
    }
    let refused = outcome(|_| {
        (
            StatusCode::UNAUTHORIZED,
            [("www-authenticate", "Bearer error=\"invalid_token\"")],
        )
            .into_response()
    });
    let refused = refused.await;
    assert!(refused.to_string().contains("invalid_token"), "{refused}");
    assert_eq!(Failure::from(refused).exit_code(), 7);

    let cut =
        outcome(|_| sse("data: {\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}\n\n".to_owned()))
            .await;
    assert!(cut.to_string().contains("ended before the answer"), "{cut}");

    let page = outcome(|_| (StatusCode::BAD_GATEWAY, "<h1>no\u{1b}[2J</h1>").into_response()).await;
    assert!(
        page.to_string().contains("HTTP 502") && !page.to_string().contains('\u{1b}'),
        "{page}"
    );

    let gone = Target {
        url: "http://127.0.0.1:1/mcp".to_owned(),
        ..target_nowhere()
    };
    let gone = Client::connect(&gone).await.err().unwrap();
    assert_eq!(Failure::from(gone).exit_code(), 8);
}

fn target_nowhere() -> Target {
    Target {
        url: String::new(),
        token: None,
        protocol: Protocol::V20251125,
        limit: Duration::from_secs(20),
    }
}
