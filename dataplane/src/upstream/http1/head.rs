//! [`Head`]: the head of a response, and how its body is framed (RFC 9112, section 6.3).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::WireError;

/// Header lines that are taken.
const LINES: usize = 100;

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// Whether the body is an event stream, by its content type.
    pub is_stream: bool,
    lines: Lines,
}

#[derive(Debug)]
enum Lines {
    /// As they came, status line included.
    Text(Bytes),
    /// Of HTTP/2.
    Map(Box<HeaderMap>),
}

/// How the body ends, and what becomes of the connection then.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) body: Framing,
    pub(super) keeps: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Head {
    /// That of a response over HTTP/2.
    #[must_use]
    pub fn of_map(status: StatusCode, headers: HeaderMap) -> Self {
        let kind = headers.get(http::header::CONTENT_TYPE);
        Self {
            status,
            is_stream: kind.is_some_and(|kind| is_event_stream(kind.as_bytes())),
            lines: Lines::Map(Box::new(headers)),
        }
    }

    /// The value of the first header of this name (lower case). Looked for anew each time:
    /// most calls need none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        match &self.lines {
            Lines::Map(map) => map.get(name).map(http::HeaderValue::as_bytes),
            Lines::Text(text) => {
                let mut lines = [const { MaybeUninit::uninit() }; LINES];
                let mut response = httparse::Response::new(&mut []);
                // It was parsed before.
                httparse::ParserConfig::default()
                    .parse_response_with_uninit_headers(&mut response, text, &mut lines)
                    .ok()?;
                let found = response
                    .headers
                    .iter()
                    .find(|h| h.name.eq_ignore_ascii_case(name))?;
                Some(found.value)
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.lines {
            Lines::Text(text) => text.len(),
            Lines::Map(_) => 0,
        }
    }
}

/// Takes a head off the front of what was read; `None`: it is not all there.
pub(super) fn take(buf: &mut BytesMut) -> Result<Option<(Head, Frame)>, WireError> {
    if buf.is_empty() {
        return Ok(None);
    }
    let mut lines = [const { MaybeUninit::uninit() }; LINES];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buf,
        &mut lines,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(WireError::Malformed("its head cannot be read")),
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(WireError::Malformed("its status is none"))?;
    let (frame, is_stream) = framing(status, response.version == Some(1), response.headers)?;
    let head = Head {
        status,
        is_stream,
        lines: Lines::Text(buf.split_to(length).freeze()),
    };
    Ok(Some((head, frame)))
}

/// What the header lines say of the body.
fn framing(
    status: StatusCode,
    is_1_1: bool,
    headers: &[httparse::Header<'_>],
) -> Result<(Frame, bool), WireError> {
    let (mut length, mut chunked, mut is_stream) = (None, false, false);
    let (mut close, mut keep) = (false, false);
    for header in headers {
        let name = header.name;
        // Most names differ in length from all of these.
        match name.len() {
            10 if name.eq_ignore_ascii_case("connection") => {
                for word in header.value.split(|b| *b == b',') {
                    let word = word.trim_ascii();
                    close |= word.eq_ignore_ascii_case(b"close");
                    keep |= word.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            12 if name.eq_ignore_ascii_case("content-type") => {
                is_stream = is_event_stream(header.value);
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let announced = number(header.value);
                if announced.is_none() || length.is_some_and(|before| Some(before) != announced) {
                    return Err(WireError::Malformed("its length is no number, or two"));
                }
                length = announced;
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if chunked || !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(WireError::Malformed(
                        "it has an encoding other than chunked",
                    ));
                }
                chunked = true;
            }
            _ => {}
        }
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(WireError::Malformed(
            "it switches protocols, which nobody asked for",
        ));
    }
    let body = match (chunked, length) {
        _ if status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED =>
        {
            Framing::Empty
        }
        (true, Some(_)) => return Err(WireError::Malformed("it has a length and an encoding")),
        (true, None) if !is_1_1 => {
            return Err(WireError::Malformed("it is HTTP/1.0 and has an encoding"));
        }
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    };
    let keeps = if is_1_1 { !close } else { keep && !close };
    let keeps = keeps && body != Framing::UntilClose;
    Ok((Frame { body, keeps }, is_stream))
}

/// Digits only: no sign, no list, no white space inside (RFC 9110, section 8.6).
fn number(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

fn is_event_stream(kind: &[u8]) -> bool {
    kind.get(..17)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}
