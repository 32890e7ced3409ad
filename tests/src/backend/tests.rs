//! The scripted servers behave as the clients of the tests expect of real ones.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Backend, server::Server};
use crate::client::{Client, Failure};

#[tokio::test]
async fn a_legacy_server_keeps_sessions() -> Result<()> {
    let server = Server::echo("it");
    let backend = Backend::start(server.legacy()).await?;
    let mut client = Client::legacy(&backend.url(), "2025-06-18").await?;
    ensure!(client.server["protocolVersion"] == "2025-06-18");
    ensure!(client.names("tools/list").await? == ["echo"]);
    ensure!(client.text("echo", json!({"text": "x"})).await? == "it:x");
    server.forget_sessions();
    let gone = client
        .call("echo", json!({}))
        .await
        .map_err(|e| e.downcast::<Failure>());
    ensure!(
        matches!(gone, Err(Ok(Failure { status, .. })) if status == 404),
        "{gone:?}"
    );
    ensure!(backend.seen_of("tools/call").len() == 2);
    ensure!(
        Client::modern(&backend.url())
            .await?
            .call("echo", json!({}))
            .await
            .is_err()
    );
    Ok(())
}

#[tokio::test]
async fn a_modern_server_reports_progress_on_a_stream() -> Result<()> {
    let backend = Backend::start(Server::echo("it").modern()).await?;
    let mut client = Client::modern(&backend.url()).await?;
    ensure!(client.names("tools/list").await? == ["echo"]);
    let params = json!({"name": "echo", "arguments": {"text": "x"}});
    let answer = client
        .post("tools/call", Some(params), Some(json!(7)))
        .await?;
    let messages = answer.messages()?;
    ensure!(
        messages.len() == 2 && messages[0]["params"]["progressToken"] == 7,
        "{answer:?}"
    );
    ensure!(
        messages[1]["result"]["content"][0]["text"] == "it:x",
        "{answer:?}"
    );
    ensure!(Client::legacy(&backend.url(), "2025-11-25").await.is_err());
    Ok(())
}
