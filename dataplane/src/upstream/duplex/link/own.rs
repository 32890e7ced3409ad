//! Requests of the proxy's own.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    super::{DuplexError, Incoming, Request},
    Link,
};

impl Link {
    /// Sends a request and gives its response. `params` is a JSON text.
    pub(in crate::upstream::duplex) async fn ask(
        self: &Arc<Self>,
        method: &str,
        params: &str,
    ) -> Result<Bytes, DuplexError> {
        const START: &str = r#"{"jsonrpc":"2.0","id":"#;
        let body = format!(r#"{START}0,"method":"{method}","params":{params}}}"#);
        let request = Request {
            body: body.into(),
            id: START.len()..START.len() + 1,
            progress_token: None,
            client: None,
            may_ask: false,
            listens: false,
        };
        let mut replies = self.request(request, None).await?;
        match replies.next().await.transpose()? {
            Some(Incoming::Response(response)) => Ok(response),
            _ => Err(DuplexError::Closed),
        }
    }

    /// Why nothing can be had over this connection any more, if that is so.
    pub(in crate::upstream::duplex) fn lost(&self) -> Option<DuplexError> {
        self.calls.lock().closed.clone()
    }
}
