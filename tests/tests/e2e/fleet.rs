//! Two data planes behind a balancer with the shipped configuration: clients of both eras need no
//! affinity, a dead control plane costs no call, and a node that cannot or will not is named.

use std::{process::Output, sync::Arc};

use anyhow::{Context, Result, ensure};
use fleet_proto::v1::NodeState;
use fleet_tests::{
    admin::http_backend,
    backend::{Backend, server::Server},
    balancer::Balancer,
    client::Client,
    fake_node::FakeNode,
    fleet::LEGACY,
    load::Load,
    process::below,
    replicas::Replicas,
    store::Store,
    wait::until,
};
use serde_json::{Value, json};

use super::clients::CLIENTS;

/// One HTTP server of each era, as two backends.
pub(super) async fn backends() -> Result<[Backend; 2]> {
    Ok([
        Backend::start(Server::echo("alpha").legacy()).await?,
        Backend::start(Server::echo("beta").modern()).await?,
    ])
}

/// Applies them, and gives the revision that both data planes serve.
pub(super) async fn applied(replicas: &Replicas, [alpha, beta]: &[Backend; 2]) -> Result<u64> {
    let mut admin = replicas.admin().await?;
    for plane in &replicas.planes {
        until("the data planes' streams", || {
            let mut admin = admin.clone();
            async move {
                let nodes = admin.nodes().await.ok()?;
                nodes.iter().any(|n| n.node_id == plane.name).then_some(())
            }
        })
        .await?;
    }
    let alpha = http_backend("alpha", &alpha.url());
    let beta = http_backend("beta", &beta.url());
    let revision = admin.apply(vec![alpha, beta]).await?.revision;
    admin.acked(revision).await?;
    Ok(revision)
}

/// Clients of both eras, in turn.
pub(super) async fn clients(url: &str, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for index in 0..count {
        clients.push(if index % 4 >= 2 {
            Client::modern(url).await?
        } else {
            Client::legacy(url, LEGACY).await?
        });
    }
    Ok(clients)
}

