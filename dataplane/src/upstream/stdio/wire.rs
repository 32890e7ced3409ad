//! Lines to and from a child: one message each, with no line break inside.

use std::{io, ops::Range, sync::Arc, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2_iter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};

use super::link::{Link, Outgoing, Queues};

/// Longest message taken from a child.
pub(super) const MAX_LINE: usize = 64 << 20;
/// Read at a time: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// Shorter lines are copied out of the read buffer, so that they do not keep it alive.
const COPIED: usize = 16 << 10;
/// Kept from a line that is too long.
const KEPT: usize = 1 << 10;

/// A line without its line break.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it.
    Whole(Bytes),
    /// Longer than allowed: how long, and how it starts.
    TooLong(usize, Bytes),
}

/// Cuts a stream into lines of bounded length.
pub(super) struct Lines<R> {
    from: R,
    buffer: BytesMut,
    max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(from: R, max: usize) -> Self {
        Self {
            from,
            buffer: BytesMut::new(),
            max,
        }
    }

    /// The next line, the last one even if its line break is missing; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr(b'\n', &self.buffer[searched..]) {
                let line = self.take(searched + at);
                self.buffer.advance(1);
                return Ok(Some(Line::Whole(line)));
            }
            searched = self.buffer.len();
            if searched > self.max {
                return self.skip().await.map(Some);
            }
            if self.fill().await? == 0 {
                let rest = self.take(searched);
                return Ok((!rest.is_empty()).then_some(Line::Whole(rest)));
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(CHUNK);
        self.from.read_buf(&mut self.buffer).await
    }

    fn take(&mut self, length: usize) -> Bytes {
        if length <= COPIED {
            let line = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            return line;
        }
        let line = self.buffer.split_to(length).freeze();
        // What follows must not keep, and grow, the memory of a long line.
        self.buffer = BytesMut::from(&self.buffer[..]);
        line
    }

    async fn skip(&mut self) -> io::Result<Line> {
        let start = Bytes::copy_from_slice(&self.buffer[..KEPT.min(self.buffer.len())]);
        let mut length = 0;
        loop {
            if let Some(at) = memchr(b'\n', &self.buffer) {
                self.buffer.advance(at + 1);
                return Ok(Line::TooLong(length + at, start));
            }
            length += self.buffer.len();
            self.buffer = BytesMut::new();
            if self.fill().await? == 0 {
                return Ok(Line::TooLong(length, start));
            }
        }
    }
}

/// `source` with the ranges of `edits` replaced, and room for `extra` bytes more.
pub(super) fn splice(source: &[u8], edits: &mut [(Range<usize>, &[u8])], extra: usize) -> Vec<u8> {
    edits.sort_unstable_by_key(|(range, _)| range.start);
    let inserted: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(source.len() + inserted + extra);
    let mut done = 0;
    for (range, text) in edits.iter() {
        out.extend_from_slice(&source[done..range.start]);
        out.extend_from_slice(text);
        done = range.end;
    }
    out.extend_from_slice(&source[done..]);
    out
}

/// Makes one line of a message. A line break in JSON can only be white space between tokens,
/// so a space means the same. Carriage returns too: some readers take them for line breaks.
pub(super) fn line(mut message: Vec<u8>) -> Bytes {
    let breaks: Vec<usize> = memchr2_iter(b'\n', b'\r', &message).collect();
    for at in breaks {
        message[at] = b' ';
    }
    message.push(b'\n');
    message.into()
}

/// Writes what `link` has queued, until the child closes its input. Cancellations and answers
/// go before requests.
pub(super) async fn write<W: AsyncWrite + Unpin>(link: Arc<Link>, to: W, mut queues: Queues) {
    let mut to = BufWriter::with_capacity(CHUNK, to);
    loop {
        let Queues {
            cancellations,
            answers,
            requests,
        } = &mut queues;
        let next = tokio::select! {
            biased;
            Some(line) = cancellations.recv() => Outgoing { id: None, line },
            Some(line) = answers.recv() => Outgoing { id: None, line },
            Some(request) = requests.recv() => request,
            else => break,
        };
        // Cancelled while it waited here: the child need not hear of it.
        if next.id.is_some_and(|id| !link.goes_out(id)) {
            continue;
        }
        let mut sent = to.write_all(&next.line).await;
        if sent.is_ok() && queues.are_empty() {
            sent = to.flush().await;
        }
        if let Err(error) = sent {
            tracing::debug!(target: "mcp::stdio", backend = link.name(), "cannot write: {error}");
            break;
        }
    }
    link.breaks();
}

