//! What a backend says of its lists and resources outside of calls, however it is reached.

use std::time::Duration;

use bytes::Bytes;

use super::{duplex, http};
use crate::{sealed, session::Owner};

/// What a stream is opened for.
pub(crate) struct Wanted<'a> {
    /// Members of `_meta`.
    pub(crate) meta: &'a str,
    /// The notifications, a JSON text.
    pub(crate) filter: &'a str,
    /// The resources that are in it.
    pub(crate) uris: &'a [String],
    /// Who wants to hear of them.
    pub(crate) owner: Owner,
}

/// Messages of a stream of notifications; the first acknowledges it.
pub(crate) enum Listening {
    /// Over streamable HTTP.
    Http(Box<http::listening::Listening>),
    /// Over the connection of all calls.
    Duplex(duplex::Listening),
}

impl Listening {
    /// The next message; `None` at the end, whatever its reason.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Http(stream) => stream.next().await,
            Self::Duplex(stream) => stream.next().await,
        }
    }

    /// The backend's own error for a resource that it does not let be subscribed to, a JSON
    /// text, where it gave one.
    pub(crate) fn refusal(&self) -> Option<&Bytes> {
        match self {
            Self::Http(_) => None,
            Self::Duplex(stream) => stream.refusal(),
        }
    }
}

/// What a stream at a backend of the legacy era begins with: the URIs that it honours.
pub(super) fn acknowledgement(honoured: &[&str]) -> Bytes {
    let message = serde_json::json!({
        "jsonrpc": "2.0",
        "method": "notifications/subscriptions/acknowledged",
        "params": {"notifications": {"resourceSubscriptions": honoured}},
    });
    message.to_string().into()
}

/// Waits between attempts to open a stream: longer each time, and never all at once.
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(250))
    }
}

impl Backoff {
    /// The longest wait.
    const MOST: Duration = Duration::from_secs(30);
    /// What is longer than this was no failure.
    const GOOD: Duration = Duration::from_secs(10);

    /// A stream that was open for this long was a good one.
    pub(crate) fn was_open_for(&mut self, time: Duration) {
        if time > Self::GOOD {
            *self = Self::default();
        }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = self.0;
        self.0 = (whole * 2).min(Self::MOST);
        let [random] = sealed::random::<1>().unwrap_or([128]);
        whole / 2 + whole * u32::from(random) / 512
    }
}
