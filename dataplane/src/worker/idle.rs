//! [`Idle`]: whether the client of an HTTP/1 connection has anything to be kept for.
//!
//! A timer for each request costs more than finding its backend does, so a connection has
//! one that ticks now and then, and requests leave a mark that it sees.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{MissedTickBehavior, interval},
};

use crate::body::{Body, Broken};

/// Ticks without a request after which a connection is idle: all but the first are whole ones.
const TICKS: u32 = 6;

/// What a connection tells its timer.
#[derive(Default)]
pub(super) struct Idle {
    /// A request has ended, or the client has taken some of an answer.
    moved: AtomicBool,
    /// The client does not take what is there for it.
    stalled: AtomicBool,
}

/// A connection whose writes tell its timer.
pub(super) struct Watched<I> {
    io: I,
    idle: Arc<Idle>,
}

/// A request under way, until its answer is sent or given up.
pub(super) struct Busy(Arc<Idle>);

/// A body whose request is under way until it ends.
pub(super) struct Answer {
    body: Body,
    _busy: Busy,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.moved.store(true, Ordering::Relaxed);
    }
}

impl Busy {
    pub(super) fn begin(idle: &Arc<Idle>) -> Self {
        Self(idle.clone())
    }

    /// The request is under way while this body is.
    pub(super) fn until_sent(self, response: Response<Body>) -> Response<Answer> {
        response.map(|body| Answer { body, _busy: self })
    }
}

impl Idle {
    /// Resolves once no request has been under way for `limit`, or up to a fifth longer; or, for
    /// as long, one whose client takes nothing of what is there for it.
    pub(super) async fn reached(self: Arc<Self>, limit: Duration) {
        let mut ticks = interval(limit / (TICKS - 1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet = 0;
        while quiet < TICKS {
            ticks.tick().await;
            let is_busy = Arc::strong_count(&self) > HELD;
            let is_served = is_busy && !self.stalled.load(Ordering::Relaxed);
            if self.moved.swap(false, Ordering::Relaxed) || is_served {
                quiet = 0;
            }
            quiet += 1;
        }
    }
}

/// By the connection, by its service and by [`Idle::reached`]: what is beyond is [`Busy`].
const HELD: usize = 3;

impl<I> Watched<I> {
    pub(super) fn new(io: I, idle: &Arc<Idle>) -> Self {
        Self {
            io,
            idle: idle.clone(),
        }
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        self.idle
            .stalled
            .store(written.is_pending(), Ordering::Relaxed);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.idle.moved.store(true, Ordering::Relaxed);
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        task::JoinHandle,
        time::{Instant, sleep},
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(75);

    /// The ends of a connection whose client takes `room` bytes before it reads.
    fn connection(room: usize) -> (Watched<DuplexStream>, DuplexStream, Arc<Idle>) {
        let (own, client) = duplex(room);
        let idle = Arc::new(Idle::default());
        (Watched::new(own, &idle), client, idle)
    }

    /// As the connection's service does, it keeps one end of `idle`.
    fn reached(idle: &Arc<Idle>) -> JoinHandle<()> {
        let (service, reached) = (idle.clone(), idle.clone().reached(LIMIT));
        tokio::spawn(async move {
            reached.await;
            drop(service);
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_idle_after_the_limit() {
        let (_io, _client, idle) = connection(1);
        let start = Instant::now();
        let reached = reached(&idle);
        drop(idle);
        reached.await.expect("no panic");
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_is_no_idleness_and_time_runs_from_its_end() {
        let (_io, _client, idle) = connection(1);
        let reached = reached(&idle);
        let busy = Busy::begin(&idle);
        drop(idle);
        let response = busy.until_sent(Response::new(Body::empty()));
        sleep(LIMIT * 4).await;
        assert!(!reached.is_finished(), "it is being answered");
        drop(response);
        let end = Instant::now();
        reached.await.expect("no panic");
        let after = end.elapsed();
        assert!(after >= LIMIT && after <= LIMIT * 6 / 5, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn short_requests_between_two_ticks_are_seen() {
        let (io, _client, idle) = connection(1);
        let reached = reached(&idle);
        drop(idle);
        for _ in 0..30 {
            drop(Busy::begin(&io.idle));
            sleep(LIMIT / 2).await;
        }
        assert!(!reached.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_be_slow_but_not_stand_still() {
        let (mut io, mut client, idle) = connection(100);
        let (reached, busy) = (reached(&idle), Busy::begin(&idle));
        drop(idle);
        let writes = tokio::spawn(async move { io.write_all(&[7; 1000]).await });
        let mut taken = [0; 100];
        for _ in 0..8 {
            sleep(LIMIT / 2).await;
            client.read_exact(&mut taken).await.expect("it is written");
        }
        assert!(!reached.is_finished(), "the client has read");
        let end = Instant::now();
        reached.await.expect("no panic");
        assert!(end.elapsed() >= LIMIT, "{:?}", end.elapsed());
        assert!(!writes.is_finished());
        drop(busy);
    }
}
