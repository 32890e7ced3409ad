//! Backends over a WebSocket (RFC 6455): one connection for all calls, as that of a
//! [`Duplex`](super::duplex::Duplex). A text message is one JSON-RPC message.
//!
//! The server is asked for a pong from time to time; one that is silent for longer is lost.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use futures_util::{
    SinkExt, StreamExt,
    future::BoxFuture,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderMap, HeaderValue, Uri, header::SEC_WEBSOCKET_PROTOCOL};
use tokio::{
    sync::Notify,
    time::{self, MissedTickBehavior, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Bytes, Error, Message, Utf8Bytes,
        client::IntoClientRequest,
        error::{ProtocolError, SubProtocolError},
        protocol::{CloseFrame, WebSocketConfig as Limits},
    },
};

use super::duplex::{
    Connection, Duplex, DuplexError, Hidden, Io, Link, MAX_MESSAGE, Network, OnNotification, Place,
    Queues, Throttle, Transport, Why,
};

/// How often a server is asked for a pong.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The subprotocol (RFC 6455, 1.9), as the SDKs have it.
const SUBPROTOCOL: HeaderValue = HeaderValue::from_static("mcp");
/// Read at a time.
const CHUNK: usize = 32 << 10;

/// How a backend is reached.
pub struct WebSocketConfig {
    /// The backend, for messages.
    pub name: String,
    /// Its address, `ws` or `wss`.
    pub url: Uri,
    /// Where that leads; TLS for `wss`.
    pub place: Place,
    /// Sent when the connection is opened.
    pub headers: HeaderMap,
    /// Not shown where the server writes it.
    pub hidden: Vec<String>,
    /// How often the server is asked for a pong; silent for twice as long, it is lost.
    pub keep_alive: Duration,
}

type Stream = WebSocketStream<Box<dyn Io>>;

/// The backend at this address. Its connection will live on `runtime`; nothing is opened.
#[must_use]
pub fn backend(
    config: WebSocketConfig,
    runtime: tokio::runtime::Handle,
    on_notification: OnNotification,
) -> Duplex {
    Duplex::new(config, runtime, on_notification)
}

impl Transport for WebSocketConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "websocket"
    }

    fn open(
        &self,
        on_notification: OnNotification,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, DuplexError>> {
        Box::pin(async move {
            let stream = self.place.in_time(self.connect()).await?;
            let connected = self.serve(stream, on_notification);
            Ok(Box::new(connected) as Box<dyn Connection>)
        })
    }
}

impl WebSocketConfig {
    async fn connect(&self) -> Result<Stream, String> {
        let no_subprotocol = Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(
            SubProtocolError::NoSubProtocol,
        ));
        match self.upgrade(Some(SUBPROTOCOL)).await {
            // It knows none, and may speak MCP all the same.
            Err(error) if error.to_string() == no_subprotocol.to_string() => {
                self.upgrade(None).await
            }
            other => other,
        }
        .map_err(|error| error.to_string())
    }

    async fn upgrade(&self, subprotocol: Option<HeaderValue>) -> Result<Stream, Error> {
        let mut request = (&self.url).into_client_request()?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        if let Some(subprotocol) = subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        let limits = Limits::default()
            .read_buffer_size(CHUNK)
            .write_buffer_size(CHUNK)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let io = self.place.connect().await?;
        let (stream, _) = client_async_with_config(request, io, Some(limits)).await?;
        Ok(stream)
    }

    /// Starts what serves a connection.
    fn serve(&self, stream: Stream, on_notification: OnNotification) -> Network {
        let (to, from) = stream.split();
        let hidden = Hidden::new(&self.hidden);
        let (link, queues) = Link::new(&self.name, hidden, on_notification);
        let (leave, why) = (Arc::new(Notify::new()), Why::default());
        let reader = read(link.clone(), from, self.keep_alive * 2, why.clone());
        let writer = Writer {
            link: link.clone(),
            to,
            queues,
            keep_alive: self.keep_alive,
            leave: leave.clone(),
        };
        Network::new(&link, &leave, &why, reader, writer.run(why.clone()))
    }
}

/// Reads messages for `link` until the connection ends, or is silent for too long.
async fn read(link: Arc<Link>, mut from: SplitStream<Stream>, silence: Duration, why: Why) {
    let mut throttle = Throttle::new();
    loop {
        match timeout(silence, from.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => link.take(text.into(), &mut throttle),
            Ok(Some(Ok(Message::Binary(bytes)))) => {
                let problem = format!("binary message of {} bytes ignored", bytes.len());
                link.complain(problem, &mut throttle);
            }
            Ok(Some(Ok(Message::Close(frame)))) => {
                why.is(farewell(frame, &link));
                break;
            }
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => {
                why.is(error.to_string());
                break;
            }
            Ok(None) => {
                why.is("it was closed");
                break;
            }
            Err(_) => {
                why.is(format!("nothing was heard for {silence:?}"));
                break;
            }
        }
    }
    link.breaks();
}

fn farewell(frame: Option<CloseFrame>, link: &Link) -> String {
    let Some(CloseFrame { code, reason }) = frame else {
        return "the server closed it".to_owned();
    };
    let reason = link.excerpt(reason.as_bytes());
    let colon = if reason.is_empty() { "" } else { ": " };
    format!("the server closed it with code {code}{colon}{reason}")
}

/// What writes to a connection.
struct Writer {
    link: Arc<Link>,
    to: SplitSink<Stream, Message>,
    queues: Queues,
    keep_alive: Duration,
    leave: Arc<Notify>,
}

impl Writer {
    /// Writes what the link has queued, and pings, until the connection ends.
    async fn run(mut self, why: Why) {
        if let Err(error) = self.write().await {
            why.is(error.to_string());
        }
        self.link.breaks();
    }

    async fn write(&mut self) -> Result<(), Error> {
        let first = time::Instant::now() + self.keep_alive;
        let mut pings = time::interval_at(first, self.keep_alive);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                biased;
                () = self.leave.notified() => return self.to.close().await,
                _ = pings.tick() => Message::Ping(Bytes::new()),
                next = self.queues.next(&self.link) => match next.map(Utf8Bytes::try_from) {
                    Some(Ok(text)) => Message::Text(text),
                    // Messages are text: they have been scanned.
                    Some(Err(_)) => continue,
                    None => return self.to.close().await,
                },
            };
            self.to.feed(message).await?;
            if self.queues.are_empty() {
                self.to.flush().await?;
            }
        }
    }
}
