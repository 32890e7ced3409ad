//! Clients of every revision reach backends of either era.

use anyhow::{Result, ensure};
use fleet_tests::{
    backend::{Backend, server::Server},
    client::{Client, MODERN},
    fleet::Fleet,
};
use serde_json::json;

const WITH_SESSIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];

async fn check(client: &mut Client, what: &str) -> Result<()> {
    let mut names = client.names("tools/list").await?;
    names.sort();
    ensure!(names == ["new__echo", "old__echo"], "{what}: {names:?}");
    for backend in ["old", "new"] {
        let tool = format!("{backend}__echo");
        let text = client.text(&tool, json!({"text": what})).await?;
        ensure!(text == format!("{backend}:{what}"), "{what}: {text}");

        let params = json!({"name": tool, "arguments": {"text": "again"}});
        let token = json!("a \"token\"");
        let answer = client
            .post("tools/call", Some(params), Some(token.clone()))
            .await?;
        let messages = answer.messages()?;
        ensure!(messages.len() == 2, "{what}, {backend}: {answer:?}");
        let progress = &messages[0]["params"];
        ensure!(
            progress["progressToken"] == token && progress["progress"] == 1,
            "{answer:?}"
        );
        let text = &messages[1]["result"]["content"][0]["text"];
        ensure!(
            *text == format!("{backend}:again"),
            "{what}, {backend}: {answer:?}"
        );

        let unknown = client.call(&format!("{backend}__nothing"), json!({})).await;
        ensure!(
            unknown.is_err(),
            "{what}, {backend}: an unknown tool has answered"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_era_reaches_every_backend_era() -> Result<()> {
    let old = Backend::start(Server::echo("old").legacy()).await?;
    let new = Backend::start(Server::echo("new").modern()).await?;
    let (old, new) = (old.url(), new.url());
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: old\nhttp: {{ url: '{old}' }}\n---\n\
         kind: Backend\nname: new\nhttp: {{ url: '{new}' }}\n"
    ))
    .await?;
    fleet.offers(&["old__echo", "new__echo"]).await?;
    for version in WITH_SESSIONS {
        let mut client = Client::legacy(&fleet.url, version).await?;
        ensure!(
            client.server["protocolVersion"] == version,
            "{}",
            client.server
        );
        check(&mut client, version).await?;
        ensure!(client.request("ping", json!({})).await? == json!({}));
    }
    let offered_an_old_one = Client::legacy(&fleet.url, "2024-11-05").await?;
    ensure!(offered_an_old_one.server["protocolVersion"] == "2025-03-26");

    let mut client = Client::modern(&fleet.url).await?;
    let server = client.request("server/discover", json!({})).await?;
    let versions = server["supportedVersions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    ensure!(versions.contains(&json!(MODERN)), "{server}");
    check(&mut client, MODERN).await
}
