//! `text/event-stream`, as the WHATWG HTML standard section 9.2 defines it.
//!
//! Stands between a backend's HTTP body and the call that waits for it. Bytes
//! in, events out; an event with one data line inside one chunk is a slice of
//! that chunk. Bytes stay as they came: whoever reads the data checks UTF-8.

use std::{collections::VecDeque, mem};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use memchr::memchr2;

#[cfg(test)]
mod tests;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its data lines, joined by `\n`.
    pub data: Bytes,
    /// Its own `id` field; earlier events' ids are [`Parser::last_event_id`].
    pub id: Option<Bytes>,
    /// Its type; `None` stands for `message`.
    pub event: Option<Bytes>,
    /// Its `retry` field, in milliseconds.
    pub retry: Option<u64>,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// An event, or one line of it, is too long.
    #[error("event stream: an event of more than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
}

/// Incremental parser: [`push`](Parser::push) what arrives, then iterate until
/// `None`. After an error it gives nothing more.
#[derive(Debug)]
pub struct Parser {
    max: usize,
    chunks: VecDeque<Bytes>,
    /// Begin of a line that the chunks read so far do not end.
    line: BytesMut,
    data: Data,
    /// Bytes of the data lines of this event.
    size: usize,
    event: Event,
    last_event_id: Option<Bytes>,
    retry: Option<u64>,
    /// Bytes of a byte order mark found; `None` behind the start of the stream.
    bom: Option<usize>,
    /// A CR ended the last line: an LF right behind belongs to it.
    after_cr: bool,
    failed: bool,
}

#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Parser {
    /// A parser that refuses events whose data lines, together with a line that
    /// follows them, have more than `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            chunks: VecDeque::new(),
            line: BytesMut::new(),
            data: Data::None,
            size: 0,
            event: Event::default(),
            last_event_id: None,
            retry: None,
            bom: Some(0),
            after_cr: false,
            failed: false,
        }
    }

    /// Adds what arrived.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() && !self.failed {
            self.chunks.push_back(chunk);
        }
    }

    /// The id to resume after; events without data count too.
    #[must_use]
    pub fn last_event_id(&self) -> Option<&Bytes> {
        self.last_event_id.as_ref()
    }

    /// The reconnection time last asked for, in milliseconds; events without
    /// data count too.
    #[must_use]
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Whether an event has begun and not ended. At the end of a stream it is
    /// lost, as the standard says.
    #[must_use]
    pub fn is_inside_event(&self) -> bool {
        !self.line.is_empty() || !matches!(self.data, Data::None)
    }

    /// The next whole line, without its end.
    fn next_line(&mut self) -> Option<Result<Bytes, SseError>> {
        loop {
            self.skip_bom();
            let chunk = self.chunks.front_mut()?;
            if mem::take(&mut self.after_cr) && chunk.first() == Some(&b'\n') {
                chunk.advance(1);
            }
            let Some(end) = memchr2(b'\n', b'\r', chunk) else {
                if self.size + self.line.len() + chunk.len() > self.max {
                    return Some(Err(SseError::TooLarge { max: self.max }));
                }
                self.line.extend_from_slice(chunk);
                self.chunks.pop_front();
                continue;
            };
            let mut line = chunk.split_to(end);
            self.after_cr = chunk.first() == Some(&b'\r');
            chunk.advance(1);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
            if !self.line.is_empty() {
                self.line.extend_from_slice(&line);
                line = mem::take(&mut self.line).freeze();
            }
            if self.size + line.len() > self.max {
                return Some(Err(SseError::TooLarge { max: self.max }));
            }
            return Some(Ok(line));
        }
    }

    /// One byte order mark may lead the stream, and may come in pieces.
    fn skip_bom(&mut self) {
        while let (Some(found), Some(chunk)) = (self.bom, self.chunks.front_mut()) {
            if found < BOM.len() && chunk.first() == Some(&BOM[found]) {
                chunk.advance(1);
                self.bom = Some(found + 1);
            } else {
                if found < BOM.len() {
                    self.line.extend_from_slice(&BOM[..found]);
                }
                self.bom = None;
            }
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    fn field(&mut self, line: &Bytes) {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let mut value = (colon + 1).min(line.len());
        if line.get(value) == Some(&b' ') {
            value += 1;
        }
        let value = line.slice(value..);
        match &line[..colon] {
            b"data" => {
                self.size += line.len();
                self.data.add(value);
            }
            b"event" => self.event.event = Some(value).filter(|name| !name.is_empty()),
            b"id" if !value.contains(&0) => {
                self.last_event_id = Some(value.clone());
                self.event.id = Some(value);
            }
            b"retry" => {
                if let Some(retry) = milliseconds(&value) {
                    self.retry = Some(retry);
                    self.event.retry = Some(retry);
                }
            }
            _ => {}
        }
    }

    /// A blank line: the event, unless it has no data.
    fn dispatch(&mut self) -> Option<Event> {
        self.size = 0;
        let event = mem::take(&mut self.event);
        let data = match mem::take(&mut self.data) {
            Data::None => return None,
            Data::One(data) => data,
            Data::Many(data) => data.freeze(),
        };
        Some(Event { data, ..event })
    }
}

impl Iterator for Parser {
    type Item = Result<Event, SseError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            match self.next_line()? {
                Ok(line) if !line.is_empty() => self.field(&line),
                Ok(_) => {
                    if let Some(event) = self.dispatch() {
                        return Some(Ok(event));
                    }
                }
                Err(error) => {
                    *self = Self::new(self.max);
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Data {
    fn add(&mut self, line: Bytes) {
        *self = match mem::take(self) {
            Self::None => Self::One(line),
            Self::One(first) => {
                let mut all = BytesMut::with_capacity(first.len() + 1 + line.len());
                all.extend_from_slice(&first);
                all.put_u8(b'\n');
                all.extend_from_slice(&line);
                Self::Many(all)
            }
            Self::Many(mut all) => {
                all.put_u8(b'\n');
                all.extend_from_slice(&line);
                Self::Many(all)
            }
        };
    }
}

/// ASCII digits only, as the standard says.
fn milliseconds(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Writes one `message` event. Line ends in `data` (white space in JSON) become
/// several data lines.
pub fn encode(data: &[u8], out: &mut BytesMut) {
    encode_with_id(None, data, out);
}

/// The same, with an id to resume behind.
pub fn encode_with_id(id: Option<&str>, data: &[u8], out: &mut BytesMut) {
    out.reserve(data.len() + 32 + id.map_or(0, str::len));
    if let Some(id) = id {
        out.put_slice(b"id: ");
        out.put_slice(id.as_bytes());
        out.put_slice(b"\n");
    }
    out.put_slice(b"event: message\ndata: ");
    let mut rest = data;
    while let Some(end) = memchr2(b'\n', b'\r', rest) {
        out.put_slice(&rest[..end]);
        out.put_slice(b"\ndata: ");
        let crlf = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(crlf)..];
    }
    out.put_slice(rest);
    out.put_slice(b"\n\n");
}