/// Reads messages for `link` until the child closes its output.
pub(super) async fn read<R: AsyncRead + Unpin>(link: Arc<Link>, from: R) {
    let mut lines = Lines::new(from, MAX_LINE);
    let mut throttle = Throttle::new();
    loop {
        let problem = match lines.next().await {
            Ok(Some(Line::Whole(line))) => match link.incoming(line) {
                Ok(()) => continue,
                Err(problem) => problem,
            },
            Ok(Some(Line::TooLong(length, start))) => {
                format!("line of {length} bytes skipped: {}", link.excerpt(&start))
            }
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(target: "mcp::stdio", backend = link.name(), "cannot read: {error}");
                break;
            }
        };
        if let Some(suppressed) = throttle.admit() {
            tracing::warn!(target: "mcp::stdio", backend = link.name(), suppressed, "{problem}");
        }
    }
    link.breaks();
}

/// The start of what a child wrote, for the log.
pub(super) fn excerpt(text: &[u8]) -> String {
    const SHOWN: usize = 200;
    let dots = if text.len() > SHOWN { "…" } else { "" };
    format!("{}{dots}", text[..SHOWN.min(text.len())].escape_ascii())
}

/// Bounds the rate of log lines that a child can cause.
pub(super) struct Throttle {
    tokens: f64,
    at: Instant,
    suppressed: u64,
}

impl Throttle {
    const BURST: f64 = 50.0;
    const PER_SECOND: f64 = 20.0;

    pub(super) fn new() -> Self {
        Self {
            tokens: Self::BURST,
            at: Instant::now(),
            suppressed: 0,
        }
    }

    /// Whether a line may be logged now; if so, how many have been suppressed since the last.
    pub(super) fn admit(&mut self) -> Option<u64> {
        let earned = self.at.elapsed().as_secs_f64() * Self::PER_SECOND;
        self.at = Instant::now();
        self.tokens = (self.tokens + earned).min(Self::BURST);
        if self.tokens < 1.0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], max: usize) -> Vec<Line> {
        let mut lines = Lines::new(text, max);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn lines_end_at_breaks_and_at_the_end() {
        let whole = |text: &'static str| Line::Whole(Bytes::from(text));
        assert_eq!(
            lines(b"a\n\nbc", 8).await,
            [whole("a"), whole(""), whole("bc")]
        );
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_skipped_and_the_next_is_read() {
        let mut text = vec![b'x'; 200_000];
        text.extend_from_slice(b"\nnext\n");
        let all = lines(&text, 100_000).await;
        assert!(matches!(&all[0], Line::TooLong(200_000, start) if start.len() == KEPT));
        assert_eq!(all[1], Line::Whole(Bytes::from("next")));
    }

    #[test]
    fn splice_takes_edits_in_any_order() {
        let mut edits: [(Range<usize>, &[u8]); 2] = [(4..5, b"long"), (0..2, b"")];
        assert_eq!(splice(b"abcdefg", &mut edits, 0), b"cdlongfg");
    }

    #[test]
    fn a_message_becomes_one_line() {
        assert_eq!(line(b"{\r\n}".to_vec()), "{  }\n");
    }

    #[test]
    fn the_throttle_counts_what_it_holds_back() {
        let mut throttle = Throttle::new();
        let admitted = (0..500).filter(|_| throttle.admit().is_some()).count();
        assert!((50..100).contains(&admitted), "{admitted}");
        assert_eq!(throttle.suppressed, 500 - admitted as u64);
    }
}
