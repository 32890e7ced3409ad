//! Requests of the proxy's own.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;

use super::{
    super::{DuplexError, Incoming, Request},
    Link,
    queues::Outgoing,
};
use crate::upstream::message::logs::{Logs, Severity};

impl Request {
    /// One of nobody's. `params` is a JSON text.
    pub(in crate::upstream::duplex) fn own(method: &str, params: &str) -> Self {
        const START: &str = r#"{"jsonrpc":"2.0","id":"#;
        let body = format!(r#"{START}0,"method":"{method}","params":{params}}}"#);
        Self {
            body: body.into(),
            id: START.len()..START.len() + 1,
            progress_token: None,
            client: None,
            may_ask: false,
            listens: false,
            logs: Logs::None,
        }
    }
}

impl Link {
    /// Sends a request and gives its response. `params` is a JSON text.
    pub(in crate::upstream::duplex) async fn ask(
        self: &Arc<Self>,
        method: &str,
        params: &str,
    ) -> Result<Bytes, DuplexError> {
        let mut replies = self.request(Request::own(method, params), None).await?;
        match replies.next().await.transpose()? {
            Some(Incoming::Response(response)) => Ok(response),
            _ => Err(DuplexError::Closed),
        }
    }

    /// Has a server of the legacy era say as much as one more client wants to hear of. Nobody
    /// waits for that: it is told before it is sent the client's call.
    pub(super) async fn logs_for(&self, level: Severity) {
        if self.hello.get().is_none_or(|hello| !hello.logs) || !self.level.includes(level) {
            return;
        }
        let (id, level) = (self.next_id.fetch_add(1, Ordering::Relaxed), level.name());
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"logging/setLevel","params":{{"level":"{level}"}}}}"#
        );
        let message = message.into();
        // Failing means that the connection is being lost: its calls will say why.
        let _ = self.requests.send(Outgoing { id: None, message }).await;
    }

    /// Why nothing can be had over this connection any more, if that is so.
    pub(in crate::upstream::duplex) fn lost(&self) -> Option<DuplexError> {
        self.calls.lock().closed.clone()
    }
}
