//! How a transport frames what is written to it: in ways that are rare, and right.

use bytes::Bytes;

use super::{Piece, Transport};

/// Frames what is written to one connection, or to one answer.
pub(super) struct Framer {
    transport: Transport,
    /// Within a message whose end does not come.
    inside: bool,
}

impl Framer {
    pub(super) const fn new(transport: Transport) -> Self {
        Self {
            transport,
            inside: false,
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

/// Cuts anywhere: inside of UTF-8 characters, between CR and LF.
pub(super) fn chunks(mut bytes: Bytes) -> Vec<Bytes> {
    let length = if bytes.len() < 4096 { 7 } else { 65_521 };
    let mut all = Vec::new();
    while bytes.len() > length {
        all.push(bytes.split_to(length));
    }
    all.push(bytes);
    all
}
