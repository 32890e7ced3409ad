//! The chunked transfer coding (RFC 9112, section 7.1), read strictly: what another reader might
//! take otherwise is refused.

use bytes::{Bytes, BytesMut};

use super::WireError;

/// Longest line of a chunk's size with its extensions, and longest trailer line.
const LINE: usize = 4 << 10;
/// Trailer lines that are passed over.
const TRAILERS: usize = 100;

/// A chunked body being read.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    at: At,
    trailers: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the line with a chunk's size.
    #[default]
    Size,
    /// Inside a chunk, with so many bytes to come.
    Data(u64),
    /// Before the line end behind a chunk.
    DataEnd,
    /// Behind the last chunk.
    Trailer,
    Done,
}

impl Chunked {
    pub(super) fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// The next piece of the body; `None`: more has to be read first, or it is done.
    pub(super) fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
        loop {
            match self.at {
                At::Data(_) if buf.is_empty() => return Ok(None),
                At::Data(left) => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    let piece = buf.split_to(buf.len().min(most));
                    let left = left - piece.len() as u64;
                    self.at = if left == 0 {
                        At::DataEnd
                    } else {
                        At::Data(left)
                    };
                    return Ok(Some(piece.freeze()));
                }
                At::DataEnd if buf.len() < 2 => return Ok(None),
                At::DataEnd => {
                    if &buf.split_to(2)[..] != b"\r\n" {
                        return Err(WireError::Malformed("a chunk is longer than it says"));
                    }
                    self.at = At::Size;
                }
                At::Size => match line(buf)? {
                    None => return Ok(None),
                    Some(text) => {
                        self.at = match size(&text)? {
                            0 => At::Trailer,
                            size => At::Data(size),
                        };
                    }
                },
                At::Trailer => match line(buf)? {
                    None => return Ok(None),
                    Some(text) if text.is_empty() => self.at = At::Done,
                    Some(_) if self.trailers == TRAILERS => {
                        return Err(WireError::Malformed("too many trailers"));
                    }
                    Some(_) => self.trailers += 1,
                },
                At::Done => return Ok(None),
            }
        }
    }
}

/// A line without its end; `None`: its end is not there yet.
fn line(buf: &mut BytesMut) -> Result<Option<BytesMut>, WireError> {
    let Some(end) = memchr::memchr(b'\n', buf) else {
        return if buf.len() > LINE {
            Err(WireError::Malformed("a line of its chunks is too long"))
        } else {
            Ok(None)
        };
    };
    if end > LINE || end == 0 || buf[end - 1] != b'\r' {
        return Err(WireError::Malformed(
            "a line of its chunks is too long or ends wrong",
        ));
    }
    let mut text = buf.split_to(end + 1);
    text.truncate(end - 1);
    Ok(Some(text))
}

/// Hexadecimal digits; what follows behind a semicolon is an extension and means nothing here.
fn size(line: &[u8]) -> Result<u64, WireError> {
    let wrong = || WireError::Malformed("a chunk has no size");
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let behind = line[digits..].trim_ascii_start();
    if digits == 0 || digits > 15 || !(behind.is_empty() || behind[0] == b';') {
        return Err(wrong());
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| wrong())?;
    u64::from_str_radix(text, 16).map_err(|_| wrong())
}
