//! [`Bridge`]: a client that speaks MCP over stdio, at a gateway that speaks it over HTTP.
//!
//! Messages travel as they are, one a line. What HTTP wants beside them is made here: the
//! session and its stream (2025-11-25, Transports), or the headers of each request
//! (2026-07-28, Streamable HTTP). A session that the gateway has forgotten is opened anew
//! with the client's own `initialize`, so that the client notices nothing.

mod line;
mod stream;
#[cfg(test)]
mod tests;
mod under_way;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Response, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{
    McpError, Target,
    session::{PROTOCOL_VERSION, SESSION_ID, chain, connection},
    wire,
};
use crate::output;
use line::Line;
use under_way::UnderWay;

/// Longest message of the client, in bytes: what a gateway takes.
const LONGEST: u64 = 16 << 20;
/// How long answers may take that are still owed when the client has closed its end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// JSON-RPC's parse error.
const PARSE_ERROR: i64 = -32_700;
/// JSON-RPC's internal error.
const INTERNAL_ERROR: i64 = -32_603;

/// See the module.
pub(crate) struct Bridge<W> {
    http: reqwest::Client,
    url: String,
    headers: HeaderMap,
    out: tokio::sync::Mutex<W>,
    session: tokio::sync::RwLock<Session>,
    /// What is under way, by the source text of its id.
    under_way: Mutex<HashMap<String, UnderWay>>,
    /// Input schemas of tools whose arguments are to be in headers, too.
    schemas: Mutex<HashMap<String, Value>>,
}

/// That of a client with sessions.
#[derive(Default)]
struct Session {
    /// Sent with every request.
    headers: HeaderMap,
    /// The client's `initialize`, for another session.
    initialize: Option<Vec<u8>>,
    /// Counts the sessions.
    number: u64,
    listens: Option<AbortHandle>,
}

