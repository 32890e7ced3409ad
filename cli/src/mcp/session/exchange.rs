//! A message out, and the messages that come back until the answer is there.

use mcp_dataplane::codec::sse::Parser;
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE},
};
use serde_json::{Value, value::RawValue};

use super::{Client, chain};
use crate::{
    mcp::{
        McpError, Params, text,
        wire::{Incoming, Outgoing},
    },
    output,
};

/// Longest answer, or event of an answer.
const MAX_ANSWER: usize = 256 << 20;

impl Client {
    /// A request and its answer, within the time limit.
    pub(super) async fn exchange(
        &mut self,
        method: &str,
        params: &Params,
        headers: HeaderMap,
    ) -> Result<(Box<RawValue>, HeaderMap), McpError> {
        let id = self.next_id;
        self.next_id += 1;
        let limit = self.target.limit;
        let answer = async {
            let response = self.send(Some(id), method, params, headers).await?;
            let headers = response.headers().clone();
            Ok((self.answer(id, response).await?, headers))
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(McpError::TimedOut {
                url: self.target.url.clone(),
                method: method.to_owned(),
                limit,
            }),
        }
    }

    /// Posts a message; answers 401, 403 and statuses without a message become errors.
    pub(super) async fn send(
        &self,
        id: Option<u64>,
        method: &str,
        params: &Params,
        headers: HeaderMap,
    ) -> Result<Response, McpError> {
        let message = Outgoing {
            jsonrpc: "2.0",
            id,
            method,
            params,
        };
        let body = serde_json::to_vec(&message).expect("JSON values and strings serialise");
        let response = self.post(body, headers).await?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let challenge = response
                .headers()
                .get(WWW_AUTHENTICATE)
                .and_then(|v| v.to_str().ok());
            let challenge = challenge.map_or_else(String::new, |c| format!(" ({c})"));
            return Err(McpError::NotAllowed {
                url: self.target.url.clone(),
                status: status.as_u16(),
                challenge,
            });
        }
        if !status.is_success() && media_type(&response) != "application/json" {
            let body = response.text().await.unwrap_or_default();
            let body = output::one_line(&output::brief(&body, 200));
            return Err(McpError::Http {
                url: self.target.url.clone(),
                status: status.as_u16(),
                body,
            });
        }
        Ok(response)
    }

    async fn post(&self, body: Vec<u8>, headers: HeaderMap) -> Result<Response, McpError> {
        let request = self
            .http
            .post(&self.target.url)
            .headers(self.headers.clone())
            .headers(headers)
            .body(body);
        request.send().await.map_err(|e| McpError::Unreachable {
            url: self.target.url.clone(),
            why: chain(&e.without_url()),
        })
    }

    /// Reads messages until the answer to `id` comes.
    async fn answer(&self, id: u64, mut response: Response) -> Result<Box<RawValue>, McpError> {
        match media_type(&response) {
            "application/json" => {
                let mut body = Vec::new();
                while let Some(chunk) = response
                    .chunk()
                    .await
                    .map_err(|e| self.garbled(&chain(&e)))?
                {
                    body.extend_from_slice(&chunk);
                    if body.len() > MAX_ANSWER {
                        return Err(self.garbled(&format_args!(
                            "its answer is longer than {MAX_ANSWER} bytes"
                        )));
                    }
                }
                match self.message(id, &body).await? {
                    Some(result) => Ok(result),
                    None => Err(self.garbled(&"its answer is to another request")),
                }
            }
            "text/event-stream" => {
                let mut parser = Parser::new(MAX_ANSWER);
                while let Some(chunk) = response
                    .chunk()
                    .await
                    .map_err(|e| self.garbled(&chain(&e)))?
                {
                    parser.push(chunk);
                    for event in parser.by_ref() {
                        let data = event.map_err(|e| self.garbled(&e))?.data;
                        if data.is_empty() {
                            continue;
                        }
                        if let Some(result) = self.message(id, &data).await? {
                            return Ok(result);
                        }
                    }
                }
                Err(self.garbled(&"the stream ended before the answer"))
            }
            other => Err(self.garbled(&format_args!("content type {other:?}"))),
        }
    }

    /// Handles one message; the result if it is the answer to `id`.
    async fn message(&self, id: u64, bytes: &[u8]) -> Result<Option<Box<RawValue>>, McpError> {
        let message: Incoming<'_> = serde_json::from_slice(bytes).map_err(|e| self.garbled(&e))?;
        match (message.method.as_deref(), message.id) {
            (Some(method), Some(theirs)) => {
                self.reply(method, theirs).await;
                Ok(None)
            }
            (Some(method), None) => {
                tell(method, message.params);
                Ok(None)
            }
            // An error about a message that could not be read has no id.
            (None, None) => message
                .error
                .map_or(Ok(None), |error| Err(McpError::Rpc(error))),
            (None, Some(theirs)) => {
                if let Some(error) = message.error
                    && (theirs.get() == "null" || theirs.get() == id.to_string())
                {
                    return Err(McpError::Rpc(error));
                }
                Ok(message
                    .result
                    .filter(|_| theirs.get() == id.to_string())
                    .map(ToOwned::to_owned))
            }
        }
    }

    /// Answers a request of the server: `ping`, and nothing else was offered.
    async fn reply(&self, method: &str, id: &RawValue) {
        let answer = if method == "ping" {
            r#""result":{}"#
        } else {
            r#""error":{"code":-32601,"message":"mcpctl offers no capabilities"}"#
        };
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},{answer}}}"#, id.get());
        // The call itself fails if this does not arrive.
        let _ = self.post(body.into_bytes(), HeaderMap::new()).await;
    }

    pub(super) fn garbled(&self, why: &(impl ToString + ?Sized)) -> McpError {
        McpError::Garbled {
            url: self.target.url.clone(),
            why: output::one_line(&why.to_string()),
        }
    }
}

/// Progress and log messages are for the person, not for the data.
fn tell(method: &str, params: Option<&RawValue>) {
    let params: Value = params
        .and_then(|p| serde_json::from_str(p.get()).ok())
        .unwrap_or_default();
    let text = match method {
        "notifications/progress" => {
            let total = params
                .get("total")
                .map_or_else(String::new, |t| format!("/{t}"));
            let done = params.get("progress").unwrap_or(&Value::Null);
            format!("progress {done}{total} {}", text(&params, "message"))
        }
        "notifications/message" => {
            format!(
                "{}: {}",
                text(&params, "level"),
                params.get("data").unwrap_or(&Value::Null)
            )
        }
        _ => return,
    };
    output::note(output::one_line(&text).trim_end());
}

fn media_type(response: &Response) -> &str {
    let value = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}
