//! The streams of `subscriptions/listen` at a scripted server.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::backend::{Seen, server::Server};

/// Who listens at a server. Every filter is honoured whole.
#[derive(Default)]
pub struct Listeners(Mutex<Vec<Listener>>);

struct Listener {
    filter: Value,
    id: Value,
    to: mpsc::UnboundedSender<String>,
}

impl Listeners {
    /// The server with these listeners.
    #[must_use]
    pub fn at(self: Arc<Self>, server: Server) -> Server {
        server.on("subscriptions/listen", move |seen| {
            let listeners = self.clone();
            async move { listeners.opened(&seen) }
        })
    }

    fn opened(&self, seen: &Seen) -> Response {
        let (to, from) = mpsc::unbounded_channel();
        let listener = Listener {
            filter: seen.message["params"]["notifications"].clone(),
            id: seen.message["id"].clone(),
            to,
        };
        listener.say(
            "notifications/subscriptions/acknowledged",
            json!({"notifications": listener.filter}),
        );
        self.0.lock().push(listener);
        let events = stream::unfold(from, |mut from| async {
            let event = from.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(event)), from))
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(events))
            .expect("a plain answer")
    }

    /// Says something on every stream, whatever it was opened for.
    pub fn say(&self, method: &str, params: Value) {
        for listener in self.0.lock().iter() {
            listener.say(method, params.clone());
        }
    }

    /// What those who listen now have asked for.
    #[must_use]
    pub fn filters(&self) -> Vec<Value> {
        let listeners = self.0.lock();
        let open = listeners.iter().filter(|listener| !listener.to.is_closed());
        open.map(|listener| listener.filter.clone()).collect()
    }

    /// How many listen now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.filters().len()
    }

    /// Ends all streams.
    pub fn hang_up(&self) {
        self.0.lock().clear();
    }
}

impl Listener {
    fn say(&self, method: &str, mut params: Value) {
        params["_meta"] = json!({"io.modelcontextprotocol/subscriptionId": self.id});
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        // One that has left hears nothing.
        let _ = self.to.send(format!("event: message\ndata: {message}\n\n"));
    }
}
