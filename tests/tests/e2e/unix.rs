//! Backends on a Unix socket, and which sockets a data plane opens.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context, Result, ensure};
use fleet_proto::v1::{Backend as Resource, UnixBackend, backend::Transport};
use fleet_tests::{
    admin::resource,
    backend::{Backend, server::Server},
    client::{Client, Failure},
    fleet::{Fleet, LEGACY, Split},
    wait::until,
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_on_a_socket_is_used_as_one_on_tcp_is() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("mcp.sock");
    let server = Backend::on_socket(&path, Server::echo("unix").legacy()).await?;
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: a\nunix: {{ path: '{}', url_path: /at/mcp, bearer_token: t0ken }}\n",
        path.display()
    ))
    .await?;
    fleet.offers(&["a__echo"]).await?;
    let mut client = fleet.client().await?;
    ensure!(client.text("a__echo", json!({"text": "x"})).await? == "unix:x");
    for seen in server.seen() {
        ensure!(
            seen.path == "/at/mcp" && seen.header("host") == "localhost",
            "{seen:?}"
        );
        ensure!(seen.header("authorization") == "Bearer t0ken", "{seen:?}");
    }

    // Gone, and there again: another server, with none of the old sessions.
    drop(server);
    fs::remove_file(&path)?;
    until("an error", || async {
        let mut client = fleet.client().await.ok()?;
        let failed = client.text("a__echo", json!({"text": "x"})).await;
        failed.is_err().then_some(())
    })
    .await?;
    let _server = Backend::on_socket(&path, Server::echo("new").legacy()).await?;
    until("the new server", || async {
        let mut client = fleet.client().await.ok()?;
        let answer = client.text("a__echo", json!({"text": "y"})).await.ok()?;
        (answer == "new:y").then_some(())
    })
    .await
}

fn on_socket(name: &str, path: &Path) -> fleet_proto::v1::Resource {
    let transport = UnixBackend {
        path: path.display().to_string(),
        ..UnixBackend::default()
    };
    resource(Resource {
        name: name.to_owned(),
        transport: Some(Transport::Unix(transport)),
        ..Resource::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_configuration_opens_only_sockets_that_the_node_allows() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (inside, outside) = (dir.path().join("allowed"), dir.path().join("docker.sock"));
    fs::create_dir(&inside)?;
    let fine = inside.join("mcp.sock");
    let _fine = Backend::on_socket(&fine, Server::echo("fine").legacy()).await?;
    let secret = Backend::on_socket(&outside, Server::echo("secret").legacy()).await?;
    let link = inside.join("link.sock");
    symlink(&outside, &link)?;
    let allow = format!("file={}", inside.display());
    let split = Split::start_with(&["--allow", &allow]).await?;
    let mut admin = split.admin().await?;
    let ways = [
        on_socket("fine", &fine),
        on_socket("outside", &outside),
        on_socket("dots", &inside.join("../docker.sock")),
        on_socket("link", &link),
    ];
    let revision = admin.apply(ways.to_vec()).await?.revision;
    admin.acked(revision).await?;
    let mut client = until("the backend that is allowed", || async {
        let mut client = Client::legacy(&split.url, LEGACY).await.ok()?;
        let names = client.names("tools/list").await.ok()?;
        (names == ["fine__echo"]).then_some(client)
    })
    .await?;
    ensure!(client.text("fine__echo", json!({"text": "x"})).await? == "fine:x");
    for name in ["outside", "dots", "link"] {
        let called = client.text(&format!("{name}__echo"), json!({})).await;
        let failure = called
            .err()
            .context("a call through a socket that is not allowed")?;
        let failure = failure.downcast::<Failure>()?;
        ensure!(failure.code() == Some(-31001), "{name}: {failure}");
    }
    ensure!(secret.seen().is_empty(), "{:?}", secret.seen());
    Ok(())
}
