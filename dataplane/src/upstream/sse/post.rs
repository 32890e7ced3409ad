//! Messages to the server: POSTs, one after another, on a connection that is kept.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use tokio::time::timeout;

use super::{Sender, connection};
use crate::upstream::duplex::Place;

/// Longest time until a message is accepted.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most of an answer that is read so that its connection can be used again; it says nothing.
const ANSWER: usize = 64 << 10;

/// Where messages go.
pub(super) struct Poster {
    place: Place,
    headers: HeaderMap,
    endpoint: Uri,
    kept: Option<Sender>,
}

impl Poster {
    /// Posts to `endpoint`, a path with query, with these headers.
    pub(super) fn new(place: Place, mut headers: HeaderMap, endpoint: Uri) -> Self {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Self {
            place,
            headers,
            endpoint,
            kept: None,
        }
    }

    /// Posts a message.
    ///
    /// # Errors
    /// It was refused, or may not have arrived.
    pub(super) async fn post(&mut self, message: Bytes) -> Result<(), String> {
        let posted = timeout(PATIENCE, self.exchange(message)).await;
        posted.unwrap_or_else(|_| Err(format!("a POST is not answered within {PATIENCE:?}")))
    }

    async fn exchange(&mut self, message: Bytes) -> Result<(), String> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        *request.headers_mut() = self.headers.clone();
        let (answer, sender) = self.send(request).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!("the server answers a POST with {status}"));
        }
        let rest = Limited::new(answer.into_body(), ANSWER).collect().await;
        self.kept = rest.is_ok().then_some(sender);
        Ok(())
    }

    async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), String> {
        if let Some(mut sender) = self.kept.take()
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, sender)),
                // Closed before anything was sent: another connection will do.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().to_string()),
                },
            }
        }
        let mut sender = connection(&self.place).await?;
        let answer = sender.send_request(request).await;
        Ok((answer.map_err(|error| error.to_string())?, sender))
    }
}
