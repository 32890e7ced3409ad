//! HTTP/1.1 responses, read off a socket: with a length or in chunks.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// Least room for a read.
const ROOM: usize = 64 << 10;

/// What has been read and not yet used.
#[derive(Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
    filled: usize,
    /// A chunked body put together.
    joined: Vec<u8>,
}

/// The head of a response, and where its body is.
pub(super) struct Response {
    /// Its status.
    pub(super) status: u16,
    /// Whether it is an event stream.
    pub(super) events: bool,
    /// `Mcp-Session-Id`.
    pub(super) session: Option<String>,
    /// Whether the server goes on with this connection.
    pub(super) keeps: bool,
    body: Body,
    end: usize,
}

enum Body {
    Plain(Range<usize>),
    Joined,
}

struct Head {
    response: Response,
    length: Option<usize>,
    chunked: bool,
    end: usize,
}

impl Reader {
    /// Reads one response to its end.
    ///
    /// # Errors
    /// The connection ends, or this is no HTTP.
    pub(super) async fn read(&mut self, stream: &mut TcpStream) -> Result<Response> {
        let head = loop {
            if let Some(head) = head(&self.buffer[..self.filled])? {
                break head;
            }
            self.more(stream, ROOM).await?;
        };
        let mut response = head.response;
        if head.chunked {
            response.body = Body::Joined;
            response.end = self.chunks(stream, head.end).await?;
            return Ok(response);
        }
        let length = match (head.length, response.status) {
            (Some(length), _) => length,
            (None, 202 | 204) => 0,
            (None, status) => bail!("status {status} with neither length nor chunks"),
        };
        let end = head.end + length;
        while self.filled < end {
            self.more(stream, (end - self.filled).max(ROOM)).await?;
        }
        response.body = Body::Plain(head.end..end);
        response.end = end;
        Ok(response)
    }

    /// The body of the response that was read last.
    #[must_use]
    pub(super) fn body(&self, response: &Response) -> &[u8] {
        match &response.body {
            Body::Plain(range) => &self.buffer[range.clone()],
            Body::Joined => &self.joined,
        }
    }

    /// Forgets the response that was read last.
    pub(super) fn done(&mut self, response: &Response) {
        self.buffer.copy_within(response.end..self.filled, 0);
        self.filled -= response.end;
    }

    async fn more(&mut self, stream: &mut TcpStream, room: usize) -> Result<()> {
        if self.buffer.len() < self.filled + room {
            self.buffer.resize(self.filled + room, 0);
        }
        let read = stream.read(&mut self.buffer[self.filled..]).await?;
        ensure!(read > 0, "the connection was closed");
        self.filled += read;
        Ok(())
    }

    /// Joins the chunks that begin at `at`. Returns where they end.
    async fn chunks(&mut self, stream: &mut TcpStream, mut at: usize) -> Result<usize> {
        self.joined.clear();
        loop {
            let line = loop {
                let rest = &self.buffer[at..self.filled];
                match memchr::memmem::find(rest, b"\r\n") {
                    Some(length) => break at..at + length,
                    None => self.more(stream, ROOM).await?,
                }
            };
            let size = std::str::from_utf8(&self.buffer[line.clone()])?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).context("not a chunk's size")?;
            let data = line.end + 2..line.end + 2 + size;
            while self.filled < data.end + 2 {
                self.more(stream, ROOM).await?;
            }
            at = data.end + 2;
            if size == 0 {
                return Ok(at);
            }
            self.joined.extend_from_slice(&self.buffer[data]);
        }
    }
}

/// The head, once all of it is there.
fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut parsed = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = parsed.parse(bytes)? else {
        return Ok(None);
    };
    let mut head = Head {
        response: Response {
            status: parsed.code.unwrap_or_default(),
            events: false,
            session: None,
            keeps: true,
            body: Body::Joined,
            end: 0,
        },
        length: None,
        chunked: false,
        end,
    };
    for header in parsed.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let text = || std::str::from_utf8(header.value).unwrap_or_default();
        if is("content-length") {
            head.length = Some(text().parse()?);
        } else if is("transfer-encoding") {
            head.chunked = text().eq_ignore_ascii_case("chunked");
        } else if is("content-type") {
            head.response.events = text().starts_with("text/event-stream");
        } else if is("mcp-session-id") {
            head.response.session = Some(text().to_owned());
        } else if is("connection") {
            head.response.keeps = !text().eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    /// What is read when these parts arrive one by one.
    async fn read(parts: &'static [&'static str]) -> Vec<(u16, String)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            for part in parts {
                server.write_all(part.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut reader = Reader::default();
        let mut all = Vec::new();
        while let Ok(response) = reader.read(&mut client).await {
            let body = String::from_utf8(reader.body(&response).to_vec()).unwrap();
            all.push((response.status, body));
            reader.done(&response);
        }
        all
    }

    #[tokio::test]
    async fn bodies_with_a_length_and_in_chunks_are_read_one_after_the_other() {
        let found = read(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
            "lloHTTP/1.1 202 Accepted\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "2;x=y\r\nde\r\n0\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        ])
        .await;
        let found: Vec<_> = found.iter().map(|(s, b)| (*s, b.as_str())).collect();
        assert_eq!(
            found,
            [(200, "hello"), (202, ""), (200, "abcde"), (404, "")]
        );
    }
}
