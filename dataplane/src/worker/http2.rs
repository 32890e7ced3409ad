//! Connections of clients that speak HTTP/2.

mod patience;

use std::{convert::Infallible, sync::Arc};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::{HEAD_TIMEOUT, KEEPALIVE, stopped};
use crate::{call::WorkerId, listen, node::Node};
use patience::{Patience, Pieces};

/// Requests that a client of HTTP/2 may have under way on one connection.
const STREAMS: u32 = 256;
/// Longest head of a request over HTTP/2, in bytes.
const HEAD_MOST: u32 = 64 << 10;

pub(super) async fn serve<I>(
    node: Arc<Node>,
    worker: WorkerId,
    stream: I,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut leaving = node.drain.subscribe();
    let service = service_fn(move |request| {
        let node = node.clone();
        async move {
            let Ok(response) = listen::serve(node, worker, request).await;
            Ok::<_, Infallible>(Pieces::of(response))
        }
    });
    let connection = http2::Builder::new(Patience(HEAD_TIMEOUT))
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_MOST)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        // GOAWAY: the client's next request is to find another replica.
        () = stopped(&mut leaving) => {}
        () = stopped(&mut stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}
