//! Clients that speak HTTP/2 without asking (RFC 9113, section 3.3).

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fleet_tests::{
    backend::{Backend, server::Server},
    client::MODERN,
    fleet::Fleet,
};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_http2_connection_run_side_by_side() -> Result<()> {
    let backend = Backend::start(Server::echo("good").legacy()).await?;
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: good\nhttp: {{ url: '{}' }}\n",
        backend.url()
    ))
    .await?;
    let authority = fleet.url.split('/').nth(2).context("no authority")?;
    let stream = TcpStream::connect(authority).await?;
    let (sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);

    let calls = (0..50).map(|id| {
        let (mut sender, url) = (sender.clone(), fleet.url.clone());
        async move {
            let text = format!("call {id}");
            let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
                "name": "good__echo", "arguments": {"text": text},
                "_meta": {"io.modelcontextprotocol/protocolVersion": MODERN,
                          "io.modelcontextprotocol/clientCapabilities": {}},
            }});
            let request = Request::post(&url)
                .header("content-type", "application/json")
                .header("accept", "application/json, text/event-stream")
                .header("mcp-protocol-version", MODERN)
                .header("mcp-method", "tools/call")
                .header("mcp-name", "good__echo")
                .body(Full::from(body.to_string()))?;
            let answer = sender.send_request(request).await?;
            ensure!(answer.status() == 200, "{}", answer.status());
            ensure!(!answer.headers().contains_key("connection"));
            let body = answer.into_body().collect().await?.to_bytes();
            let answer: Value = serde_json::from_slice(&body)?;
            ensure!(
                answer["id"] == id && body.windows(text.len()).any(|w| w == text.as_bytes()),
                "{answer}"
            );
            Ok::<_, anyhow::Error>(())
        }
    });
    try_join_all(calls).await?;
    drop(sender);
    connection.await??;
    Ok(())
}
