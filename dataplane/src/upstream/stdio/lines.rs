//! Lines to and from a child: one message each, with no line break inside.

use std::{io, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};

use crate::upstream::duplex::{Link, MAX_MESSAGE, Queues, Throttle};

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

/// Writes what `link` has queued, until the child closes its input.
pub(super) async fn write<W: AsyncWrite + Unpin>(link: Arc<Link>, to: W, mut queues: Queues) {
    let mut to = BufWriter::with_capacity(CHUNK, to);
    while let Some(message) = queues.next(&link).await {
        let mut sent = to.write_all(&message).await;
        if sent.is_ok() {
            sent = to.write_all(b"\n").await;
        }
        if sent.is_ok() && queues.are_empty() {
            sent = to.flush().await;
        }
        if let Err(error) = sent {
            tracing::debug!(backend = link.name(), "cannot write: {error}");
            break;
        }
    }
    link.breaks();
}

/// Reads messages for `link` until the child closes its output.
pub(super) async fn read<R: AsyncRead + Unpin>(link: Arc<Link>, from: R) {
    let mut lines = Lines::new(from, MAX_MESSAGE);
    let mut throttle = Throttle::new();
    loop {
        match lines.next().await {
            Ok(Some(Line::Whole(line))) => link.take(line, &mut throttle),
            Ok(Some(Line::TooLong(length, start))) => {
                let start = link.excerpt(&start);
                link.complain(
                    format!("line of {length} bytes skipped: {start}"),
                    &mut throttle,
                );
            }
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(backend = link.name(), "cannot read: {error}");
                break;
            }
        }
    }
    link.breaks();
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
}
