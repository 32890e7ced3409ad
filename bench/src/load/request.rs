//! Requests: made once for each connection; from call to call only the id is written anew.

use std::ops::Range;

use super::{Ask, Endpoint, Era};

/// Every id has as many digits, and fits into what JavaScript takes for an integer.
const FIRST_ID: u64 = 1_000_000_000_000_000;
const DIGITS: usize = 16;

/// What tools are asked to echo.
pub const TEXT: &str = "the quick brown fox jumps over it";

/// A request, and where its id is.
pub(super) struct Request {
    bytes: Vec<u8>,
    id: Option<Range<usize>>,
}

impl Request {
    /// What is asked of an endpoint; `session` is the session that it has given.
    #[must_use]
    pub(super) fn new(to: &Endpoint, era: Era, ask: &Ask, session: Option<&str>) -> Self {
        if matches!(ask, Ask::File) {
            return Self::get(to);
        }
        let Parts {
            mut headers,
            front,
            back,
        } = parts(to, era, ask);
        if let Some(session) = session {
            headers.push(("mcp-session-id", session.to_owned()));
        }
        let body = format!("{front}{FIRST_ID}{back}");
        let bytes = post(to, &headers, &body);
        let id = bytes.len() - back.len() - DIGITS;
        Self {
            bytes,
            id: Some(id..id + DIGITS),
        }
    }

    /// A message that is sent once.
    #[must_use]
    pub(super) fn once(to: &Endpoint, session: Option<&str>, body: &str) -> Self {
        let session = session.map(|session| ("mcp-session-id", session.to_owned()));
        let mut headers = common(to);
        headers.extend(session);
        Self {
            bytes: post(to, &headers, body),
            id: None,
        }
    }

    fn get(to: &Endpoint) -> Self {
        let bytes = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", to.path, to.address);
        Self {
            bytes: bytes.into_bytes(),
            id: None,
        }
    }

    /// The bytes with this id, which counts from 0.
    pub(super) fn with_id(&mut self, id: u64) -> &[u8] {
        if let Some(place) = self.id.clone() {
            write_digits(FIRST_ID + id, &mut self.bytes[place]);
        }
        &self.bytes
    }
}

/// The text of an id in a message.
#[must_use]
pub(super) fn id_text(id: u64) -> [u8; DIGITS] {
    let mut text = [0; DIGITS];
    write_digits(FIRST_ID + id, &mut text);
    text
}

fn write_digits(mut number: u64, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

const MODERN_META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"fleet-bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;

fn call_params(tool: &str) -> String {
    format!(r#""name":"{tool}","arguments":{{"text":"{TEXT}"}}"#)
}

/// What a request consists of besides its id, which is between `front` and `back`.
pub(super) struct Parts {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) front: String,
    pub(super) back: String,
}

/// The parts of what is asked; a GET has none.
pub(super) fn parts(to: &Endpoint, era: Era, ask: &Ask) -> Parts {
    let tool = match ask {
        Ask::Small => Some(to.tool.clone()),
        Ask::Large => Some(to.large_tool()),
        Ask::List { .. } | Ask::File => None,
    };
    let method = if tool.is_some() {
        "tools/call"
    } else {
        "tools/list"
    };
    let mut params: Vec<_> = tool.iter().map(|tool| call_params(tool)).collect();
    let mut headers = common(to);
    headers.push(("mcp-protocol-version", era.to_string()));
    if era == Era::Modern {
        params.push(MODERN_META.to_owned());
        headers.push(("mcp-method", method.to_owned()));
        headers.extend(tool.map(|tool| ("mcp-name", tool)));
    }
    Parts {
        headers,
        front: r#"{"jsonrpc":"2.0","id":"#.to_owned(),
        back: format!(
            r#","method":"{method}","params":{{{}}}}}"#,
            params.join(",")
        ),
    }
}

/// Headers that every message has.
fn common(to: &Endpoint) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json, text/event-stream".to_owned()),
    ];
    let token = to.token.as_ref();
    headers.extend(token.map(|token| ("authorization", format!("Bearer {token}"))));
    headers
}

fn post(to: &Endpoint, headers: &[(&str, String)], body: &str) -> Vec<u8> {
    let mut text = format!("POST {} HTTP/1.1\r\nhost: {}\r\n", to.path, to.address);
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_differs_from_call_to_call() {
        let to = Endpoint::new("x", ([127, 0, 0, 1], 80).into(), "/mcp");
        for era in [Era::Legacy, Era::Modern] {
            let mut request = Request::new(&to, era, &Ask::Small, None);
            let (first, second) = (request.with_id(0).to_vec(), request.with_id(77).to_vec());
            let text = String::from_utf8(second).unwrap();
            assert!(text.contains(r#""id":1000000000000077,"#), "{text}");
            assert_eq!(
                text.replace("1000000000000077", "1000000000000000")
                    .as_bytes(),
                first
            );
            let body = text.split("\r\n\r\n").nth(1).unwrap();
            assert!(text.contains(&format!("content-length: {}\r\n", body.len())));
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
        }
    }
}
