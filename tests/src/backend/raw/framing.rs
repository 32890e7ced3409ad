//! How a transport frames what is written to it: in ways that are rare, and right.

use bytes::Bytes;

use super::{Piece, Transport};

/// Frames what is written to one connection, or to one answer.
pub(super) struct Framer {
    transport: Transport,
    /// Within a message whose end does not come.
    inside: bool,
    /// Messages that are still to be cut: a flood need not be.
    to_cut: usize,
}

impl Framer {
    pub(super) const fn new(transport: Transport) -> Self {
        Self {
            transport,
            inside: false,
            to_cut: 1000,
        }
    }

    /// What is sent for a piece; `None`: the connection ends.
    pub(super) fn frame(&mut self, piece: &Piece) -> Option<Bytes> {
        let is_event = matches!(self.transport, Transport::Events | Transport::Sse);
        match piece {
            Piece::Message(message) if is_event => Some(event(message)),
            Piece::Message(message) if self.transport == Transport::Stdio => {
                Some([message, &b"\n"[..]].concat().into())
            }
            Piece::Message(message) => Some(message.clone()),
            Piece::Part(part) if is_event && !std::mem::replace(&mut self.inside, true) => {
                Some([b"data: ", &part[..]].concat().into())
            }
            Piece::Part(part) => Some(part.clone()),
            Piece::End => None,
        }
    }

    /// The same, cut anywhere: inside of UTF-8 characters, between CR and LF.
    pub(super) fn chunks(&mut self, piece: &Piece) -> Option<Vec<Bytes>> {
        let mut framed = self.frame(piece)?;
        let left = self.to_cut.checked_sub(1);
        self.to_cut = left.unwrap_or(0);
        let is_short = left.is_some() && framed.len() < 4096;
        let length = if is_short { 7 } else { 65_521 };
        let mut all = Vec::new();
        while framed.len() > length {
            all.push(framed.split_to(length));
        }
        all.push(framed);
        Some(all)
    }
}

/// An event with comments, fields that nobody knows, and lines that end as on Windows. Each line of
/// the message is one of data.
fn event(message: &[u8]) -> Bytes {
    let mut out = b": \xc3\xa9 comment\r\nacme: 1\r\n".to_vec();
    for line in message.split(|byte| *byte == b'\n') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n:\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.into()
}
