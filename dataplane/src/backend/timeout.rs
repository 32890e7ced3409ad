//! [`Timeout`]: bounds the silence of a call and its whole length.
//!
//! Each message of the backend ends a silence, so that a long call which
//! reports progress lives on; `max_duration` bounds it all the same. While the client
//! owes the backend an answer, nobody is silent but the client.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream};
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service};

use crate::{
    call::{Call, Messages, Method, Reply},
    error::CallError,
    session::{Session, asked::Waits, inflight::CallId},
};

/// Makes [`Timeout`]s.
#[derive(Clone)]
pub struct TimeoutLayer(Arc<Limits>);

struct Limits {
    backend: String,
    silence: Duration,
    total: Duration,
}

/// See the module.
#[derive(Clone)]
pub struct Timeout<S> {
    inner: S,
    limits: Arc<Limits>,
}

impl TimeoutLayer {
    /// Bounds for the backend of this name.
    #[must_use]
    pub fn new(backend: String, silence: Duration, total: Duration) -> Self {
        Self(Arc::new(Limits {
            backend,
            silence,
            total,
        }))
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout {
            inner,
            limits: self.0.clone(),
        }
    }
}

impl Limits {
    /// When the wait for the next message ends, given the end of the whole call.
    fn next(&self, last: Instant) -> Instant {
        last.min(Instant::now() + self.silence)
    }

    /// What to say when it has ended.
    fn error(&self, until: Instant, last: Instant) -> CallError {
        let backend = self.backend.clone();
        if until < last {
            CallError::Timeout {
                backend,
                after: self.silence,
            }
        } else {
            CallError::Deadline {
                backend,
                after: self.total,
            }
        }
    }
}

impl<S> Service<Call> for Timeout<S>
where
    S: Service<Call, Response = Reply, Error = CallError>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Reply, CallError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        // A subscription is silent by nature and ends when the client leaves.
        let unbounded = call.method == Method::Listen;
        let limits = self.limits.clone();
        let asked = call
            .session
            .clone()
            .map(|session| (session, CallId::of(call.id())));
        let answer = self.inner.call(call);
        Box::pin(async move {
            let last = Instant::now() + limits.total;
            let mut until = limits.next(last);
            let bounds = Bounds {
                limits,
                last,
                asked,
            };
            let mut answer = std::pin::pin!(answer);
            let answer = loop {
                match timeout_at(until, &mut answer).await {
                    Ok(answer) => break answer,
                    // It may have asked elsewhere than on the stream of the call.
                    Err(_) => match bounds.more() {
                        Some(more) => until = more,
                        None => return Err(bounds.limits.error(until, last)),
                    },
                }
            };
            match answer {
                Ok(Reply::Stream(messages)) if !unbounded => {
                    Ok(Reply::Stream(bounded(messages, bounds)))
                }
                reply => reply,
            }
        })
    }
}

/// Of the messages of one call.
struct Bounds {
    limits: Arc<Limits>,
    last: Instant,
    /// Who may owe an answer, and for which call.
    asked: Option<(Arc<Session>, CallId)>,
}

impl Bounds {
    /// When a wait that has ended now may go on to, after all.
    fn more(&self) -> Option<Instant> {
        let (session, call) = self.asked.as_ref()?;
        let until = match session.waits(*call) {
            Waits::Client => self.limits.next(self.last),
            Waits::Backend(since) => self.last.min(since? + self.limits.silence),
        };
        (until > Instant::now()).then_some(until)
    }
}

fn bounded(messages: Messages, bounds: Bounds) -> Messages {
    let state = (messages, bounds);
    Box::pin(stream::unfold(Some(state), |state| async {
        let (mut messages, bounds) = state?;
        let mut until = bounds.limits.next(bounds.last);
        loop {
            if let Ok(message) = timeout_at(until, messages.next()).await {
                return Some((message?, Some((messages, bounds))));
            }
            match bounds.more() {
                Some(more) => until = more,
                None => return Some((Err(bounds.limits.error(until, bounds.last)), None)),
            }
        }
    }))
}

#[cfg(test)]
mod tests;
