//! What a gateway answers: one message, or a stream of them that may break off and go on.

use std::{sync::Arc, time::Duration};

use mcp_dataplane::codec::sse::Parser;
use reqwest::{
    Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tokio::io::AsyncWrite;

use super::{Bridge, Line};
use crate::{
    mcp::{session::chain, wire::Incoming},
    output,
};

/// Longest message of a gateway, in bytes.
const LONGEST: usize = 256 << 20;
/// How often a stream is asked for again that gives nothing.
const ATTEMPTS: u32 = 5;
/// How long to wait before that, where the gateway does not say.
const RETRY: Duration = Duration::from_secs(1);
/// How long to wait at most, whatever the gateway says.
const RETRY_MOST: Duration = Duration::from_secs(30);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How far a stream has come.
#[derive(Default)]
struct Position {
    last: Option<HeaderValue>,
    retry: Option<Duration>,
    /// Something came since it was opened.
    moved: bool,
}

impl Position {
    fn note(&mut self, parser: &Parser) {
        if let Some(id) = parser.last_event_id() {
            self.last = HeaderValue::from_bytes(id).ok();
        }
        if let Some(retry) = parser.retry() {
            self.retry = Some(Duration::from_millis(retry).min(RETRY_MOST));
        }
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Bridge<W> {
    /// Writes what answers a request.
    pub(super) async fn pass(
        self: &Arc<Self>,
        line: &Line,
        response: Response,
        headers: HeaderMap,
    ) -> Result<(), String> {
        if !is_stream(&response) {
            let status = response.status();
            let body = whole(response).await?;
            if line.method == "tools/list" {
                self.learn(&body);
            }
            if line.is_answered_by(&body) {
                self.write(&body).await;
                return Ok(());
            }
            // Refused before it was read: the client waits for an answer with its id.
            let read = serde_json::from_slice::<Incoming<'_>>(&body);
            if let Some(error) = read.ok().and_then(|message| message.error) {
                self.fail(&line.id, error.code, &error.message).await;
                return Ok(());
            }
            let body = String::from_utf8_lossy(&body);
            let body = output::one_line(&output::brief(&body, 200));
            return Err(format!("{} answered HTTP {status}: {body}", self.url));
        }
        let mut position = Position::default();
        if self.follow(response, Some(line), &mut position).await {
            return Ok(());
        }
        let mut failed = 0;
        while position.last.is_some() && failed < ATTEMPTS {
            tokio::time::sleep(position.retry.unwrap_or(RETRY)).await;
            match self.get(&headers, &position).await {
                Ok(response) if is_stream(&response) => {
                    position.moved = false;
                    if self.follow(response, Some(line), &mut position).await {
                        return Ok(());
                    }
                    failed = if position.moved { 0 } else { failed + 1 };
                }
                _ => failed += 1,
            }
        }
        Err(format!("{} broke off its answer", self.url))
    }

    /// Writes what belongs to no request, for as long as the session has a stream for it.
    pub(super) async fn events(self: Arc<Self>, headers: HeaderMap) {
        let mut position = Position::default();
        loop {
            match self.get(&headers, &position).await {
                Ok(response) if is_stream(&response) => {
                    self.follow(response, None, &mut position).await;
                }
                // It cannot go on where it was.
                Ok(response)
                    if response.status() == StatusCode::BAD_REQUEST && position.last.is_some() =>
                {
                    position = Position::default();
                }
                // No such stream; or no such session, which the next request will see.
                Ok(response) if !response.status().is_server_error() => return,
                _ => {}
            }
            tokio::time::sleep(position.retry.unwrap_or(RETRY)).await;
        }
    }

    async fn get(&self, headers: &HeaderMap, position: &Position) -> reqwest::Result<Response> {
        let mut headers = headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.extend(position.last.clone().map(|last| (LAST_EVENT_ID, last)));
        let mut own = self.headers.clone();
        own.remove(ACCEPT);
        let request = self.http.get(&self.url).headers(own).headers(headers);
        request.send().await
    }

    /// Writes the messages of a stream to its end; whether the answer was among them.
    async fn follow(
        &self,
        mut response: Response,
        line: Option<&Line>,
        position: &mut Position,
    ) -> bool {
        let mut parser = Parser::new(LONGEST);
        let mut answered = false;
        while let Ok(Some(chunk)) = response.chunk().await {
            parser.push(chunk);
            while let Some(event) = parser.next() {
                let Ok(event) = event else {
                    output::note("warning: a message of the gateway is too long");
                    return answered;
                };
                position.moved = true;
                position.note(&parser);
                if event.data.is_empty() {
                    continue;
                }
                if let Some(line) = line
                    && line.is_answered_by(&event.data)
                {
                    answered = true;
                    if line.method == "tools/list" {
                        self.learn(&event.data);
                    }
                }
                self.write(&event.data).await;
            }
            position.note(&parser);
        }
        answered
    }
}

impl Line {
    fn is_answered_by(&self, message: &[u8]) -> bool {
        if self.text.starts_with(b"[") {
            return message.starts_with(b"[");
        }
        let read = serde_json::from_slice::<Incoming<'_>>(message);
        read.is_ok_and(|m| m.method.is_none() && m.id.is_some_and(|id| id.get() == self.id))
    }
}

/// The first message that answers a request.
pub(super) async fn first_answer(response: Response) -> Result<Vec<u8>, String> {
    if !is_stream(&response) {
        return whole(response).await;
    }
    let mut response = response;
    let mut parser = Parser::new(LONGEST);
    while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e))? {
        parser.push(chunk);
        for event in parser.by_ref() {
            let data = event.map_err(|e| e.to_string())?.data;
            let read = serde_json::from_slice::<Incoming<'_>>(&data);
            if read.is_ok_and(|message| message.method.is_none()) {
                return Ok(data.to_vec());
            }
        }
    }
    Err("its stream ended without an answer".to_owned())
}

async fn whole(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e))? {
        if body.len() + chunk.len() > LONGEST {
            return Err(format!("its answer has more than {} MiB", LONGEST >> 20));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn is_stream(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    response.status().is_success()
        && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}
