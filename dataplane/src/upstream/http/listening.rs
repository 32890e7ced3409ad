//! `subscriptions/listen` at a backend of the modern era (2026-07-28, Subscriptions).

use std::time::Duration;

use bytes::Bytes;

use super::{Http, MAX_ANSWER, headers};
use crate::{
    call::{Era, ProtocolVersion, WorkerId},
    codec::sse::Parser,
    error::CallError,
    sealed,
    upstream::pool::Received,
};

/// Messages of a stream of notifications.
pub(crate) struct Listening {
    parser: Parser,
    body: Received,
}

impl Listening {
    /// The next message; `None` at the end, whatever its reason.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            for event in self.parser.by_ref() {
                let event = event.ok()?;
                let other = event.event.as_deref().is_some_and(|e| e != b"message");
                if !other && !event.data.is_empty() {
                    return Some(event.data);
                }
            }
            let piece = self.body.frame().await.ok()??;
            self.parser.push(piece);
        }
    }
}

impl Http {
    /// Opens a stream of the notifications that `filter` asks for. `meta` are the
    /// members of `_meta`. `None`: the backend offers no such stream.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(crate) async fn subscribe(
        &self,
        worker: WorkerId,
        meta: &str,
        filter: &str,
    ) -> Result<Option<Listening>, CallError> {
        let era = match self.known(ProtocolVersion::V2026_07_28)? {
            Some(era) => era,
            None => self.probe(worker).await?,
        };
        if era == Era::Legacy {
            return Ok(None);
        }
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"listen-{}","method":"subscriptions/listen","params":{{"_meta":{{{meta}}},"notifications":{filter}}}}}"#,
            self.next_id()
        );
        let headers = |out: &mut Vec<u8>| headers::of_method(out, "subscriptions/listen");
        let sent = self.post(worker, headers, body.into()).await?;
        let status = sent.head.status;
        if status.is_success() && sent.head.is_stream {
            return Ok(Some(Listening {
                parser: Parser::new(MAX_ANSWER),
                body: sent.body,
            }));
        }
        self.collect_any(sent).await?;
        if status.is_server_error() {
            let reason = format!("it answered {status}");
            return Err(CallError::unavailable(&self.0.name, reason, ""));
        }
        Ok(None)
    }
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
