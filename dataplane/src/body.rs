//! [`Body`]: bodies of responses to clients.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Frame, SizeHint};

use crate::{codec::sse, peer::passing::Passing};

/// Messages to be sent as events, or texts to be sent as they are.
pub type Events = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// A body ends before its end: its client must not take it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct Broken;

/// Body of a response to a client.
pub struct Body(Kind);

enum Kind {
    Empty,
    Whole(Bytes),
    Parts(std::vec::IntoIter<Bytes>),
    Events(Events),
    Frames(Events),
    Passing(Box<Passing>),
}

impl Body {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// All of it.
    #[must_use]
    pub const fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    /// All of it, in parts that follow one another.
    #[must_use]
    pub fn parts(parts: Vec<Bytes>) -> Self {
        Self(Kind::Parts(parts.into_iter()))
    }

    /// An event stream of messages.
    #[must_use]
    pub fn events(messages: Events) -> Self {
        Self(Kind::Events(messages))
    }

    /// An event stream that is written already.
    #[must_use]
    pub fn frames(frames: Events) -> Self {
        Self(Kind::Frames(frames))
    }

    /// What another data plane answers.
    pub(crate) fn passing(passing: Passing) -> Self {
        Self(Kind::Passing(Box::new(passing)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Parts(parts) => {
                let part = parts.next();
                if parts.len() == 0 {
                    self.0 = Kind::Empty;
                }
                Poll::Ready(part.map(|part| Ok(Frame::data(part))))
            }
            Kind::Frames(frames) => {
                let frame = ready!(frames.as_mut().poll_next(cx));
                if frame.is_none() {
                    self.0 = Kind::Empty;
                }
                Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
            }
            Kind::Events(messages) => match ready!(messages.as_mut().poll_next(cx)) {
                None => {
                    self.0 = Kind::Empty;
                    Poll::Ready(None)
                }
                Some(message) => {
                    let mut out = BytesMut::with_capacity(message.len() + 32);
                    sse::encode(&message, &mut out);
                    Poll::Ready(Some(Ok(Frame::data(out.freeze()))))
                }
            },
            Kind::Passing(passing) => passing.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Passing(passing) => passing.is_over(),
            Kind::Whole(_) | Kind::Parts(_) | Kind::Events(_) | Kind::Frames(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Parts(parts) => {
                SizeHint::with_exact(parts.as_slice().iter().map(|p| p.len() as u64).sum())
            }
            Kind::Passing(passing) => passing.size_hint(),
            Kind::Events(_) | Kind::Frames(_) => SizeHint::default(),
        }
    }
}