impl<W: AsyncWrite + Unpin + Send + 'static> Bridge<W> {
    /// A bridge to this gateway; `out` is what the client reads.
    ///
    /// # Errors
    /// The address is none.
    pub(crate) fn new(target: &Target, out: W) -> Result<Arc<Self>, McpError> {
        let (http, headers) = connection(target)?;
        Ok(Arc::new(Self {
            http,
            url: target.url.clone(),
            headers,
            out: out.into(),
            session: tokio::sync::RwLock::default(),
            under_way: Mutex::default(),
            schemas: Mutex::default(),
        }))
    }

    /// Passes on what the client says until it closes its end or `stop` resolves; then ends
    /// the session.
    ///
    /// # Errors
    /// The client cannot be read from.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut input: impl AsyncBufRead + Unpin,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut requests = JoinSet::new();
        let mut text = Vec::new();
        tokio::pin!(stop);
        let read = loop {
            text.clear();
            let mut limited = (&mut input).take(LONGEST);
            let read = tokio::select! {
                read = limited.read_until(b'\n', &mut text) => read,
                () = &mut stop => {
                    requests.abort_all();
                    Ok(0)
                }
            };
            match read {
                Ok(0) => break Ok(()),
                Err(error) => break Err(error),
                Ok(_) if text.len() as u64 == LONGEST && !text.ends_with(b"\n") => {
                    let what = format!("a message has more than {} MiB", LONGEST >> 20);
                    break Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                Ok(_) => self.take(text.trim_ascii(), &mut requests).await,
            }
            while requests.try_join_next().is_some() {}
        };
        let owed = async { while requests.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_ANSWERS, owed).await;
        self.end().await;
        read
    }

    /// One message of the client. Requests are answered side by side; what has an order with
    /// them is passed on before the next message is read.
    async fn take(self: &Arc<Self>, text: &[u8], requests: &mut JoinSet<()>) {
        if text.is_empty() {
            return;
        }
        let line = match Line::read(text) {
            Ok(line) => line,
            Err(error) => {
                return self
                    .fail("null", PARSE_ERROR, &format!("Parse error: {error}"))
                    .await;
            }
        };
        if line.method == "initialize" {
            return self.initialize(line).await;
        }
        if !line.is_request() {
            if line.method == "notifications/cancelled" {
                return self.cancel(line, requests).await;
            }
            return self.tell(line).await;
        }
        self.begin(line, requests);
    }

    /// Opens a session for the client.
    async fn initialize(self: &Arc<Self>, line: Line) {
        let mut session = self.session.write().await;
        session.close();
        session.headers = HeaderMap::new();
        session.initialize = Some(line.text.clone());
        match self.open(&mut session).await {
            Ok(answer) => self.write(&answer).await,
            Err(why) => self.fail(&line.id, INTERNAL_ERROR, &why).await,
        }
    }

    /// Opens a session with the `initialize` that the client has sent; gives the answer.
    async fn open(&self, session: &mut Session) -> Result<Vec<u8>, String> {
        let body = session.initialize.clone().unwrap_or_default();
        let response = self.post(body, HeaderMap::new()).await?;
        let id = response.headers().get(SESSION_ID).cloned();
        let answer = stream::first_answer(response).await?;
        let read: Value = serde_json::from_slice(&answer).map_err(|e| self.garbled(&e))?;
        let mut headers = HeaderMap::new();
        headers.extend(id.map(|id| (SESSION_ID, id)));
        let version = read["result"]["protocolVersion"].as_str().unwrap_or("");
        if let Ok(version) = HeaderValue::from_str(version) {
            headers.insert(PROTOCOL_VERSION, version);
        }
        session.headers = headers;
        session.number += 1;
        Ok(answer)
    }

    /// Opens another session where that of this number is gone.
    async fn reopen(self: &Arc<Self>, number: u64) -> Result<(), String> {
        let mut session = self.session.write().await;
        if session.number != number || session.initialize.is_none() {
            return Ok(());
        }
        session.close();
        self.open(&mut session).await?;
        let ready = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        self.post(ready.to_vec(), session.headers.clone()).await?;
        self.listen(&mut session);
        Ok(())
    }

    /// Listens to what belongs to no request.
    fn listen(self: &Arc<Self>, session: &mut Session) {
        session.close();
        let (bridge, headers) = (self.clone(), session.headers.clone());
        let task = tokio::spawn(async move { bridge.events(headers).await });
        session.listens = Some(task.abort_handle());
    }

    /// A request, until its answer is written. `begun` is dropped when that has begun.
    async fn ask(self: &Arc<Self>, line: Line, begun: watch::Sender<()>) {
        let id = line.id.clone();
        if let Err(why) = self.answered(line, begun).await {
            self.fail(&id, INTERNAL_ERROR, &why).await;
        }
    }

    async fn answered(
        self: &Arc<Self>,
        line: Line,
        begun: watch::Sender<()>,
    ) -> Result<(), String> {
        let mut first = true;
        loop {
            let (headers, number) = self.headers(&line).await;
            let response = self.post(line.text.clone(), headers.clone()).await?;
            let has_session = headers.contains_key(SESSION_ID);
            if response.status() == StatusCode::NOT_FOUND && has_session && first {
                first = false;
                self.reopen(number).await?;
                continue;
            }
            drop(begun);
            return self.pass(&line, response, headers).await;
        }
    }

    /// A notification, or an answer to what the gateway has asked.
    async fn tell(self: &Arc<Self>, line: Line) {
        let (headers, number) = self.headers(&line).await;
        let has_session = headers.contains_key(SESSION_ID);
        let told = self.post(line.text.clone(), headers).await;
        match told {
            Err(why) => output::note(&format!("warning: {} is lost: {why}", line.what())),
            Ok(response) if response.status() == StatusCode::NOT_FOUND && has_session => {
                // It was about something of the old session.
                if let Err(why) = self.reopen(number).await {
                    output::note(&format!("warning: the session is lost: {why}"));
                }
            }
            Ok(response) if !response.status().is_success() => {
                let status = response.status();
                output::note(&format!("warning: {} is refused: {status}", line.what()));
            }
            Ok(_) if line.method == "notifications/initialized" => {
                self.listen(&mut *self.session.write().await);
            }
            Ok(_) => {}
        }
    }

    /// The headers of a message, and the number of its session.
    async fn headers(&self, line: &Line) -> (HeaderMap, u64) {
        let session = self.session.read().await;
        let Some(version) = &line.version else {
            return (session.headers.clone(), session.number);
        };
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str| {
            headers.extend(HeaderValue::from_str(value).ok().map(|v| (name, v)));
        };
        put(PROTOCOL_VERSION, version);
        put(
            HeaderName::from_static("mcp-method"),
            &wire::header_value(&line.method),
        );
        if let Some(name) = line.name() {
            put(
                HeaderName::from_static("mcp-name"),
                &wire::header_value(&name),
            );
            let schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(schema), Some(arguments)) = (schemas.get(&name), line.arguments()) {
                for (name, value) in wire::param_headers(schema, &arguments) {
                    if let Ok(name) = HeaderName::try_from(name) {
                        put(name, &value);
                    }
                }
            }
        }
        (headers, 0)
    }

    /// Remembers which arguments of tools are to be in headers, too.
    fn learn(&self, answer: &[u8]) {
        // Few lists have any, and reading a long one takes its time.
        let mark = b"x-mcp-header";
        if !answer.windows(mark.len()).any(|window| window == mark) {
            return;
        }
        let Ok(mut answer) = serde_json::from_slice::<Value>(answer) else {
            return;
        };
        let tools = answer["result"]["tools"].as_array_mut();
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        for tool in tools.into_iter().flatten() {
            if let Some(name) = tool["name"].as_str().map(str::to_owned) {
                schemas.insert(name, tool["inputSchema"].take());
            }
        }
    }

    async fn post(&self, body: Vec<u8>, headers: HeaderMap) -> Result<Response, String> {
        let request = self.http.post(&self.url).headers(self.headers.clone());
        let response = request.headers(headers).body(body).send().await;
        response.map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, error: reqwest::Error) -> String {
        let error = McpError::Unreachable {
            url: self.url.clone(),
            why: chain(&error.without_url()),
        };
        error.to_string()
    }

    fn garbled(&self, why: &dyn std::fmt::Display) -> String {
        let error = McpError::Garbled {
            url: self.url.clone(),
            why: why.to_string(),
        };
        error.to_string()
    }

    async fn fail(&self, id: &str, code: i64, what: &str) {
        let error = json!({"code": code, "message": what});
        let message = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
        self.write(message.as_bytes()).await;
    }

    /// Writes a message on a line of its own.
    async fn write(&self, message: &[u8]) {
        let mut line: Vec<u8> = message
            .iter()
            // Between the tokens of a JSON text only: within a string they are escaped.
            .map(|byte| {
                if matches!(byte, b'\n' | b'\r') {
                    b' '
                } else {
                    *byte
                }
            })
            .collect();
        line.push(b'\n');
        let mut out = self.out.lock().await;
        let written = async {
            out.write_all(&line).await?;
            out.flush().await
        };
        // A client that reads no more closes its other end, too.
        let _ = written.await;
    }

    async fn end(&self) {
        let mut session = self.session.write().await;
        session.close();
        if session.headers.contains_key(SESSION_ID) {
            let request = self.http.delete(&self.url).headers(self.headers.clone());
            let request = request.headers(session.headers.clone()).send();
            // It would end by itself.
            let _ = tokio::time::timeout(Duration::from_secs(2), request).await;
        }
    }
}

impl Session {
    fn close(&mut self) {
        if let Some(listens) = self.listens.take() {
            listens.abort();
        }
    }
}
