//! What the server answers. Calls of its two tools are found by their text and answered from
//! prepared parts; everything else is read as JSON.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use memchr::memmem;
use serde_json::{Value, json};

use super::Options;
use crate::load::{Era, check::LARGE};

/// An answer to one message.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Body,
    pub(super) session: Option<HeaderValue>,
    pub(super) close: bool,
}

/// Two parts of a body: what belongs to the call, and what was prepared.
#[derive(Default)]
pub(super) struct Body([Bytes; 2]);

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut parts = self.0.iter_mut().filter(|part| !part.is_empty());
        let next = parts.next().map(std::mem::take);
        Poll::Ready(next.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}

/// The answers of one server.
pub(super) struct Answers {
    options: Options,
    sessions: AtomicU64,
    /// Results of `large` and of `tools/list`, with the brace that ends the message.
    large: [Bytes; 2],
    list: [Bytes; 2],
}

/// A call of one of the two tools.
struct Call<'a> {
    id: &'a [u8],
    /// A JSON string literal without its quotes.
    text: &'a [u8],
    large: bool,
}

impl Answers {
    pub(super) fn new(options: Options) -> Self {
        let large = "x".repeat(LARGE);
        let large = json!({"content": [{"type": "text", "text": large}]});
        let list = json!({"tools": (0..options.tools).map(tool).collect::<Vec<_>>()});
        Self {
            options,
            sessions: AtomicU64::new(1),
            large: both(&large),
            list: both(&list),
        }
    }

    pub(super) fn answer(&self, era: Era, in_session: bool, body: &[u8]) -> Answer {
        if let Some(call) = find(body)
            && (in_session || era == Era::Modern)
        {
            return self.call(era, &call);
        }
        let message: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut answer = self.slow(era, in_session, &message);
        answer.close |= self.options.close;
        answer
    }

    fn call(&self, era: Era, call: &Call<'_>) -> Answer {
        let (front, end): (&[u8], _) = match (call.large, era) {
            (true, _) => return ok(call.id, self.large[era as usize].clone()),
            (false, Era::Legacy) => (b"", END),
            (false, Era::Modern) => (br#""resultType":"complete","#, END),
        };
        const START: &[u8] = br#"{"jsonrpc":"2.0","id":"#;
        const TEXT: &[u8] = br#""content":[{"type":"text","text":""#;
        const END: &[u8] = br#""}]}}"#;
        let parts = [
            START,
            call.id,
            br#","result":{"#,
            front,
            TEXT,
            call.text,
            end,
        ];
        plain(parts.concat().into())
    }

    fn slow(&self, era: Era, in_session: bool, message: &Value) -> Answer {
        let id = &message["id"];
        let params = &message["params"];
        let (code, what) = match message["method"].as_str().unwrap_or_default() {
            "" => (-32600, "Invalid Request"),
            _ if id.is_null() => return empty(StatusCode::ACCEPTED),
            "initialize" => return self.initialize(message),
            _ if era == Era::Legacy && !in_session => {
                let mut answer = refusal(id, -32000, "Mcp-Session-Id is missing");
                answer.status = StatusCode::BAD_REQUEST;
                return answer;
            }
            "server/discover" if era == Era::Modern => {
                let result = json!({
                    "resultType": "complete", "ttlMs": 600_000, "cacheScope": "public",
                    "supportedVersions": ["2026-07-28", "2025-11-25"],
                    "capabilities": {"tools": {}},
                });
                return result_of(id, &result);
            }
            "ping" => return result_of(id, &json!({})),
            "tools/list" => return ok(id.to_string().as_bytes(), self.list[era as usize].clone()),
            "tools/call" => {
                let text = params["arguments"]["text"].as_str().unwrap_or_default();
                let (id, text) = (id.to_string(), Value::from(text).to_string());
                match params["name"].as_str() {
                    Some(name @ ("echo" | "large")) => {
                        return self.call(
                            era,
                            &Call {
                                id: id.as_bytes(),
                                text: &text.as_bytes()[1..text.len() - 1],
                                large: name == "large",
                            },
                        );
                    }
                    _ => (-32602, "Unknown tool"),
                }
            }
            _ => (-32601, "Method not found"),
        };
        refusal(id, code, what)
    }

    fn initialize(&self, message: &Value) -> Answer {
        let result = json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fleet-bench", "version": "1"},
        });
        let session = format!("bench-{}", self.sessions.fetch_add(1, Relaxed));
        let mut answer = result_of(&message["id"], &result);
        answer.session = HeaderValue::from_str(&session).ok();
        answer
    }
}

