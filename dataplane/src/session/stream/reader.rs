//! [`Reader`]: the connection that a stream is sent on now, as frames of a body.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, Sleep, sleep};

use super::{End, Stream};
use crate::{call::ProtocolVersion, codec::sse, session::Session};

/// Silence after which a comment keeps the connection open.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a client is to wait before it comes back, in milliseconds.
const RETRY: u64 = 1000;

/// Reads a stream for one connection.
pub struct Reader {
    session: Arc<Session>,
    stream: Arc<Stream>,
    number: u64,
    /// The stream begins here: its first event has no data (SEP-1699).
    prime: bool,
    /// Whether events have ids.
    named: bool,
    last: Instant,
    silence: Pin<Box<Sleep>>,
}

/// What comes next.
enum Next {
    Prime(u64),
    Event(u64, Bytes),
    End,
    Nothing,
}

impl Stream {
    /// A connection that reads on: behind the event of this number, or where the reader
    /// before was, which loses it. `None`: the stream is over.
    #[must_use]
    pub fn read(self: &Arc<Self>, session: &Arc<Session>, after: Option<u64>) -> Option<Reader> {
        let number = self.attach(after)?;
        let named = !self.grace.is_zero();
        Some(Reader {
            session: session.clone(),
            stream: self.clone(),
            number,
            // Clients of older versions take it for a message that they cannot read.
            prime: named && after.is_none() && session.version >= ProtocolVersion::V2025_11_25,
            named,
            last: Instant::now(),
            silence: Box::pin(sleep(KEEPALIVE)),
        })
    }
}

impl Reader {
    fn next(&mut self, cx: &mut Context<'_>) -> Next {
        let mut state = self.stream.state.lock();
        if state.reader != self.number || state.end == End::Closed {
            return Next::End;
        }
        if std::mem::take(&mut self.prime) {
            return Next::Prime(state.next - 1);
        }
        if let Some((number, event)) = state.take(self.named) {
            return Next::Event(number, event);
        }
        match state.end {
            End::Done | End::Closed => return Next::End,
            End::LetGo => {
                state.end = End::Open;
                return Next::End;
            }
            End::Open => {}
        }
        // The reader before may still be asleep with its own waker: it is woken, and ends.
        let before = state.waker.replace(cx.waker().clone());
        drop(state);
        if let Some(before) = before
            && !before.will_wake(cx.waker())
        {
            before.wake();
        }
        Next::Nothing
    }

    fn id(&self, number: u64) -> Option<String> {
        self.named
            .then(|| self.session.event_id(self.stream.id, number))?
    }
}

impl futures_util::Stream for Reader {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = BytesMut::new();
        match self.next(cx) {
            Next::End => return Poll::Ready(None),
            Next::Prime(number) => {
                let id = self.id(number).unwrap_or_default();
                out.extend_from_slice(format!("id: {id}\nretry: {RETRY}\ndata:\n\n").as_bytes());
            }
            Next::Event(number, event) => {
                self.stream.moved.notify_waiters();
                sse::encode_with_id(self.id(number).as_deref(), &event, &mut out);
            }
            Next::Nothing => {
                if self.silence.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let since = self.last.elapsed();
                let next = Instant::now() + KEEPALIVE.saturating_sub(since);
                if since < KEEPALIVE {
                    self.silence.as_mut().reset(next);
                    if self.silence.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                self.silence.as_mut().reset(Instant::now() + KEEPALIVE);
                out.extend_from_slice(b":\n\n");
            }
        }
        self.last = Instant::now();
        Poll::Ready(Some(out.freeze()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stream.detach(self.number);
    }
}
