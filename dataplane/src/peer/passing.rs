//! [`Passing`]: the body of a relayed answer, frame by frame, no faster than its client
//! reads it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::UnderWay;
use crate::{body::Broken, codec::sse};

/// The body of a relayed answer.
pub(crate) struct Passing {
    /// `None`: it is over.
    body: Option<Incoming>,
    /// The message with which an event stream ends whose home has gone.
    last_words: Option<Bytes>,
    tail: Tail,
    _under_way: UnderWay,
}

impl Passing {
    pub(super) fn new(body: Incoming, under_way: UnderWay, last_words: Option<Bytes>) -> Self {
        Self {
            body: Some(body),
            last_words,
            tail: Tail::default(),
            _under_way: under_way,
        }
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.tail.add(bytes);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.body = None;
                Poll::Ready(None)
            }
            Some(Err(_)) => {
                self.body = None;
                // In the middle of an event nothing can be said any more: an event that is
                // cut off is dropped by its reader.
                let said = self
                    .last_words
                    .take()
                    .filter(|_| self.tail.is_between_events());
                Poll::Ready(Some(match said {
                    None => Err(Broken),
                    Some(message) => {
                        let mut out = BytesMut::new();
                        sse::encode(&message, &mut out);
                        Ok(Frame::data(out.freeze()))
                    }
                }))
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    /// Of an event stream nothing is known: it may end with more than its home had said.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) if self.last_words.is_none() => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// The end of what has passed.
#[derive(Default)]
struct Tail {
    any: bool,
    last: [u8; 2],
}

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        match bytes {
            [] => return,
            [only] => self.last = [self.last[1], *only],
            [.., before, last] => self.last = [*before, *last],
        }
        self.any = true;
    }

    /// Data planes end events with two line feeds.
    fn is_between_events(&self) -> bool {
        !self.any || self.last == *b"\n\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_over_with_its_empty_line_however_it_is_cut() {
        let mut tail = Tail::default();
        assert!(tail.is_between_events());
        for (part, over) in [
            ("data: 1\n\n", true),
            ("data: ", false),
            ("2\n", false),
            ("", false),
            ("\n", true),
            ("d", false),
            ("ata: 3\n", false),
            ("\n", true),
        ] {
            tail.add(part.as_bytes());
            assert_eq!(tail.is_between_events(), over, "{part:?}");
        }
    }
}
