//! What a backend says of its lists and resources: `subscriptions/listen` at one of the modern
//! era (2026-07-28, Subscriptions), at one of the legacy era the stream that a GET opens and
//! `resources/subscribe`.

use std::sync::Arc;

use bytes::Bytes;

use super::{Http, MAX_ANSWER, headers, session};
use crate::{
    call::{Era, ProtocolVersion, WorkerId},
    codec::sse::Parser,
    envelope::{self, Kind},
    error::CallError,
    upstream::{
        listening::{Wanted, acknowledgement},
        pool::Received,
        slot::{Live, Slot},
    },
};

/// Messages of a stream of notifications.
pub(crate) struct Listening {
    parser: Parser,
    body: Received,
    /// What is said first.
    first: Option<Bytes>,
    /// The upstream session that it is in, at a backend of the legacy era.
    own: Option<Own>,
}

/// An upstream session of one stream. Dropped, it is ended.
struct Own {
    http: Http,
    worker: WorkerId,
    slot: Arc<Slot>,
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(live) = self.slot.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            super::end_in_background(self.worker, live);
        }
    }
}

impl Listening {
    fn new(body: Received) -> Self {
        Self {
            parser: Parser::new(MAX_ANSWER),
            body,
            first: None,
            own: None,
        }
    }

    /// The next message; `None` at the end, whatever its reason.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            for event in self.parser.by_ref() {
                let event = event.ok()?;
                let other = event.event.as_deref().is_some_and(|e| e != b"message");
                if other || event.data.is_empty() {
                    continue;
                }
                if self.own.as_ref().is_none_or(|own| own.passes(&event.data)) {
                    return Some(event.data);
                }
            }
            let piece = self.body.frame().await.ok()??;
            self.parser.push(piece);
        }
    }
}

impl Own {
    /// Whether a message is a notification. Nobody is there to be asked anything.
    fn passes(&self, data: &Bytes) -> bool {
        let Ok(message) = envelope::scan(data) else {
            return false;
        };
        if message.kind == Kind::Request
            && let Some(live) = self.slot.live()
        {
            self.http.asks(self.worker, &live, None, data, &message);
        }
        message.kind == Kind::Notification
    }
}

impl Http {
    /// Opens a stream of notifications: at a backend of the legacy era of all that it says, with
    /// subscriptions to the resources. `None`: the backend offers no such stream.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(crate) async fn subscribe(
        &self,
        worker: WorkerId,
        wanted: Wanted<'_>,
    ) -> Result<Option<Listening>, CallError> {
        let Wanted {
            meta, filter, uris, ..
        } = wanted;
        let era = match self.known(ProtocolVersion::V2026_07_28)? {
            Some(era) => era,
            None => self.probe(worker).await?,
        };
        if era == Era::Legacy {
            return self.subscribe_legacy(worker, uris).await;
        }
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"listen-{}","method":"subscriptions/listen","params":{{"_meta":{{{meta}}},"notifications":{filter}}}}}"#,
            self.next_id()
        );
        let headers = |out: &mut Vec<u8>| headers::of_method(out, "subscriptions/listen");
        let sent = self.post(worker, headers, body.into()).await?;
        let status = sent.head.status;
        if status.is_success() && sent.head.is_stream {
            return Ok(Some(Listening::new(sent.body)));
        }
        self.collect_any(sent).await?;
        if status.is_server_error() {
            let reason = format!("it answered {status}");
            return Err(CallError::unavailable(&self.0.name, reason, ""));
        }
        Ok(None)
    }

    /// The same in an upstream session of its own, which ends with the stream.
    async fn subscribe_legacy(
        &self,
        worker: WorkerId,
        uris: &[String],
    ) -> Result<Option<Listening>, CallError> {
        let own = Own {
            http: self.clone(),
            worker,
            slot: Arc::default(),
        };
        let live = match self.open(worker, &own.slot, None).await {
            Ok(live) => live,
            Err(session::Failed::NotSpoken) => return Ok(None),
            Err(session::Failed::Call(error)) => return Err(error),
        };
        let Ok(sent) = self.open_stream(worker, &live, None).await? else {
            return Ok(None);
        };
        let mut honoured = Vec::new();
        for uri in uris {
            if self.subscribe_to(worker, &live, uri).await? {
                honoured.push(uri.as_str());
            }
        }
        Ok(Some(Listening {
            first: Some(acknowledgement(&honoured)),
            own: Some(own),
            ..Listening::new(sent.body)
        }))
    }

    /// Whether the backend takes a subscription.
    async fn subscribe_to(
        &self,
        worker: WorkerId,
        live: &Live,
        uri: &str,
    ) -> Result<bool, CallError> {
        let body = serde_json::json!({
            "jsonrpc": "2.0",
            "id": self.next_id(),
            "method": "resources/subscribe",
            "params": {"uri": uri},
        });
        let lines = |out: &mut Vec<u8>| headers::legacy(out, live);
        let sent = self.post(worker, lines, body.to_string().into()).await?;
        let is_stream = sent.head.is_stream;
        let answer = self.collect_any(sent).await?;
        if !is_stream {
            return Ok(envelope::scan(&answer).is_ok_and(|m| m.kind == Kind::Response));
        }
        let mut parser = Parser::new(MAX_ANSWER);
        parser.push(answer);
        let is_response =
            |data: Bytes| envelope::scan(&data).is_ok_and(|m| m.kind == Kind::Response);
        Ok(parser
            .filter_map(Result::ok)
            .any(|event| is_response(event.data)))
    }
}
