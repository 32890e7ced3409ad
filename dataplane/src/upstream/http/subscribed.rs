//! Subscriptions of sessions at legacy backends: made again where a backend has forgotten
//! the session in which they were made.

use std::sync::Arc;

use crate::{
    call::{Call, Method, Reply, WorkerId},
    envelope,
    error::CallError,
    session::Session,
    upstream::slot::{Live, Slot},
};

use super::Http;

impl Http {
    /// The answer to such a call; what it has changed is kept.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn subscription(&self, call: Call) -> Result<Reply, CallError> {
        let begins = call.method == Method::Subscribe;
        let uri: Option<Box<str>> = call.uri().map(|uri| (*uri).into());
        let session = call.session.clone();
        let reply = self.call(call).await;
        let (Some(session), Some(uri)) = (session, uri) else {
            return reply;
        };
        let slot = session.upstream(self.0.serial);
        Ok(reply?.when_done(move || {
            slot.subscribed(&uri, begins);
        }))
    }

    /// Ends a subscription in this session, for a client that asks for that at another backend.
    pub(crate) async fn unsubscribe(&self, worker: WorkerId, live: &Live, uri: &str) {
        let params = params(uri);
        self.tell(worker, live, "resources/unsubscribe", &params)
            .await;
    }

    /// Makes in this session what was made in the one before.
    pub(super) fn subscribe_again(
        &self,
        worker: WorkerId,
        client: &Session,
        slot: &Slot,
        live: &Arc<Live>,
    ) {
        if !slot.has_subscriptions() {
            return;
        }
        let uris = slot.subscriptions(client.subscriptions());
        let (http, live) = (self.clone(), live.clone());
        tokio::spawn(async move {
            for uri in uris {
                http.tell(worker, &live, "resources/subscribe", &params(&uri))
                    .await;
            }
        });
    }
}

fn params(uri: &str) -> String {
    let uri = envelope::quote(uri);
    format!(r#"{{"uri":{}}}"#, String::from_utf8_lossy(&uri))
}
