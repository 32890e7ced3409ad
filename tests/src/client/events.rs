//! An answer that is read event by event, as it comes.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::wait::soon;

/// An event stream on a connection of its own, which ends with it.
pub struct Events {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
    /// Comments seen so far.
    pub comments: usize,
}

/// One event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// Its id.
    pub id: Option<String>,
    /// The time after which to come back, in milliseconds.
    pub retry: Option<u64>,
    /// Its data; empty for one that only has an id.
    pub data: String,
}

impl Event {
    /// Its message; null where it has none.
    #[must_use]
    pub fn message(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

impl Events {
    /// Sends a request and gives its answer when the head is there.
    ///
    /// # Errors
    /// Nobody listens there, or the connection breaks.
    pub async fn open(
        url: &str,
        method: Method,
        headers: &[(&str, String)],
        body: impl Into<Bytes>,
    ) -> Result<Self> {
        let url: Uri = url.parse()?;
        let authority = url.authority().context("no host in the URL")?.to_string();
        let stream = TcpStream::connect(&authority).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let path = url.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("host", authority);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body.into()))?;
        let answer = soon("the head of an answer", sender.send_request(request)).await??;
        let (head, body) = answer.into_parts();
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body,
            text: String::new(),
            comments: 0,
        })
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// The connection breaks, or nothing comes.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                if block.starts_with(':') {
                    self.comments += 1;
                    continue;
                }
                return Ok(Some(read(&block)));
            }
            match soon("an event", self.body.frame()).await? {
                Some(frame) => {
                    let data = frame?.into_data().unwrap_or_default();
                    self.text.push_str(std::str::from_utf8(&data)?);
                }
                None => return Ok(None),
            }
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// As [`Self::next`]; or the stream ends.
    pub async fn message(&mut self) -> Result<Value> {
        loop {
            match self.next().await? {
                Some(event) if event.data.is_empty() => {}
                Some(event) => return Ok(event.message()),
                None => bail!("the stream ended"),
            }
        }
    }

    /// The next message of this method; others are passed over.
    ///
    /// # Errors
    /// As [`Self::message`].
    pub async fn message_of(&mut self, method: &str) -> Result<Value> {
        loop {
            let message = self.message().await?;
            if message["method"] == method {
                return Ok(message);
            }
        }
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// The stream breaks off.
    pub async fn ends(&mut self) -> Result<()> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Whether nothing comes for so long.
    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.next()).await.is_err()
    }
}

fn read(block: &str) -> Event {
    let mut event = Event::default();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = Some(value.to_owned()),
            "retry" => event.retry = value.parse().ok(),
            "data" if event.data.is_empty() => value.clone_into(&mut event.data),
            "data" => event.data = format!("{}\n{value}", event.data),
            _ => {}
        }
    }
    event
}
