//! The connections of WebSocket servers, and of stdio servers, whose bytes `servers/pipe.sh`
//! carries.

use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_tungstenite::{
    accept_async,
    tungstenite::{
        Message,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

use super::{Asked, Out, Piece, Served, Transport, framing::Framer};

/// A listener, with its connections.
pub(super) struct Socket {
    pub(super) port: u16,
    task: JoinHandle<()>,
}

impl Socket {
    pub(super) async fn start(served: Served) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                connections.spawn(async move {
                    let (out, from) = served.opened();
                    // A test sees what the client makes of an end.
                    let _ = match served.transport {
                        Transport::WebSocket => web_socket(stream, &served, out, from).await,
                        _ => lines(stream, &served, out, from).await,
                    };
                });
            }
        });
        Ok(Self { port, task })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn take(served: &Served, message: &Bytes, out: &Out) {
    let Some(asked) = Asked::read(message).filter(|asked| !asked.id.is_empty()) else {
        return;
    };
    let (served, out) = (served.clone(), out.clone());
    tokio::spawn(async move { served.take(asked, out).await });
}

async fn lines(
    mut stream: TcpStream,
    served: &Served,
    out: Out,
    mut from: mpsc::Receiver<Piece>,
) -> Result<()> {
    let (read, mut write) = stream.split();
    let reading = async {
        let mut lines = BufReader::new(read).lines();
        while let Some(line) = lines.next_line().await? {
            take(served, &line.into(), &out);
        }
        Ok(())
    };
    let writing = async {
        let mut framer = Framer::new(served.transport);
        while let Some(piece) = from.recv().await {
            let Some(bytes) = framer.frame(&piece) else {
                break;
            };
            write.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

async fn web_socket(
    stream: TcpStream,
    served: &Served,
    out: Out,
    mut from: mpsc::Receiver<Piece>,
) -> Result<()> {
    let (mut to, mut frames) = accept_async(stream).await?.split();
    let reading = async {
        while let Some(message) = frames.next().await {
            if let Message::Text(text) = message? {
                take(served, &text.into(), &out);
            }
        }
        Ok(())
    };
    let writing = async {
        let mut kind = Data::Text;
        while let Some(piece) = from.recv().await {
            // Not as messages of the library: that would see to their being text.
            let frame = match piece {
                Piece::Message(message) => Frame::message(message, OpCode::Data(Data::Text), true),
                Piece::Part(part) => {
                    let kind = std::mem::replace(&mut kind, Data::Continue);
                    Frame::message(part, OpCode::Data(kind), false)
                }
                Piece::End => break,
            };
            to.send(Message::Frame(frame)).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}
