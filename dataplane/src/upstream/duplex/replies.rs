//! What comes back for one call: its progress, then its response.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::oneshot;

use super::{DuplexError, Handle, link::Link, waiting::Waited};

/// What comes back for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A progress notification, with the caller's token; or a question to its client.
    Notification(Bytes),
    /// The response, a result or an error, with the caller's id. The last item.
    Response(Bytes),
}

/// What comes back for one call. Dropped before the response, it cancels the call.
pub struct Replies {
    key: u64,
    link: Arc<Link>,
    notifications: Option<Waited>,
    response: Option<oneshot::Receiver<Result<Bytes, DuplexError>>>,
    keep: Option<Arc<Handle>>,
}

impl Replies {
    /// The receiving end of the call `key`. It is cancelled at the server when dropped, and
    /// keeps its backend, if `keep` says that it has a caller.
    pub(super) fn new(
        key: u64,
        link: Arc<Link>,
        notifications: Option<Waited>,
        response: oneshot::Receiver<Result<Bytes, DuplexError>>,
        keep: Option<Arc<Handle>>,
    ) -> Self {
        Self {
            key,
            link,
            notifications,
            response: Some(response),
            keep,
        }
    }

    /// The next item; `None` after the response or the error.
    pub async fn next(&mut self) -> Option<Result<Incoming, DuplexError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Replies {
    type Item = Result<Incoming, DuplexError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // The sender goes with the response, so all progress comes before it.
        if let Some(notifications) = &mut self.notifications {
            match ready!(notifications.poll_next(cx)) {
                Some(message) => return Poll::Ready(Some(Ok(Incoming::Notification(message)))),
                None => self.notifications = None,
            }
        }
        let Some(response) = &mut self.response else {
            return Poll::Ready(None);
        };
        let outcome = ready!(Pin::new(response).poll(cx)).unwrap_or(Err(DuplexError::Closed));
        self.response = None;
        Poll::Ready(Some(outcome.map(Incoming::Response)))
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        if self.response.is_some() {
            self.link.forget(self.key, self.keep.is_some());
        }
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies")
            .field("backend", &self.link.name())
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