/// The parts of a call of `echo` or `large`, where it is written without spaces, as most do.
fn find(body: &[u8]) -> Option<Call<'_>> {
    memmem::find(body, br#""method":"tools/call""#)?;
    let large = memmem::find(body, br#""name":"echo""#).is_none();
    if large {
        memmem::find(body, br#""name":"large""#)?;
    }
    let id = &body[memmem::find(body, br#""id":"#)? + 5..];
    let id = &id[..memchr::memchr2(b',', b'}', id)?];
    let start = memmem::find(body, br#""text":""#)? + 8;
    let end = start + memchr::memchr2(b'"', b'\\', &body[start..])?;
    let text = &body[start..end];
    // An escape: not what this is for.
    let quoted = body[end] == b'"';
    quoted.then_some(Call { id, text, large })
}

fn tool(number: usize) -> Value {
    let name = match number {
        0 => "echo".to_owned(),
        1 => "large".to_owned(),
        _ => format!("tool_{number:05}"),
    };
    json!({
        "name": name,
        "description": "Answers with the text that it was given, as it was given.",
        "inputSchema": {
            "type": "object",
            "properties": {"text": {"type": "string", "description": "The text."}},
            "required": ["text"],
        },
    })
}

/// The end of a message with this result, for each era.
fn both(result: &Value) -> [Bytes; 2] {
    let text = result.to_string();
    let modern = format!(
        r#"{{"resultType":"complete","ttlMs":600000,"cacheScope":"public",{}"#,
        &text[1..]
    );
    [text, modern].map(|text| Bytes::from(format!(r#","result":{text}}}"#)))
}

fn ok(id: &[u8], rest: Bytes) -> Answer {
    let front = [br#"{"jsonrpc":"2.0","id":"#, id].concat();
    Answer {
        body: Body([front.into(), rest]),
        ..empty(StatusCode::OK)
    }
}

fn plain(body: Bytes) -> Answer {
    Answer {
        body: Body([body, Bytes::new()]),
        ..empty(StatusCode::OK)
    }
}

fn empty(status: StatusCode) -> Answer {
    Answer {
        status,
        body: Body::default(),
        session: None,
        close: false,
    }
}

fn result_of(id: &Value, result: &Value) -> Answer {
    plain(
        json!({"jsonrpc": "2.0", "id": id, "result": result})
            .to_string()
            .into(),
    )
}

fn refusal(id: &Value, code: i64, what: &str) -> Answer {
    let error = json!({"code": code, "message": what});
    plain(
        json!({"jsonrpc": "2.0", "id": id, "error": error})
            .to_string()
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn body(answer: Answer) -> Value {
        let whole = answer.body.collect().await.unwrap().to_bytes();
        serde_json::from_slice(&whole).unwrap()
    }

    fn server() -> Answers {
        Answers::new(Options {
            threads: 1,
            tools: 3,
            close: false,
        })
    }

    #[tokio::test]
    async fn a_call_is_answered_alike_however_it_is_written() {
        let server = server();
        let tight = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a b"}}}"#;
        let loose = tight.replace(':', ": ");
        let escaped = tight.replace("a b", r"a\u0020b");
        for era in [Era::Legacy, Era::Modern] {
            let first = body(server.answer(era, true, tight.as_bytes())).await;
            assert_eq!(
                (&first["id"], &first["result"]["content"][0]["text"]),
                (&json!(7), &json!("a b"))
            );
            for other in [&loose, &escaped] {
                assert_eq!(
                    body(server.answer(era, true, other.as_bytes())).await,
                    first
                );
            }
        }
    }

    #[tokio::test]
    async fn large_answers_and_lists_have_their_size() {
        let server = server();
        let call =
            br#"{"id":1,"method":"tools/call","params":{"name":"large","arguments":{"text":"a"}}}"#;
        let answer = body(server.answer(Era::Modern, false, call)).await;
        assert_eq!(
            answer["result"]["content"][0]["text"]
                .as_str()
                .unwrap()
                .len(),
            LARGE
        );
        let list =
            body(server.answer(Era::Legacy, true, br#"{"id":1,"method":"tools/list"}"#)).await;
        assert_eq!(list["result"]["tools"].as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_legacy_call_needs_a_session() {
        let call =
            br#"{"id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a"}}}"#;
        let answer = server().answer(Era::Legacy, false, call);
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
}
