//! Backends over the HTTP+SSE transport of 2024-11-05: messages come as events of a stream that
//! stays open, and go as POSTs to the address that its first event names. Together they are the
//! connection of a [`Duplex`](super::duplex::Duplex).
//!
//! POSTs go one after another, so that messages arrive in the order in which they were sent. When
//! one is refused, or the stream ends, the session is over: both are opened anew.

mod endpoint;
mod post;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

use super::duplex::{
    Connection, Duplex, DuplexError, Hidden, Link, MAX_MESSAGE, Network, OnNotification, Place,
    Queues, Throttle, Transport, Why,
};
use crate::codec::sse::{Event, Parser};
use post::Poster;

/// How a backend is reached.
pub struct SseConfig {
    /// The backend, for messages.
    pub name: String,
    /// Address of the stream, `http` or `https`.
    pub url: Uri,
    /// Where that leads; TLS for `https`.
    pub place: Place,
    /// Sent with every request.
    pub headers: HeaderMap,
    /// Not shown where the server writes it.
    pub hidden: Vec<String>,
}

type Sender = http1::SendRequest<Full<Bytes>>;

/// The backend at this address. Its connection will live on `runtime`; nothing is opened.
#[must_use]
pub fn backend(
    config: SseConfig,
    runtime: tokio::runtime::Handle,
    on_notification: OnNotification,
) -> Duplex {
    Duplex::new(config, runtime, on_notification)
}

impl Transport for SseConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "sse"
    }

    fn is_legacy(&self) -> bool {
        true
    }

    fn open(
        &self,
        on_notification: OnNotification,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, DuplexError>> {
        Box::pin(async move {
            let (stream, endpoint) = self.place.in_time(self.connect()).await?;
            let hidden = Hidden::new(&self.hidden);
            let (link, queues) = Link::new(&self.name, hidden, on_notification);
            let (leave, why) = (Arc::new(Notify::new()), Why::default());
            let poster = Poster::new(self.place.clone(), self.headers(), endpoint);
            let reader = read(link.clone(), stream, why.clone());
            let writer = write(link.clone(), queues, poster, leave.clone(), why.clone());
            let connected = Network::new(&link, &leave, &why, reader, writer);
            Ok(Box::new(connected) as Box<dyn Connection>)
        })
    }
}

/// The events of a stream.
struct Events {
    body: Incoming,
    parser: Parser,
}

impl SseConfig {
    /// Opens the stream, and waits for the address that it names.
    async fn connect(&self) -> Result<(Events, Uri), String> {
        let mut sender = connection(&self.place).await?;
        let mut request = Request::new(Full::default());
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| "its path is none".to_owned())?;
        *request.headers_mut() = self.headers();
        let accept = HeaderValue::from_static("text/event-stream");
        request.headers_mut().insert(header::ACCEPT, accept);
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        let kind = answer.headers().get(header::CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return Err(
                "it answers with no event stream; is it streamable HTTP (`http:`)?".to_owned(),
            );
        }
        let mut events = Events {
            body: answer.into_body(),
            parser: Parser::new(MAX_MESSAGE),
        };
        loop {
            let event = events.next().await?.ok_or("its stream ends at once")?;
            if event.event.as_deref() == Some(b"endpoint") {
                let named = String::from_utf8_lossy(&event.data);
                let endpoint = endpoint::resolve(&self.url, named.trim());
                return Ok((events, endpoint?));
            }
        }
    }

    /// Of every request.
    fn headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        let authority = self
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
        if let Ok(host) = HeaderValue::from_str(authority) {
            headers.insert(header::HOST, host);
        }
        headers
    }
}

/// A connection for requests, driven by a task of its own.
async fn connection(place: &Place) -> Result<Sender, String> {
    let io = place.connect().await.map_err(|error| error.to_string())?;
    let shaken = http1::handshake(TokioIo::new(io)).await;
    let (sender, connection) = shaken.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        // Who waits for an answer is told as well.
        let _ = connection.await;
    });
    Ok(sender)
}

impl Events {
    /// The next event; `None` at the end.
    async fn next(&mut self) -> Result<Option<Event>, String> {
        loop {
            if let Some(event) = self.parser.next() {
                return event.map(Some).map_err(|error| error.to_string());
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| error.to_string())?;
            if let Ok(data) = frame.into_data() {
                self.parser.push(data);
            }
        }
    }
}

/// Reads messages for `link` until the stream ends.
async fn read(link: Arc<Link>, mut events: Events, why: Why) {
    let mut throttle = Throttle::new();
    loop {
        match events.next().await {
            Ok(Some(event)) if event.event.as_deref().is_none_or(|name| name == b"message") => {
                link.take(event.data, &mut throttle);
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                why.is("the server ended its stream");
                break;
            }
            Err(error) => {
                why.is(error);
                break;
            }
        }
    }
    link.breaks();
}

/// Posts what the link has queued, until one is refused.
async fn write(
    link: Arc<Link>,
    mut queues: Queues,
    mut poster: Poster,
    leave: Arc<Notify>,
    why: Why,
) {
    loop {
        let message = tokio::select! {
            biased;
            // There is no farewell but to close the stream.
            () = leave.notified() => break,
            message = queues.next(&link) => message,
        };
        let Some(message) = message else { break };
        if let Err(error) = poster.post(message).await {
            why.is(error);
            break;
        }
    }
    link.breaks();
}
