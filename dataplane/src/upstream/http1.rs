//! HTTP/1.1 to a backend: one exchange at a time, on a connection that the call itself drives.
//!
//! No task, no channel and no header map stand between a call and its connection: the head
//! is written from prepared text, the response is read in place, and its body is a slice of what
//! was read. What could make two readers see two answers (RFC 9112, section 6.3: a length
//! beside an encoding, two lengths, bytes behind the end) is refused or ends the connection.

mod chunked;
mod head;
mod io;

use std::{
    future::poll_fn,
    io::{Error, ErrorKind, IoSlice, Result as IoResult},
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use chunked::Chunked;
use head::Framing;
pub use head::Head;
pub use io::Io;

/// Longest response head, in bytes.
const HEAD_MOST: usize = 64 << 10;
/// What is read at least at a time, and what a connection keeps for reading while it idles.
const READ: usize = 4 << 10;
/// The most that is read for at a time because the last answer was that long.
const READ_MOST: usize = 256 << 10;
/// Bodies up to this length are copied behind their head, so that one write has both.
const COPIED: usize = 16 << 10;
/// How much room for an announced body is made at once; beyond it, as it comes.
const TRUSTED: usize = 1 << 20;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection was gone before a byte of the request was taken: it may be sent again.
    #[error("the connection was closed before the request was sent")]
    Unsent,
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] Error),
    /// The connection was closed amid a response, or before it.
    #[error("the connection was closed before the response was complete")]
    Closed,
    /// What came is not HTTP/1.1, or can be read in two ways.
    #[error("not a valid HTTP response: {0}")]
    Malformed(&'static str),
    /// The body is longer than its reader takes.
    #[error("a body of more than {0} bytes")]
    TooLarge(usize),
}

/// A connection.
pub struct Wire {
    io: Io,
    /// What was read and not yet given on.
    buf: BytesMut,
    /// The request as far as it is written in one piece.
    out: Vec<u8>,
    left: Left,
    /// Whether the server keeps the connection open behind this response.
    keeps: bool,
    /// How long the last response was.
    hint: usize,
}

/// What is still to come of a response's body.
enum Left {
    Nothing,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Wire {
    /// A new connection.
    #[must_use]
    pub fn new(io: Io) -> Self {
        Self {
            io,
            buf: BytesMut::new(),
            out: Vec::new(),
            left: Left::Nothing,
            keeps: true,
            hint: 0,
        }
    }

    /// Whether it can take a request: the response before is read to its end, and the server
    /// has neither closed nor sent anything since. Asks the system only when it has told of news.
    pub fn is_ready(&mut self) -> bool {
        if !self.is_kept() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        self.buf.reserve(READ);
        let news = pin!(self.io.read_buf(&mut self.buf)).poll(&mut cx);
        news.is_pending()
    }

    /// Whether the body was read to its end.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    /// Whether the server keeps the connection open, and nothing came behind the response.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.keeps && self.is_done() && self.buf.is_empty()
    }

    /// Whether the body's end is there already. For who wants nothing more of the body: a piece that
    /// is there instead is lost.
    pub fn is_over(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.is_done() || matches!(self.poll_frame(&mut cx), Poll::Ready(Ok(None)))
    }

    /// Gives back memory that an idle connection does not need.
    pub fn rest(&mut self) {
        if self.buf.is_empty() && self.buf.capacity() > READ {
            self.buf = BytesMut::new();
        }
        if self.out.capacity() > READ {
            self.out = Vec::new();
        }
    }

    /// Sends a request and reads the head of its response. `head` writes the request line and
    /// the header lines but for the length.
    ///
    /// # Errors
    /// See [`WireError`]; [`WireError::Unsent`] only where no byte was taken.
    pub async fn send(
        &mut self,
        head: impl FnOnce(&mut Vec<u8>),
        body: &Bytes,
    ) -> Result<Head, WireError> {
        self.out.clear();
        head(&mut self.out);
        self.out.extend_from_slice(b"content-length: ");
        push_number(&mut self.out, body.len());
        self.out.extend_from_slice(b"\r\n\r\n");
        let apart = if body.len() <= COPIED {
            self.out.extend_from_slice(body);
            &[][..]
        } else {
            &body[..]
        };
        let mut written = 0;
        // Until a response is complete, the connection is of no use to anybody else.
        self.keeps = false;
        self.left = Left::UntilClose;
        poll_fn(|cx| self.poll_exchange(cx, apart, &mut written)).await
    }

