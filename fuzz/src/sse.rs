//! Event streams ([`Parser`]): however they are cut, they give the events of the WHATWG HTML standard, and the limit
//! is met at the same place.

use std::mem;

use bytes::{Bytes, BytesMut};
use mcp_dataplane::codec::sse::{Event, Parser, SseError, encode};

use crate::byte;

/// No limit that a test input reaches.
const PLENTY: usize = 1 << 20;

/// First byte: a limit. Second: how many sizes of chunks follow. Rest: the stream.
///
/// # Panics
/// A law is broken.
pub fn check(mut data: &[u8]) {
    let max = usize::from(byte(&mut data));
    let sizes: Vec<_> = (0..byte(&mut data) % 32)
        .map(|_| usize::from(byte(&mut data) % 16))
        .collect();
    let events = read(PLENTY, &cut(data, &sizes));
    let standard: Vec<_> = reference(data).into_iter().map(Ok).collect();
    assert_eq!(events, standard, "chunks of {sizes:?}");
    let whole = read(max, &cut(data, &[]));
    assert_eq!(read(max, &cut(data, &sizes)), whole, "chunks of {sizes:?}");
    written(data);
}

/// What is written is read back, its line ends as `\n`.
fn written(data: &[u8]) {
    let mut out = BytesMut::new();
    encode(data, &mut out);
    let events = read(PLENTY, &[out.freeze()]);
    let [Ok(event)] = &events[..] else {
        panic!("one event was written: {events:?}");
    };
    assert_eq!(event.data, lines(data).join(&b'\n'));
}

fn read(max: usize, chunks: &[Bytes]) -> Vec<Result<Event, SseError>> {
    let mut parser = Parser::new(max);
    let mut events = Vec::new();
    for chunk in chunks {
        parser.push(chunk.clone());
        events.extend(&mut parser);
    }
    events
}

fn cut(data: &[u8], sizes: &[usize]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(data);
    let mut chunks: Vec<_> = sizes
        .iter()
        .map(|size| rest.split_to((*size).min(rest.len())))
        .collect();
    chunks.push(rest);
    chunks
}

/// The lines of a text, whose ends are CR LF, LF or CR; the last one is what follows the last end.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
        lines.push(&rest[..end]);
        let both = usize::from(rest[end..].starts_with(b"\r\n"));
        rest = &rest[end + 1 + both..];
    }
    lines.push(rest);
    lines
}

/// The events of a whole stream, by the words of the standard.
fn reference(stream: &[u8]) -> Vec<Event> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let mut lines = lines(stream);
    // Not ended, and so not a line.
    lines.pop();
    let mut events = Vec::new();
    let (mut event, mut data) = (Event::default(), Vec::new());
    for line in lines {
        if line.is_empty() {
            let done = mem::take(&mut event);
            let mut data = mem::take(&mut data);
            if data.pop().is_some() {
                let data = data.into();
                events.push(Event { data, ..done });
            }
            continue;
        }
        let colon = line.iter().position(|b| *b == b':');
        let (field, value) = match colon {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let copied = || Some(Bytes::copy_from_slice(value));
        match field {
            b"data" => data.extend_from_slice(&[value, b"\n"].concat()),
            b"event" => event.event = copied().filter(|name| !name.is_empty()),
            b"id" if !value.contains(&0) => event.id = copied(),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let text = String::from_utf8_lossy(value);
                event.retry = text.parse().ok().or(event.retry);
            }
            _ => {}
        }
    }
    events
}
