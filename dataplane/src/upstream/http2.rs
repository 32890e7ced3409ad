//! HTTP/2 to a backend that offers it: one connection per worker for all calls, driven by a task
//! of its own.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::pool::{Ask, ReadError};

/// Silence after which a backend is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// What a call's answer may have under way before it is read, and for how many
/// calls there is room: one whose client does not read must not stop the others.
const WINDOW: u32 = 256 << 10;
const STREAMS: u32 = 256;

/// What sends requests over a connection.
pub(super) type Sender = http2::SendRequest<Full<Bytes>>;
/// A response.
pub(super) type Answer = Response<Incoming>;

/// Opens a connection over TLS.
pub(super) async fn open<I>(tls: I) -> io::Result<Sender>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * STREAMS)
        .handshake(TokioIo::new(tls));
    let (sender, connection) = handshake.await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// Sends a request; `None`: nothing was sent, the connection takes none any more.
pub(super) async fn send(mut sender: Sender, ask: &Ask<'_>) -> Option<hyper::Result<Answer>> {
    match sender.try_send_request(request(ask)).await {
        Ok(answer) => Some(Ok(answer)),
        Err(mut error) => match error.take_message() {
            Some(_unsent) => None,
            None => Some(Err(error.into_error())),
        },
    }
}

/// The request; its URI is absolute (RFC 9113, section 8.3.1).
fn request(ask: &Ask<'_>) -> Request<Full<Bytes>> {
    let mut text = Vec::with_capacity(512);
    (ask.lines)(&mut text);
    let mut headers = lines(&text);
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = headers
        .remove(HOST)
        .and_then(|host| Authority::try_from(host.as_bytes()).ok());
    uri.path_and_query = PathAndQuery::try_from(ask.path).ok();
    let mut request = Request::new(Full::new(ask.body.clone()));
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    *request.method_mut() = ask.verb.parse().unwrap_or_default();
    *request.headers_mut() = headers;
    request
}

/// Header lines, each `name: value` and CR LF, as a map.
fn lines(text: &[u8]) -> HeaderMap {
    let lines = text.split(|b| *b == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        Some((name, value))
    });
    let mut map = HeaderMap::new();
    for (name, mut value) in lines {
        value.set_sensitive(name == http::header::AUTHORIZATION);
        map.append(name, value);
    }
    map
}

/// The next piece of a body.
pub(super) async fn frame(body: &mut Incoming) -> hyper::Result<Option<Bytes>> {
    loop {
        match body.frame().await.transpose()? {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// A whole body of at most `most` bytes.
pub(super) async fn collect(body: &mut Incoming, most: usize) -> Result<Bytes, ReadError> {
    let Some(first) = frame(body).await? else {
        return Ok(Bytes::new());
    };
    let mut all = BytesMut::from(first);
    loop {
        if all.len() > most {
            return Err(ReadError::TooLarge(most));
        }
        match frame(body).await? {
            None => return Ok(all.freeze()),
            Some(piece) => all.extend_from_slice(&piece),
        }
    }
}
