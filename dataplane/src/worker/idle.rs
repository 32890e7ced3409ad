//! [`Idle`]: whether the client of an HTTP/1 connection has anything to be kept for.
//!
//! A timer for each request costs more than finding its backend does, so a connection has
//! one that ticks now and then, and requests leave a mark that it sees.

use std::{
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
use tokio::time::{MissedTickBehavior, interval};

use crate::body::{Body, Broken};

/// Ticks without a request after which a connection is idle: all but the first are whole ones.
const TICKS: u32 = 6;

/// What a connection's requests tell its timer.
#[derive(Default)]
pub(super) struct Idle {
    answered: AtomicBool,
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
        self.0.answered.store(true, Ordering::Relaxed);
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
    /// Resolves once no request has been under way for `limit`, or up to a fifth longer.
    pub(super) async fn reached(self: Arc<Self>, limit: Duration) {
        let mut ticks = interval(limit / (TICKS - 1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet = 0;
        while quiet < TICKS {
            ticks.tick().await;
            let is_busy = Arc::strong_count(&self) > HELD;
            if self.answered.swap(false, Ordering::Relaxed) || is_busy {
                quiet = 0;
            }
            quiet += 1;
        }
    }
}

/// By the connection's service and by [`Idle::reached`]: what is beyond is [`Busy`].
const HELD: usize = 2;

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
    use tokio::time::{Instant, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(75);

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_idle_after_the_limit() {
        let idle = Arc::new(Idle::default());
        let start = Instant::now();
        idle.clone().reached(LIMIT).await;
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_is_no_idleness_and_time_runs_from_its_end() {
        let idle = Arc::new(Idle::default());
        let reached = tokio::spawn(idle.clone().reached(LIMIT));
        let busy = Busy::begin(&idle);
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
        let idle = Arc::new(Idle::default());
        let reached = tokio::spawn(idle.clone().reached(LIMIT));
        for _ in 0..30 {
            drop(Busy::begin(&idle));
            sleep(LIMIT / 2).await;
        }
        assert!(!reached.is_finished());
    }
}
