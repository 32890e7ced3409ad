//! A scripted server that behaves, of either era.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{body::Body, response::Response};
use futures_util::{FutureExt, future::BoxFuture};
use hyper::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Script, Seen, events, json as answer_json};
use crate::client::MODERN;

/// Gives the text with which a tool answers its arguments.
pub type Tool = Arc<dyn Fn(Value) -> BoxFuture<'static, String> + Send + Sync>;

/// A server's tools, and the sessions it knows.
#[derive(Clone, Default)]
pub struct Server {
    tools: BTreeMap<String, Tool>,
    methods: BTreeMap<String, Script>,
    capabilities: Option<Value>,
    sessions: Arc<Mutex<BTreeSet<String>>>,
    next_session: Arc<AtomicU64>,
}

impl Server {
    /// A server with one tool, `echo`, which answers `NAME:TEXT`.
    #[must_use]
    pub fn echo(name: &str) -> Self {
        let name = name.to_owned();
        Self::default().tool("echo", move |arguments| {
            let text = format!("{name}:{}", arguments["text"].as_str().unwrap_or_default());
            async move { text }
        })
    }

    /// Adds a tool.
    #[must_use]
    pub fn tool<F, Fut>(mut self, name: &str, run: F) -> Self
    where
        F: Fn(Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = String> + Send + 'static,
    {
        self.tools.insert(
            name.to_owned(),
            Arc::new(move |arguments| run(arguments).boxed()),
        );
        self
    }

    /// Answers a method, or the calls of a tool (`tools/call NAME`), itself.
    #[must_use]
    pub fn on<F, Fut>(mut self, method: &str, answer: F) -> Self
    where
        F: Fn(Seen) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response> + Send + 'static,
    {
        if let Some(tool) = method.strip_prefix("tools/call ") {
            self = self.tool(tool, |_| std::future::ready(String::new()));
        }
        let script: Script = Arc::new(move |seen| answer(seen).boxed());
        self.methods.insert(method.to_owned(), script);
        self
    }

    /// Answers a list method with what `list` gives at the time.
    #[must_use]
    pub fn listing(self, method: &str, list: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        self.on(method, move |seen| {
            let list = merged(list(), &complete());
            async move { answer_json(200, &result(&seen, list)) }
        })
    }

    /// The same with what stays as it is.
    #[must_use]
    pub fn lists(self, method: &str, list: Value) -> Self {
        self.listing(method, move || list.clone())
    }

    /// Declares these capabilities instead of tools alone.
    #[must_use]
    pub fn declares(mut self, capabilities: Value) -> Self {
        self.capabilities = Some(capabilities);
        self
    }

    fn capabilities(&self) -> Value {
        let declared = self.capabilities.clone();
        declared.unwrap_or_else(|| json!({"tools": {}}))
    }

    /// Forgets all sessions, as a restart does: what still names one is answered with 404.
    pub fn forget_sessions(&self) {
        self.sessions.lock().clear();
    }

    /// Serves the revisions with sessions.
    #[must_use]
    pub fn legacy(&self) -> Script {
        let server = self.clone();
        Arc::new(move |seen| server.clone().answer_legacy(seen).boxed())
    }

    /// Serves the stateless revision, and no other.
    #[must_use]
    pub fn modern(&self) -> Script {
        let server = self.clone();
        Arc::new(move |seen| server.clone().answer_modern(seen).boxed())
    }

    async fn answer_legacy(self, seen: Seen) -> Response {
        if seen.http != Method::POST {
            return answer_json(405, &refused(&seen, -32000, "Method Not Allowed"));
        }
        if seen.method() == "initialize" {
            let session = format!("s-{}", self.next_session.fetch_add(1, Ordering::Relaxed));
            self.sessions.lock().insert(session.clone());
            let mut response = answer_json(
                200,
                &result(
                    &seen,
                    json!({
                        "protocolVersion": seen.message["params"]["protocolVersion"],
                        "capabilities": self.capabilities(),
                        "serverInfo": {"name": "scripted", "version": "0"},
                    }),
                ),
            );
            let session = session.parse().expect("a session id is visible ASCII");
            response.headers_mut().insert("mcp-session-id", session);
            return response;
        }
        match seen.header("mcp-session-id") {
            "" => return answer_json(400, &refused(&seen, -32000, "Mcp-Session-Id is required")),
            session if !self.sessions.lock().contains(session) => {
                return answer_json(404, &refused(&seen, -32001, "Session not found"));
            }
            _ => {}
        }
        if seen.message["id"].is_null() {
            return Response::builder()
                .status(202)
                .body(Body::empty())
                .expect("a plain answer");
        }
        self.serve(seen, json!({})).await
    }

    async fn answer_modern(self, seen: Seen) -> Response {
        let version = &seen.message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"];
        if version != MODERN || seen.header("mcp-protocol-version") != MODERN {
            let mut error = refused(&seen, -32022, "Unsupported protocol version");
            error["error"]["data"] = json!({"supported": [MODERN], "requested": version});
            return answer_json(400, &error);
        }
        let extra = complete();
        if seen.method() == "server/discover" {
            let discovered =
                json!({"supportedVersions": [MODERN], "capabilities": self.capabilities()});
            return answer_json(200, &result(&seen, merged(discovered, &extra)));
        }
        self.serve(seen, extra).await
    }

    /// What is the same in both eras. `extra` goes into every result. A call that asks for
    /// progress is answered with a stream that reports some first.
    async fn serve(self, seen: Seen, extra: Value) -> Response {
        let params = &seen.message["params"];
        let call = format!(
            "{} {}",
            seen.method(),
            params["name"].as_str().unwrap_or("?")
        );
        let own = self.methods.get(&call).or(self.methods.get(seen.method()));
        if let Some(answer) = own {
            return answer(seen.clone()).await;
        }
        match seen.method() {
            "ping" => answer_json(200, &result(&seen, json!({}))),
            "tools/list" => {
                let tools = self.tools.keys();
                let tools: Vec<_> = tools
                    .map(|name| json!({"name": name, "inputSchema": {"type": "object"}}))
                    .collect();
                answer_json(200, &result(&seen, merged(json!({"tools": tools}), &extra)))
            }
            "tools/call" => {
                let name = params["name"].as_str().unwrap_or_default();
                let Some(tool) = self.tools.get(name) else {
                    return answer_json(200, &refused(&seen, -32602, "Unknown tool"));
                };
                let text = tool(params["arguments"].clone()).await;
                let content = json!({"content": [{"type": "text", "text": text}]});
                let response = result(&seen, merged(content, &extra));
                let token = &params["_meta"]["progressToken"];
                if token.is_null() {
                    return answer_json(200, &response);
                }
                let params = json!({"progressToken": token, "progress": 1, "total": 2});
                let progress =
                    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
                events(&[progress, response])
            }
            _ => answer_json(404, &refused(&seen, -32601, "Method not found")),
        }
    }
}

/// The response with this result.
#[must_use]
pub fn result(seen: &Seen, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": seen.message["id"], "result": result})
}

/// The error response.
#[must_use]
pub fn refused(seen: &Seen, code: i64, message: &str) -> Value {
    let error = json!({"code": code, "message": message});
    json!({"jsonrpc": "2.0", "id": seen.message["id"], "error": error})
}

fn merged(mut object: Value, extra: &Value) -> Value {
    for (key, value) in extra.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

/// What every result of the stateless revision may have.
fn complete() -> Value {
    json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private"})
}
