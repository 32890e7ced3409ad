//! An MCP server that echoes, as cheap as hyper makes it, so that it is not what limits.
//!
//! HTTP/1.1; both eras on one endpoint, told apart by the version header. Every path is an
//! endpoint, so that one process can stand for ten thousand servers.

mod answer;

use std::{
    convert::Infallible,
    io::{self, Write},
    net::TcpListener,
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc};

use crate::load::Era;
use answer::{Answers, Body};

/// What kind of server it is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// Threads that serve.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Tools that it lists, `echo` and `large` among them.
    #[arg(long, default_value_t = 2)]
    pub tools: usize,
    /// Close connections after everything that is no tool call: ten thousand discovered servers
    /// leave no connections.
    #[arg(long)]
    pub close: bool,
}

/// Serves until stdin ends; prints the address first.
///
/// # Errors
/// There is no free port, or no thread.
pub fn main(options: Options) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    println!("listening {}", listener.local_addr()?);
    io::stdout().flush()?;
    serve(listener, options)?;
    // Whoever has started this has gone when the pipe ends.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Serves in threads of its own, as long as the process lives.
///
/// # Errors
/// There is no thread.
pub fn serve(listener: TcpListener, options: Options) -> Result<()> {
    let answers = Arc::new(Answers::new(options));
    let mut hands = Vec::new();
    for _ in 0..options.threads {
        let (hand, taken) = mpsc::unbounded_channel();
        hands.push(hand);
        let answers = Arc::clone(&answers);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new().name("backend".to_owned());
        thread.spawn(move || runtime.block_on(work(taken, answers)))?;
    }
    // One acceptor, and the threads in turn: even with few connections all are busy.
    std::thread::Builder::new()
        .name("accept".to_owned())
        .spawn(move || {
            for (stream, hand) in listener.incoming().zip(hands.iter().cycle()) {
                if let Ok(stream) = stream {
                    let _ = hand.send(stream);
                }
            }
        })?;
    Ok(())
}

async fn work(mut taken: mpsc::UnboundedReceiver<std::net::TcpStream>, answers: Arc<Answers>) {
    while let Some(stream) = taken.recv().await {
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let _ = connection(stream, answers).await;
        });
    }
}

async fn connection(stream: std::net::TcpStream, answers: Arc<Answers>) -> Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(TcpStream::from_std(stream)?);
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(respond(&answers, request).await) }
    });
    http1::Builder::new()
        .serve_connection(stream, service)
        .await?;
    Ok(())
}

async fn respond(answers: &Answers, request: Request<Incoming>) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    match head.method {
        Method::POST => {}
        Method::DELETE => return status(StatusCode::NO_CONTENT),
        _ => return status(StatusCode::METHOD_NOT_ALLOWED),
    }
    let Ok(body) = whole(&mut body).await else {
        return status(StatusCode::BAD_REQUEST);
    };
    let version = head.headers.get("mcp-protocol-version");
    let era = match version.map(HeaderValue::as_bytes) {
        Some(b"2026-07-28") => Era::Modern,
        _ => Era::Legacy,
    };
    let in_session = head.headers.contains_key("mcp-session-id");
    let answer = answers.answer(era, in_session, &body);
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Some(session) = answer.session {
        headers.insert("mcp-session-id", session);
    }
    if answer.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Small bodies come in one piece, which is used as it is.
async fn whole(body: &mut Incoming) -> Result<Bytes, hyper::Error> {
    use hyper::body::Body as _;
    let mut first = Bytes::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        first = if first.is_empty() {
            data
        } else {
            [first, data].concat().into()
        };
        if body.is_end_stream() {
            break;
        }
    }
    Ok(first)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}
