//! One HTTP/1.1 connection: request out, whole answer in. A broken connection is an error.

use std::fmt;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection to the endpoint of a URL.
pub struct Connection {
    url: Uri,
    sender: http1::SendRequest<Full<Bytes>>,
}

/// A whole answer.
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, to its end.
    pub body: Bytes,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn open(url: &str) -> Result<Self> {
        let url: Uri = url.parse().with_context(|| format!("not a URL: {url}"))?;
        let authority = url
            .authority()
            .with_context(|| format!("no host in {url}"))?;
        let stream = TcpStream::connect(authority.as_str()).await;
        let stream = stream.with_context(|| format!("nobody listens at {authority}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // An error of the connection is also the error of the request that it breaks.
        tokio::spawn(connection);
        Ok(Self { url, sender })
    }

    /// POSTs a JSON body. `headers` come after the usual ones.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn post(
        &mut self,
        headers: &[(&str, String)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let mut all = vec![
            ("content-type", "application/json".to_owned()),
            ("accept", "application/json, text/event-stream".to_owned()),
        ];
        all.extend(headers.iter().cloned());
        self.send(Method::POST, &all, body.into()).await
    }

    /// GETs the URL.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn get(&mut self) -> Result<Answer> {
        self.send(Method::GET, &[], Bytes::new()).await
    }

    /// Sends any request and reads the answer to its end.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn send(
        &mut self,
        method: Method,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Answer> {
        let authority = self
            .url
            .authority()
            .map(ToString::to_string)
            .unwrap_or_default();
        let path = self.url.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", authority);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.sender
            .ready()
            .await
            .context("the server has closed the connection")?;
        let answer = self
            .sender
            .send_request(request.body(Full::new(body))?)
            .await?;
        let (head, body) = answer.into_parts();
        let body = body
            .collect()
            .await
            .context("the answer breaks off")?
            .to_bytes();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

impl Answer {
    /// Every JSON-RPC message of the answer: the body, or the data of each event.
    ///
    /// # Errors
    /// Something in it is not JSON.
    pub fn messages(&self) -> Result<Vec<Value>> {
        let texts = self.texts()?;
        let messages = texts.iter().map(|text| serde_json::from_str(text));
        Ok(messages.collect::<Result<_, _>>()?)
    }

    /// The same as the server wrote them.
    ///
    /// # Errors
    /// It is not text.
    pub fn texts(&self) -> Result<Vec<String>> {
        let text = std::str::from_utf8(&self.body)?;
        if !self.is_stream() {
            return Ok(vec![text.to_owned()]);
        }
        let text = text.replace("\r\n", "\n");
        let events = text.split("\n\n").map(|event| {
            let data = event.lines().filter_map(|line| line.strip_prefix("data:"));
            data.map(|line| line.strip_prefix(' ').unwrap_or(line))
                .collect::<Vec<_>>()
                .join("\n")
        });
        Ok(events.filter(|data| !data.is_empty()).collect())
    }

    /// Whether it came as an event stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        let kind = self.headers.get("content-type");
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
    }

    /// The response: the last message, which must be one.
    ///
    /// # Errors
    /// The answer holds none.
    pub fn response(&self) -> Result<Value> {
        match self.messages()?.pop() {
            Some(message) if message.get("result").is_some() || message.get("error").is_some() => {
                Ok(message)
            }
            _ => bail!("no response in {self:?}"),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let body: String = body.chars().take(400).collect();
        write!(f, "HTTP {} {:?} {body}", self.status, self.headers)
    }
}
