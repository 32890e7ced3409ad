//! The bridge between a client on a pipe and a scripted gateway over real HTTP.

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::{
    io::{
        AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf, split,
    },
    sync::oneshot,
    task::JoinHandle,
};

use super::*;
use crate::mcp::{
    Protocol,
    tests::{Script, Seen, Server, result_of, sse},
};

/// The client's end.
struct Pipe {
    out: Option<WriteHalf<DuplexStream>>,
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    bridge: JoinHandle<io::Result<()>>,
    _stop: oneshot::Sender<()>,
}

impl Pipe {
    async fn to(script: Script) -> (Server, Self) {
        let server = Server::start(script).await;
        let (own, others) = tokio::io::duplex(1 << 16);
        let (read, write) = split(others);
        let target = server.target(Protocol::V20251125);
        let bridge = Bridge::new(&target, write).expect("the address is one");
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let bridge = tokio::spawn(bridge.run(BufReader::new(read), stopped));
        let (read, out) = split(own);
        let pipe = Self {
            out: Some(out),
            lines: BufReader::new(read).lines(),
            bridge,
            _stop: stop,
        };
        (server, pipe)
    }

    async fn say(&mut self, message: &Value) {
        let line = format!("{message}\n");
        let out = self.out.as_mut().expect("it is open");
        out.write_all(line.as_bytes()).await.expect("it is read");
    }

    async fn hear(&mut self) -> Value {
        let line = self.lines.next_line().await.expect("it is open");
        serde_json::from_str(&line.expect("a message")).expect("JSON on one line")
    }

    async fn open(&mut self) {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}});
        self.say(&json!({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params}))
            .await;
        assert_eq!(self.hear().await["result"]["protocolVersion"], "2025-11-25");
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await;
    }

    async fn close(mut self) {
        // Both halves are one pipe.
        drop(self.out.take());
        drop(self.lines);
        self.bridge.await.expect("no panic").expect("no error");
    }
}

fn call(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "t", "arguments": {}}})
}

#[tokio::test]
async fn messages_get_the_headers_of_their_session_and_answers_a_line_each() {
    let (server, mut pipe) = Pipe::to(|seen| {
        let id = &seen.body["id"];
        sse(format!(
            "data: {{\"jsonrpc\":\"2.0\",\n\
             data: \"method\":\"notifications/progress\"}}\n\n\
             data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"x\":1}}}}\n\n"
        ))
    })
    .await;
    pipe.open().await;
    pipe.say(&call(7)).await;
    assert_eq!(pipe.hear().await["method"], "notifications/progress");
    assert_eq!(
        pipe.hear().await,
        json!({"jsonrpc": "2.0", "id": 7, "result": {"x": 1}})
    );
    pipe.close().await;
    for message in server.of("tools/call").await {
        assert_eq!(message.headers["mcp-session-id"], "s-1");
        assert_eq!(message.headers["mcp-protocol-version"], "2025-11-25");
        assert_eq!(message.headers["authorization"], "Bearer secret");
    }
}

#[tokio::test]
async fn what_cancels_a_request_comes_behind_it() {
    let (server, mut pipe) = Pipe::to(|seen| result_of(seen, &json!({}))).await;
    pipe.open().await;
    for id in 0..20 {
        pipe.say(&call(id)).await;
        let params = json!({"requestId": id});
        pipe.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
            .await;
        pipe.hear().await;
    }
    pipe.close().await;
    let seen = server.seen.lock().await;
    for id in 0..20 {
        let place = |member: &dyn Fn(&Value) -> &Value| {
            seen.iter()
                .position(|seen| *member(&seen.body) == json!(id))
        };
        let call = place(&|body| &body["id"]);
        let cancelled = place(&|body| &body["params"]["requestId"]);
        assert!(call.is_some() && call < cancelled, "{call:?} {cancelled:?}");
    }
}

#[tokio::test]
async fn a_forgotten_session_is_opened_again_and_the_call_repeated() {
    static SEEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    let (server, mut pipe) = Pipe::to(|seen| match seen.body["params"]["name"].as_str() {
        Some("t") if !SEEN.swap(true, std::sync::atomic::Ordering::SeqCst) => {
            let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "session not found"}});
            (StatusCode::NOT_FOUND, axum::Json(error)).into_response()
        }
        _ => result_of(seen, &json!({})),
    })
    .await;
    pipe.open().await;
    pipe.say(&call(1)).await;
    assert_eq!(
        pipe.hear().await,
        json!({"jsonrpc": "2.0", "id": 1, "result": {}})
    );
    pipe.close().await;
    assert_eq!(server.of("initialize").await.len(), 2);
    assert_eq!(server.of("tools/call").await.len(), 2);
}

#[tokio::test]
async fn an_answer_that_broke_off_is_asked_for_behind_its_last_event() {
    let (server, mut pipe) = Pipe::to(|seen| {
        let after = seen.headers.get("last-event-id").map(|id| id.as_bytes());
        match after {
            None => sse("retry: 1\nid: a\ndata:\n\n".to_owned()),
            Some(b"a") => sse("id: b\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"m\"}\n\n".to_owned()),
            Some(_) => sse("data: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}\n\n".to_owned()),
        }
    })
    .await;
    pipe.open().await;
    pipe.say(&call(3)).await;
    assert_eq!(pipe.hear().await["method"], "m");
    assert_eq!(
        pipe.hear().await,
        json!({"jsonrpc": "2.0", "id": 3, "result": {}})
    );
    pipe.close().await;
    let last: Vec<_> = server
        .seen
        .lock()
        .await
        .iter()
        .filter_map(|seen| seen.headers.get("last-event-id").cloned())
        .collect();
    assert_eq!(last, ["a", "b"]);
}

#[tokio::test]
async fn messages_that_stand_alone_get_their_headers_from_their_bodies() {
    let (server, mut pipe) = Pipe::to(|seen: &Seen| -> Response {
        let schema =
            json!({"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
        result_of(
            seen,
            &json!({"tools": [{"name": "t", "inputSchema": schema}]}),
        )
    })
    .await;
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    for (id, method) in [(1, "tools/list"), (2, "tools/call")] {
        let params = json!({"_meta": meta, "name": "t", "arguments": {"region": "süd"}});
        pipe.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .await;
        pipe.hear().await;
    }
    pipe.close().await;
    let calls = server.of("tools/call").await;
    let header = |name: &str| calls[0].headers[name].to_str().expect("ASCII").to_owned();
    assert_eq!(header("mcp-protocol-version"), "2026-07-28");
    assert_eq!(header("mcp-method"), "tools/call");
    assert_eq!(header("mcp-name"), "t");
    assert_eq!(header("mcp-param-region"), wire::header_value("süd"));
    assert!(!calls[0].headers.contains_key("mcp-session-id"));
}

#[tokio::test]
async fn what_is_refused_or_not_json_is_answered_with_an_error() {
    let (_server, mut pipe) = Pipe::to(|_| {
        let error =
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "no"}});
        (StatusCode::UNAUTHORIZED, axum::Json(error)).into_response()
    })
    .await;
    pipe.say(&call(5)).await;
    let refused = pipe.hear().await;
    assert_eq!(
        (&refused["id"], &refused["error"]["message"]),
        (&json!(5), &json!("no"))
    );
    pipe.out
        .as_mut()
        .expect("open")
        .write_all(b"{no\n")
        .await
        .expect("it is read");
    let garbled = pipe.hear().await;
    assert_eq!(
        (&garbled["id"], &garbled["error"]["code"]),
        (&json!(null), &json!(PARSE_ERROR))
    );
    pipe.close().await;
}
