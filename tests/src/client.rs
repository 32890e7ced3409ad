//! An MCP client on one plain HTTP/1.1 connection. It retries nothing and hides nothing: what the
//! server sent is what the test sees.

mod connection;
mod events;

use anyhow::{Context, Result, bail, ensure};
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

pub use connection::{Answer, Connection};
pub use events::{Event, Events};

/// The stateless revision.
pub const MODERN: &str = "2026-07-28";

/// Stands for a text that is put in as it is.
const HERE: &str = "put in here";

/// A client of one endpoint.
pub struct Client {
    url: String,
    connection: Connection,
    headers: Vec<(&'static str, String)>,
    modern: bool,
    /// What it declares with every request, in the stateless era.
    pub capabilities: Value,
    next_id: u64,
    /// What the server said of itself: the result of `initialize`; null in the stateless era.
    pub server: Value,
}

/// Why a request gave no result.
#[derive(Debug)]
pub struct Failure {
    /// The HTTP status.
    pub status: StatusCode,
    /// The JSON-RPC error object, or null where the answer held none.
    pub error: Value,
}

impl Failure {
    /// The JSON-RPC error code.
    #[must_use]
    pub fn code(&self) -> Option<i64> {
        self.error["code"].as_i64()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}: {}", self.status, self.error)
    }
}

impl std::error::Error for Failure {}