    /// Writes what is not yet written, and reads: a server may answer before it has read all.
    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        apart: &[u8],
        written: &mut usize,
    ) -> Poll<Result<Head, WireError>> {
        let whole = self.out.len() + apart.len();
        while *written < whole {
            match self.poll_write(cx, apart, *written) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(unwritten(*written, None))),
                Poll::Ready(Ok(taken)) => *written += taken,
                Poll::Ready(Err(error)) => {
                    // A refusal may have come before the connection was closed under the request.
                    return match self.poll_head(cx, false) {
                        Poll::Ready(Ok(head)) => Poll::Ready(Ok(head)),
                        _ => Poll::Ready(Err(unwritten(*written, Some(error)))),
                    };
                }
                Poll::Pending => break,
            }
        }
        if *written == whole
            && let Poll::Ready(Err(error)) = Pin::new(&mut self.io).poll_flush(cx)
        {
            return Poll::Ready(Err(error.into()));
        }
        self.poll_head(cx, *written == whole)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        apart: &[u8],
        from: usize,
    ) -> Poll<IoResult<usize>> {
        let io = Pin::new(&mut self.io);
        if apart.is_empty() {
            return io.poll_write(cx, &self.out[from..]);
        }
        match from.checked_sub(self.out.len()) {
            Some(from) => io.poll_write(cx, &apart[from..]),
            None => {
                io.poll_write_vectored(cx, &[IoSlice::new(&self.out[from..]), IoSlice::new(apart)])
            }
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, sent: bool) -> Poll<Result<Head, WireError>> {
        loop {
            while let Some((head, framing)) = head::take(&mut self.buf)? {
                if head.status.is_informational() {
                    // 100 and 103 come before the response (RFC 9110, section 15.2).
                    continue;
                }
                self.keeps = framing.keeps && sent;
                self.hint = head.len();
                self.left = match framing.body {
                    Framing::Empty | Framing::Length(0) => Left::Nothing,
                    Framing::Length(length) => Left::Length(length),
                    Framing::Chunked => Left::Chunked(Chunked::default()),
                    Framing::UntilClose => Left::UntilClose,
                };
                return Poll::Ready(Ok(head));
            }
            if self.buf.len() >= HEAD_MOST {
                return Poll::Ready(Err(WireError::Malformed("its head is too long")));
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Err(WireError::Closed));
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<IoResult<usize>> {
        self.buf.reserve(READ.max(self.hint.min(READ_MOST)));
        pin!(self.io.read_buf(&mut self.buf)).poll(cx)
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn frame(&mut self) -> Result<Option<Bytes>, WireError> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, WireError>> {
        loop {
            match &mut self.left {
                Left::Nothing => return Poll::Ready(Ok(None)),
                Left::Length(left) if !self.buf.is_empty() => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let piece = self.buf.split_to(self.buf.len().min(most));
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        self.left = Left::Nothing;
                    }
                    return Poll::Ready(Ok(Some(piece.freeze())));
                }
                Left::UntilClose if !self.buf.is_empty() => {
                    return Poll::Ready(Ok(Some(self.buf.split().freeze())));
                }
                Left::Chunked(chunks) => {
                    if let Some(piece) = chunks.next(&mut self.buf)? {
                        return Poll::Ready(Ok(Some(piece)));
                    }
                    if chunks.is_done() {
                        self.left = Left::Nothing;
                        continue;
                    }
                }
                Left::Length(_) | Left::UntilClose => {}
            }
            if ready!(self.poll_read(cx))? == 0 {
                let whole = matches!(self.left, Left::UntilClose);
                self.keeps = false;
                self.left = Left::Nothing;
                return Poll::Ready(if whole {
                    Ok(None)
                } else {
                    Err(WireError::Closed)
                });
            }
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// See [`WireError`]; it has more than `most` bytes.
    pub async fn collect(&mut self, most: usize) -> Result<Bytes, WireError> {
        let body = match self.left {
            Left::Nothing => Bytes::new(),
            Left::Length(length) => self.collect_length(length, most).await?,
            Left::Chunked(_) | Left::UntilClose => self.collect_pieces(most).await?,
        };
        self.hint += body.len();
        Ok(body)
    }

    async fn collect_length(&mut self, length: u64, most: usize) -> Result<Bytes, WireError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > most {
            return Err(WireError::TooLarge(most));
        }
        while self.buf.len() < length {
            let missing = length - self.buf.len();
            self.buf.reserve(missing.min(TRUSTED));
            if self.io.read_buf(&mut self.buf).await? == 0 {
                return Err(WireError::Closed);
            }
        }
        self.left = Left::Nothing;
        Ok(self.buf.split_to(length).freeze())
    }

    async fn collect_pieces(&mut self, most: usize) -> Result<Bytes, WireError> {
        let Some(first) = self.frame().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.frame().await? else {
            return if first.len() > most {
                Err(WireError::TooLarge(most))
            } else {
                Ok(first)
            };
        };
        let mut all = BytesMut::with_capacity(2 * (first.len() + second.len()));
        all.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(piece) = next {
            if all.len() + piece.len() > most {
                return Err(WireError::TooLarge(most));
            }
            all.extend_from_slice(&piece);
            next = self.frame().await?;
        }
        Ok(all.freeze())
    }
}

/// A request that could not be written: not a byte of it, or some.
fn unwritten(written: usize, error: Option<Error>) -> WireError {
    match (written, error) {
        (0, _) => WireError::Unsent,
        (_, Some(error)) => error.into(),
        (_, None) => Error::from(ErrorKind::WriteZero).into(),
    }
}

/// Decimal digits, without the machinery of `write!`.
fn push_number(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // A digit fits.
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests;