pub(super) fn printed(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// What `mcpctl nodes -o json` says, by node id.
pub(super) async fn node(replicas: &Replicas, id: &str) -> Result<Value> {
    let (code, out, errors) = printed(&replicas.mcpctl("", &["nodes", "-o", "json"]).await?);
    ensure!(code == Some(0), "{errors}");
    let nodes: Value = serde_json::from_str(&out)?;
    let nodes = nodes.as_array().context("nodes are a list")?;
    let found = nodes.iter().find(|node| node["node_id"] == id);
    Ok(found
        .with_context(|| format!("no node {id}: {out}"))?
        .clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_waits_for_both_data_planes_and_clients_need_no_affinity() -> Result<()> {
    no_affinity(Store::Sqlite).await
}

pub(super) async fn no_affinity(store: Store<'_>) -> Result<()> {
    let backends = backends().await?;
    let replicas = Replicas::start_on(store, &["one", "two"]).await?;
    let balancer = Balancer::nginx(&replicas.planes).await?;
    let document = |(name, backend): (&str, &Backend)| {
        format!(
            "kind: Backend\nname: {name}\nhttp: {{ url: '{}' }}\n",
            backend.url()
        )
    };
    let yaml = [("alpha", &backends[0]), ("beta", &backends[1])].map(document);
    std::fs::write(replicas.dir().join("fleet.yaml"), yaml.join("---\n"))?;

    // Both have to be connected: `--wait` waits for no others.
    applied(&replicas, &backends).await?;
    let change = std::fs::read_to_string(replicas.dir().join("fleet.yaml"))?;
    let change = change.replace("name: beta\n", "name: beta\nlabels: { changed: again }\n");
    std::fs::write(replicas.dir().join("fleet.yaml"), change)?;
    let apply = ["apply", "-f", "fleet.yaml", "--wait"];
    let (code, out, errors) = printed(&replicas.mcpctl(&balancer.url, &apply).await?);
    ensure!(
        code == Some(0)
            && out.contains("backend/beta configured")
            && errors.contains("by 2 data planes"),
        "{code:?}\n{out}\n{errors}"
    );
    let revision = replicas.admin().await?.revision().await?;
    for plane in &replicas.planes {
        let node = node(&replicas, &plane.name).await?;
        ensure!(
            node["state"] == "NODE_STATE_SYNCED" && number(&node["revision"]) == Some(revision),
            "revision {revision}: {node}"
        );
        ensure!(plane.ready().await? == 200, "{} is not ready", plane.name);
    }

    // One session, whose requests nginx hands to both data planes in turn.
    let mut client = Client::legacy(&balancer.url, LEGACY).await?;
    let before = calls(&replicas).await?;
    for turn in 0..20 {
        let text = client
            .text("alpha__echo", json!({"text": turn.to_string()}))
            .await?;
        ensure!(text == format!("alpha:{turn}"), "{text}");
    }
    for (plane, (before, after)) in replicas
        .planes
        .iter()
        .zip(before.into_iter().zip(calls(&replicas).await?))
    {
        ensure!(
            after > before,
            "{} got none of the session's calls",
            plane.name
        );
    }

    for backend in ["alpha", "beta"] {
        let plan = json!({
            "target": {"url": balancer.url}, "prefix": format!("{backend}__"),
            "calls": [["echo", {"text": "a"}], ["echo", {"text": "b"}], ["echo", {"text": "c"}]],
            "reads": [], "prompts": [], "completions": [], "asks": [],
        });
        for client in &CLIENTS {
            let got = client.run(&plan).await?;
            let texts: Vec<_> = (0..3)
                .map(|n| got["calls"][n]["content"][0]["text"].clone())
                .collect();
            let expected = ["a", "b", "c"].map(|text| format!("{backend}:{text}"));
            ensure!(texts == expected, "{}: {got}", client.name);
            ensure!(got["tools"][0]["name"] == "echo", "{}: {got}", client.name);
        }
    }
    for turn in 0..4 {
        let arguments = format!(r#"{{"text":"{turn}"}}"#);
        let call = replicas
            .mcpctl(&balancer.url, &["call", "beta__echo", &arguments])
            .await?;
        let (code, out, errors) = printed(&call);
        ensure!(
            code == Some(0) && out.contains(&format!("beta:{turn}")),
            "{out}\n{errors}"
        );
    }
    Ok(())
}

/// uint64 is a string in proto3 JSON.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

pub(super) async fn calls(replicas: &Replicas) -> Result<Vec<u64>> {
    let mut calls = Vec::new();
    for plane in &replicas.planes {
        calls.push(plane.calls().await?);
    }
    Ok(calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_and_return_of_the_control_plane_fail_no_call_and_data_planes_start_without_it()
-> Result<()> {
    death_and_return(Store::Sqlite).await
}

pub(super) async fn death_and_return(store: Store<'_>) -> Result<()> {
    let backends = backends().await?;
    let mut replicas = Replicas::start_on(store, &["one"]).await?;
    replicas.add("two", &["--drain-seconds", "7"]).await?;
    let revision = applied(&replicas, &backends).await?;
    let balancer = Balancer::nginx(&replicas.planes).await?;
    let load = Load::start(clients(&balancer.url, 8).await?, &["alpha", "beta"]);
    load.goes_on(200).await?;

    replicas.control.kill().await?;
    load.goes_on(500).await?;
    // New sessions, too.
    let mut late = Client::legacy(&balancer.url, LEGACY).await?;
    ensure!(late.text("alpha__echo", json!({"text": "late"})).await? == "alpha:late");
    // One that starts meanwhile serves what it has kept; one that has kept nothing is not ready.
    ensure!(replicas.planes[1].stop().await? == 0);
    replicas.restart(1).await?;
    until("the restarted data plane", || async {
        (replicas.planes[1].ready().await.ok()? == 200).then_some(())
    })
    .await?;
    until("calls at the restarted data plane", || async {
        replicas.planes[1]
            .calls()
            .await
            .ok()
            .filter(|calls| *calls > 0)
    })
    .await?;
    replicas.add("three", &[]).await?;
    ensure!(
        replicas.planes[2].ready().await? == 503,
        "ready with nothing to serve"
    );
    ensure!(replicas.planes[0].ready().await? == 200);

    replicas.restart_control().await?;
    let mut admin = replicas.admin().await?;
    ensure!(
        admin.revision().await? == revision,
        "the revision did not survive"
    );
    until("all data planes in sync", || {
        let mut admin = admin.clone();
        async move {
            let nodes = admin.nodes().await.ok()?;
            let synced = nodes
                .iter()
                .filter(|n| n.state() == NodeState::Synced && n.revision == revision);
            (synced.count() == 3).then_some(())
        }
    })
    .await?;
    let more = http_backend("more", &backends[0].at("/more"));
    let next = admin.apply(vec![more]).await?.revision;
    admin.acked(next).await?;
    load.goes_on(200).await?;
    load.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_allows_no_programs_starts_none_and_says_so() -> Result<()> {
    no_programs(Store::Sqlite).await
}

pub(super) async fn no_programs(store: Store<'_>) -> Result<()> {
    let backends = backends().await?;
    let mut replicas = Replicas::start_on(store, &["closed"]).await?;
    replicas.add("open", &["--allow", "stdio"]).await?;
    applied(&replicas, &backends).await?;
    let balancer = Balancer::nginx(&replicas.planes).await?;
    let demo = json!({"command": fleet_tests::programs::ours("mcpctl"), "args": ["demo-server", "--stdio"]});
    let yaml = format!(
        "kind: Backend\nname: program\nstdio: {demo}\n---\nkind: Backend\nname: more\nhttp: {{ url: '{}' }}\n",
        backends[0].at("/more")
    );
    std::fs::write(replicas.dir().join("program.yaml"), yaml)?;
    let apply = ["apply", "-f", "program.yaml", "--wait"];
    let (code, _, errors) = printed(&replicas.mcpctl(&balancer.url, &apply).await?);
    ensure!(code == Some(6), "{code:?} {errors}");
    let line = errors.lines().find(|line| line.contains("closed serves"));
    let line = line.with_context(|| format!("the node is not named: {errors}"))?;
    ensure!(
        line.contains("Backend program") && line.contains("--allow stdio"),
        "{line}"
    );
    ensure!(!errors.contains("open serves"), "{errors}");

    // The node that may runs it; the other one runs nothing. The rest of the change is live on both.
    until("the program", || async {
        let (_, _, text) =
            fleet_tests::client::get(&format!("{}/admin/backends", replicas.planes[1].admin_url))
                .await
                .ok()?;
        (text.contains("fresh") && !below(replicas.planes[1].process.pid()).is_empty())
            .then_some(())
    })
    .await?;
    let children = below(replicas.planes[0].process.pid());
    ensure!(children.is_empty(), "it has started {children:?}");
    let closed = node(&replicas, "closed").await?;
    ensure!(
        closed["degraded"][0]["key"]["name"] == "program",
        "{closed}"
    );
    for plane in &replicas.planes {
        let url = format!("http://{}/mcp", plane.address);
        let mut client = Client::legacy(&url, LEGACY).await?;
        let text = client.text("more__echo", json!({"text": "x"})).await?;
        ensure!(text == "alpha:x", "{}: {text}", plane.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_revision_is_told_with_the_node_and_its_reason_and_the_next_one_heals()
-> Result<()> {
    refused(Store::Sqlite).await
}

pub(super) async fn refused(store: Store<'_>) -> Result<()> {
    const WHY: &str = "unknown field 77 of Backend: upgrade this data plane";
    let backends = backends().await?;
    let replicas = Replicas::start_on(store, &["good"]).await?;
    let first = applied(&replicas, &backends).await?;
    let refused = first + 1;
    let verdict = move |revision| (revision == refused).then(|| WHY.to_owned());
    let token = replicas.node_token();
    let _old = FakeNode::connect(&replicas.control_url, token, "old", Arc::new(verdict)).await?;
    replicas.admin().await?.acked(first).await?;

    let apply = async |name: &str| {
        let backend = backends[0].at(&format!("/{name}"));
        let yaml = format!("kind: Backend\nname: {name}\nhttp: {{ url: '{backend}' }}\n");
        std::fs::write(replicas.dir().join("next.yaml"), yaml)?;
        Ok::<_, anyhow::Error>(printed(
            &replicas
                .mcpctl("", &["apply", "-f", "next.yaml", "--wait"])
                .await?,
        ))
    };
    let (code, _, errors) = apply("second").await?;
    ensure!(code == Some(6), "{code:?} {errors}");
    ensure!(
        errors.contains("old refused") && errors.contains(WHY),
        "{errors}"
    );
    let (old, good) = (
        node(&replicas, "old").await?,
        node(&replicas, "good").await?,
    );
    ensure!(
        old["state"] == "NODE_STATE_NACKED"
            && number(&old["nacked_revision"]) == Some(refused)
            && number(&old["revision"]) == Some(first),
        "{old}"
    );
    ensure!(
        good["state"] == "NODE_STATE_SYNCED" && number(&good["revision"]) == Some(refused),
        "{good}"
    );
    let (_, table, errors) = printed(&replicas.mcpctl("", &["nodes"]).await?);
    ensure!(
        table.contains("NACKED") && errors.contains(WHY),
        "{table}\n{errors}"
    );
    let url = format!("http://{}/mcp", replicas.planes[0].address);
    let mut client = Client::legacy(&url, LEGACY).await?;
    ensure!(client.text("second__echo", json!({"text": "x"})).await? == "alpha:x");

    let (code, _, errors) = apply("third").await?;
    ensure!(
        code == Some(0) && errors.contains("by 2 data planes"),
        "{code:?} {errors}"
    );
    let old = node(&replicas, "old").await?;
    ensure!(old["state"] == "NODE_STATE_SYNCED", "{old}");
    Ok(())
}