impl Client {
    /// A client of the revisions with sessions: initializes one of `version`.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn legacy(url: &str, version: &str) -> Result<Self> {
        Self::legacy_with_token(url, version, None).await
    }

    /// The same with a bearer token.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn legacy_with_token(url: &str, version: &str, token: Option<&str>) -> Result<Self> {
        Self::opened(url, version, token, json!({})).await
    }

    /// The same for one that can be asked: with these capabilities.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub async fn legacy_that_can(url: &str, version: &str, capabilities: Value) -> Result<Self> {
        Self::opened(url, version, None, capabilities).await
    }

    async fn opened(
        url: &str,
        version: &str,
        token: Option<&str>,
        capabilities: Value,
    ) -> Result<Self> {
        let mut client = Self::new(url, token, false).await?;
        let params = json!({
            "protocolVersion": version, "capabilities": capabilities,
            "clientInfo": {"name": "fleet-tests", "version": "0"},
        });
        let answer = client.post("initialize", Some(params), None).await?;
        let message = answer.response()?;
        ensure!(
            message["result"].is_object(),
            "initialize was refused: {answer:?}"
        );
        if let Some(session) = answer.headers.get("mcp-session-id") {
            client
                .headers
                .push(("mcp-session-id", session.to_str()?.to_owned()));
        }
        let agreed = message["result"]["protocolVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        client.headers.push(("mcp-protocol-version", agreed));
        client.server = message["result"].clone();
        let body = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        let answer = client.connection.post(&client.headers, body).await?;
        ensure!(
            answer.status == StatusCode::ACCEPTED,
            "notification not accepted: {answer:?}"
        );
        Ok(client)
    }

    /// A client of the stateless revision: nothing is sent before the first request.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn modern(url: &str) -> Result<Self> {
        Self::new(url, None, true).await
    }

    /// The same with a bearer token.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn modern_with_token(url: &str, token: &str) -> Result<Self> {
        Self::new(url, Some(token), true).await
    }

    async fn new(url: &str, token: Option<&str>, modern: bool) -> Result<Self> {
        let mut headers = Vec::new();
        if let Some(token) = token {
            headers.push(("authorization", format!("Bearer {token}")));
        }
        if modern {
            headers.push(("mcp-protocol-version", MODERN.to_owned()));
        }
        let connection = Connection::open(url).await?;
        Ok(Self {
            url: url.to_owned(),
            connection,
            headers,
            modern,
            capabilities: json!({}),
            next_id: 1,
            server: Value::Null,
        })
    }

    /// The same client at another endpoint, with its session.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn at(&self, url: &str) -> Result<Self> {
        let mut other = Self::new(url, None, self.modern).await?;
        other.headers.clone_from(&self.headers);
        other.capabilities.clone_from(&self.capabilities);
        other.server.clone_from(&self.server);
        other.next_id = self.next_id;
        Ok(other)
    }

    /// Sends a request and gives everything that came back.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn post(
        &mut self,
        method: &str,
        params: Option<Value>,
        progress_token: Option<Value>,
    ) -> Result<Answer> {
        let (id, headers, body) = self.message(method, params, progress_token);
        let answer = self.connection.post(&headers, body).await?;
        if let Ok(message) = answer.response() {
            ensure!(
                message["id"] == id,
                "asked with id {id}, answered {message}"
            );
        }
        Ok(answer)
    }

    /// Sends a request on a connection of its own, to read its answer as it comes.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn stream(&mut self, method: &str, params: Value) -> Result<Events> {
        let (headers, body) = self.prepared(method, params);
        Events::open(&self.url, Method::POST, &headers, body).await
    }

    /// Headers and body of the next request, for who sends it himself.
    pub fn prepared(
        &mut self,
        method: &str,
        params: Value,
    ) -> (Vec<(&'static str, String)>, String) {
        let (_, own, body) = self.message(method, Some(params), None);
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("accept", "application/json, text/event-stream".to_owned()),
        ];
        headers.extend(own);
        (headers, body)
    }

    /// The id of the next request.
    #[must_use]
    pub const fn next_id(&self) -> u64 {
        self.next_id
    }

    /// The next request: its id, headers and body.
    fn message(
        &mut self,
        method: &str,
        params: Option<Value>,
        progress_token: Option<Value>,
    ) -> (u64, Vec<(&'static str, String)>, String) {
        let mut params = params.unwrap_or_else(|| json!({}));
        let mut headers = self.headers.clone();
        if self.modern {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
                self.capabilities.clone();
            headers.push(("mcp-method", method.to_owned()));
            if let Some(name) = ["name", "uri", "taskId"]
                .iter()
                .find_map(|key| params[key].as_str())
            {
                headers.push(("mcp-name", name.to_owned()));
            }
        }
        if let Some(token) = progress_token {
            params["_meta"]["progressToken"] = token;
        }
        let id = self.next_id;
        self.next_id += 1;
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        (id, headers, body.to_string())
    }

    /// Sends a request and gives its result. A JSON-RPC error or an HTTP status is a [`Failure`].
    ///
    /// # Errors
    /// The connection breaks or the request fails.
    pub async fn request(&mut self, method: &str, params: Value) -> Result<Value> {
        let answer = self.post(method, Some(params), None).await?;
        let status = answer.status;
        let Ok(mut message) = answer.response() else {
            bail!("{method} got no JSON-RPC answer: {answer:?}");
        };
        match message.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(Failure {
                status,
                error: message["error"].take(),
            }
            .into()),
        }
    }

    /// Sends a request of this id on a connection of its own, to read its answer as it comes.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn open(&self, id: Value, method: &str, params: Value) -> Result<Events> {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("accept", "application/json, text/event-stream".to_owned()),
        ];
        headers.extend(self.headers.iter().cloned());
        Events::open(&self.url, Method::POST, &headers, message.to_string()).await
    }

    /// Calls a tool in the same way.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn open_call(&self, id: Value, tool: &str, arguments: Value) -> Result<Events> {
        let params = json!({"name": tool, "arguments": arguments});
        self.open(id, "tools/call", params).await
    }

    /// Opens the stream of what belongs to no call, or another one behind this event.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn listen(&self, last: Option<&str>) -> Result<Events> {
        let mut headers = vec![("accept", "text/event-stream".to_owned())];
        headers.extend(self.headers.iter().cloned());
        headers.extend(last.map(|id| ("last-event-id", id.to_owned())));
        Events::open(&self.url, Method::GET, &headers, "").await
    }

    /// Sends any message on a connection of its own.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn send(&self, message: &Value) -> Result<Answer> {
        let mut connection = Connection::open(&self.url).await?;
        connection.post(&self.headers, message.to_string()).await
    }

    /// Calls a tool and gives its result.
    ///
    /// # Errors
    /// The connection breaks or the request fails.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Result<Value> {
        self.request("tools/call", json!({"name": tool, "arguments": arguments}))
            .await
    }

    /// Calls a tool with arguments of this text, and gives everything that came back.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn call_with(
        &mut self,
        tool: &str,
        arguments: &str,
        progress_token: Option<Value>,
    ) -> Result<Answer> {
        let params = json!({"name": tool, "arguments": HERE});
        let (_, headers, body) = self.message("tools/call", Some(params), progress_token);
        let body = body.replacen(&format!("\"{HERE}\""), arguments, 1);
        self.connection.post(&headers, body).await
    }

    /// Calls a tool and gives the text of its first content block.
    ///
    /// # Errors
    /// As [`Self::call`]; or the result has no text.
    pub async fn text(&mut self, tool: &str, arguments: Value) -> Result<String> {
        let result = self.call(tool, arguments).await?;
        let text = result["content"][0]["text"].as_str();
        Ok(text
            .with_context(|| format!("{tool} answered without text: {result}"))?
            .to_owned())
    }

    /// The names of everything a list method offers, over all pages, in the order given.
    ///
    /// # Errors
    /// The connection breaks or a request fails.
    pub async fn names(&mut self, method: &str) -> Result<Vec<String>> {
        let (list, key) = match method {
            "tools/list" => ("tools", "name"),
            "prompts/list" => ("prompts", "name"),
            "resources/list" => ("resources", "uri"),
            "resources/templates/list" => ("resourceTemplates", "uriTemplate"),
            other => bail!("{other} is not a list method"),
        };
        let (mut names, mut params) = (Vec::new(), json!({}));
        loop {
            let page = self.request(method, params).await?;
            let items = page[list]
                .as_array()
                .with_context(|| format!("no {list}: {page}"))?;
            names.extend(
                items
                    .iter()
                    .filter_map(|item| Some(item[key].as_str()?.to_owned())),
            );
            match page["nextCursor"].as_str() {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return Ok(names),
            }
        }
    }

    /// The headers this client sends with every request, session and version included.
    #[must_use]
    pub fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }
}

/// GETs `url` and gives status, headers and the whole body.
///
/// # Errors
/// The server cannot be reached or the connection breaks.
pub async fn get(url: &str) -> Result<(StatusCode, HeaderMap, String)> {
    let answer = Connection::open(url).await?.get().await?;
    Ok((
        answer.status,
        answer.headers,
        String::from_utf8(answer.body.to_vec())?,
    ))
}
