//! What data planes report, what they keep on disk of their backends, and what a restarted control
//! plane sends them.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use fleet_proto::v1::NodeState;
use fleet_tests::{
    admin::http_backend,
    backend::{Backend, server::Server},
    client::Client,
    fleet::LEGACY,
    relay::Relay,
    replicas::Replicas,
    wait::{soon, until},
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::fleet::{number, printed};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_which_backends_fail_on_it_and_its_log_can_be_followed() -> Result<()> {
    let backend = Backend::start(Server::echo("alpha").legacy()).await?;
    let replicas = Replicas::start(&["one"]).await?;
    let mut admin = replicas.admin().await?;
    admin.node_in(NodeState::Synced).await?;

    let mut follow = replicas.command("", &["logs", "one"]);
    follow.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follow = follow.spawn()?;
    let mut said = BufReader::new(follow.stderr.take().context("piped")?).lines();
    let line = soon("that the log is followed", said.next_line()).await??;
    ensure!(
        line.as_deref() == Some("following the log of one"),
        "{line:?}"
    );

    let resources = vec![
        http_backend("alpha", &backend.url()),
        http_backend("gone", "http://127.0.0.1:1/mcp"),
    ];
    let revision = admin.apply(resources).await?.revision;
    admin.acked(revision).await?;
    let mut log = BufReader::new(follow.stdout.take().context("piped")?).lines();
    let told = async {
        while let Some(line) = log.next_line().await? {
            if line.contains("WARN") && line.contains("gone") {
                return Ok(line);
            }
        }
        anyhow::bail!("the log has ended")
    };
    let line = soon("the line about the backend", told).await??;
    // The same that is on stderr.
    let text = "catalogue not renewed";
    ensure!(line.contains(text), "{line}");
    ensure!(replicas.planes[0].process.printed().contains(text));
    follow.kill().await?;

    let url = format!("http://{}/mcp", replicas.planes[0].address);
    let mut client = Client::legacy(&url, LEGACY).await?;
    for turn in 0..3 {
        client
            .text("alpha__echo", json!({"text": turn.to_string()}))
            .await?;
    }
    let described = until("the report of calls and backends", || async {
        let output = replicas
            .mcpctl("", &["describe", "node", "one"])
            .await
            .ok()?;
        let (code, text, _) = printed(&output);
        let whole = text.contains("Tool calls:   3, 0 of them failed") && text.contains("fresh");
        (code == Some(0) && whole).then_some(text)
    })
    .await?;
    for (name, words) in [("alpha", "fresh"), ("gone", "failed")] {
        let row = described.lines().find(|line| line.trim().starts_with(name));
        let row = row.with_context(|| format!("no backend {name}: {described}"))?;
        ensure!(row.contains(words), "{row}");
    }
    ensure!(described.contains("State:        SYNCED"), "{described}");
    ensure!(
        !described.contains("Memory:       not known"),
        "{described}"
    );
    let (_, status, _) = printed(&replicas.mcpctl("", &["status"]).await?);
    ensure!(
        status.contains("one cannot reach backend gone (failed)"),
        "{status}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_restarted_while_all_others_are_down_lists_what_their_backends_offered()
-> Result<()> {
    let backend = Backend::start(Server::echo("alpha").legacy()).await?;
    let mut replicas = Replicas::start(&[]).await?;
    replicas.add("one", &["--drain-seconds", "0"]).await?;
    let mut admin = replicas.admin().await?;
    admin.node_in(NodeState::Synced).await?;
    let resources = vec![
        http_backend("alpha", &backend.url()),
        http_backend("beta", &backend.at("/beta")),
    ];
    let revision = admin.apply(resources).await?.revision;
    admin.acked(revision).await?;
    let directory = replicas.dir().join("one").join("catalogues");
    let files = || std::fs::read_dir(&directory).map_or(0, Iterator::count);
    until("both catalogues on disk", || async {
        (files() == 2).then_some(())
    })
    .await?;
    let deleted = admin.delete_backend("beta").await?;
    admin.acked(deleted.revision).await?;
    until("one catalogue on disk", || async {
        (files() == 1).then_some(())
    })
    .await?;

    replicas.control.kill().await?;
    drop(backend);
    replicas.planes[0].process.kill().await?;
    replicas.restart(0).await?;
    let url = format!("http://{}/mcp", replicas.planes[0].address);
    let mut client = Client::legacy(&url, LEGACY).await?;
    let names = client.names("tools/list").await?;
    ensure!(names == ["alpha__echo"], "{names:?}");
    let stale = until("that the backend is known to be away", || async {
        let url = format!("{}/admin/backends", replicas.planes[0].admin_url);
        let (_, _, text) = fleet_tests::client::get(&url).await.ok()?;
        let told: Value = serde_json::from_str(&text).ok()?;
        let backend = told["backends"][0].clone();
        backend["error"].is_string().then_some(backend)
    })
    .await?;
    ensure!(stale["state"] == "stale" && stale["tools"] == 1, "{stale}");
    let names = client.names("tools/list").await?;
    ensure!(names == ["alpha__echo"], "{names:?}");
    Ok(())
}

/// Where it listens, and not that ten thousand backends are away.
const LOG: &str = "error,mcp_dataplane=info,mcp_dataplane::catalog=error";

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_control_plane_sends_a_few_kib_to_a_data_plane_with_ten_thousand_backends()
-> Result<()> {
    let mut replicas = Replicas::start(&[]).await?;
    let mut admin = replicas.admin().await?;
    let backend = |n: usize, port: u16| {
        http_backend(&format!("b{n:05}"), &format!("http://127.0.0.1:{port}/mcp"))
    };
    let first = admin
        .apply((0..10_000).map(|n| backend(n, 1)).collect())
        .await?;
    let relay = Relay::start(&replicas.control_url, Relay::unchanged()).await?;
    replicas.add_by("one", &relay.url, &["--log", LOG]).await?;
    admin.acked(first.revision).await?;
    let whole = relay.bytes();
    ensure!(whole > 500_000, "the whole set: {whole} bytes");

    let file = replicas.dir().join("one").join("last-good.1");
    until("the set on disk", || async { file.exists().then_some(()) }).await?;

    // A change that the node has not seen when the control plane forgets what it serves.
    replicas.planes[0].process.kill().await?;
    admin.node_in(NodeState::Offline).await?;
    let second = admin.apply(vec![backend(7, 2)]).await?;
    replicas.control.kill().await?;
    replicas.restart_control().await?;
    let mut admin = replicas.admin().await?;
    replicas.restart(0).await?;
    admin.acked(second.revision).await?;
    let sent = relay.bytes() - whole;
    ensure!(sent < 8 * 1024, "{sent} bytes were sent");
    let nodes = admin.nodes().await?;
    ensure!(nodes[0].revision == second.revision, "{nodes:?}");
    let output = replicas.mcpctl("", &["nodes", "-o", "json"]).await?;
    let shown: Value = serde_json::from_str(&printed(&output).1)?;
    ensure!(number(&shown[0]["revision"]) == Some(second.revision));
    Ok(())
}
