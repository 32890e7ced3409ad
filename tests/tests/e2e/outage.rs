//! Postgres killed, started again, cut off, under real control planes: data planes serve on
//! without a failed call, a write fails with exit code 8 and says that nothing was changed, and
//! what was answered before is there afterwards.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use fleet_proto::{key::Key, v1::NodeState};
use fleet_tests::{
    admin::{Admin, policy},
    client::Client,
    fleet::LEGACY,
    forwarder::{Forwarder, Wire},
    load::Load,
    postgres::{Cluster, cluster},
    replicas::Replicas,
    store::Store,
    wait::{soon, until},
};
use serde_json::json;
use tokio::task::block_in_place;
use tonic::{Code, Status};

use super::fleet::{applied, backends, clients, printed};

/// Clients without retries, at every data plane.
async fn load(replicas: &Replicas) -> Result<Load> {
    let mut all = Vec::new();
    for plane in &replicas.planes {
        all.extend(clients(&format!("http://{}/mcp", plane.address), 4).await?);
    }
    let load = Load::start(all, &["alpha", "beta"]);
    load.goes_on(100).await?;
    Ok(load)
}

/// `mcpctl apply` of a backend, at a control plane; exit code and stderr.
async fn apply(
    replicas: &Replicas,
    control_url: &str,
    name: &str,
    url: &str,
) -> Result<(Option<i32>, String)> {
    let yaml = format!("kind: Backend\nname: {name}\nhttp: {{ url: '{url}' }}\n");
    let file = format!("{name}.yaml");
    std::fs::write(replicas.dir().join(&file), yaml)?;
    let arguments = ["apply", "-f", &file, "--control-plane", control_url];
    let (code, _, errors) = printed(&replicas.mcpctl("", &arguments).await?);
    Ok((code, errors))
}

/// That a write fails clearly, and reads do not fail.
async fn refused(replicas: &Replicas, url: &str) -> Result<()> {
    let (code, errors) = apply(replicas, &replicas.control_url, "refused", url).await?;
    ensure!(
        code == Some(8) && errors.contains("nothing was changed") && errors.contains("try again"),
        "{code:?} {errors}"
    );
    for (verb, shown) in [
        (&["get", "-o", "name"][..], "backend/alpha"),
        (&["nodes"], "one"),
    ] {
        let (code, out, errors) = printed(&replicas.mcpctl("", verb).await?);
        ensure!(
            code == Some(0) && out.contains(shown),
            "{verb:?}: {out} {errors}"
        );
    }
    Ok(())
}

/// Tries until writes work; each failure until then is the same clear one.
async fn apply_when_back(replicas: &Replicas, name: &str, url: &str) -> Result<()> {
    let back = async {
        loop {
            match apply(replicas, &replicas.control_url, name, url).await? {
                (Some(0), _) => return Ok(()),
                (code, errors) => ensure!(code == Some(8), "{code:?} {errors}"),
            }
        }
    };
    soon("a write that works again", back).await?
}

async fn names(admin: &mut Admin) -> Result<BTreeSet<String>> {
    let list = admin.list("").await?;
    let keys = list.resources.iter().map(|r| Key::of(r).context("a key"));
    keys.map(|key| Ok(key?.name)).collect()
}

/// Writes until that fails: how many writes were answered, and the failure.
async fn write_on(mut admin: Admin) -> (usize, Status) {
    for turn in 0.. {
        let written = admin.apply(vec![policy(&format!("w-{turn}"))]).await;
        if let Err(status) = written {
            return (turn, status);
        }
    }
    unreachable!("it fails before that")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_costs_no_call_and_loses_nothing_that_was_answered() -> Result<()> {
    let mut postgres = block_in_place(Cluster::start)?;
    let servers = backends().await?;
    let mut replicas = Replicas::start_on(Store::Postgres(&postgres), &["one", "two"]).await?;
    let first = applied(&replicas, &servers).await?;
    let load = load(&replicas).await?;
    let mut admin = replicas.admin().await?;
    let writer = tokio::spawn(write_on(admin.clone()));
    admin.acked(first + 20).await?;

    block_in_place(|| postgres.kill())?;
    let (written, status) = writer.await?;
    ensure!(status.code() == Code::Unavailable, "{status}");
    refused(&replicas, &servers[0].at("/refused")).await?;
    load.goes_on(200).await?;
    // One that comes meanwhile is served from the control plane's memory.
    replicas.add("three", &[]).await?;
    until("the new data plane", || async {
        (replicas.planes[2].ready().await.ok()? == 200).then_some(())
    })
    .await?;

    block_in_place(|| postgres.run())?;
    apply_when_back(&replicas, "after", &servers[0].at("/after")).await?;
    let newest = admin.revision().await?;
    admin.acked(newest).await?;
    load.goes_on(200).await?;
    // What it has in memory may be more than what is stored.
    replicas.control.kill().await?;
    replicas.restart_control().await?;
    let mut admin = replicas.admin().await?;
    let stored = names(&mut admin).await?;
    let answered = (0..written).map(|turn| format!("w-{turn}"));
    let mut expected: BTreeSet<_> = answered.collect();
    expected.extend(["alpha", "beta", "after"].map(str::to_owned));
    // The write that was under way may have been made: it was not answered.
    let mut in_doubt = expected.clone();
    in_doubt.insert(format!("w-{written}"));
    ensure!(
        stored == expected || stored == in_doubt,
        "{written} writes were answered, stored are {stored:?}"
    );
    let history = admin.history().await?;
    let numbers: Vec<_> = history.iter().map(|revision| revision.number).collect();
    ensure!(
        numbers == (1..=newest).rev().collect::<Vec<_>>(),
        "{numbers:?}"
    );
    ensure!(newest == stored.len() as u64 - 1, "{newest}: {stored:?}");
    admin.acked(newest).await?;
    load.goes_on(200).await?;
    load.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_swallows_everything_costs_no_call_and_heals() -> Result<()> {
    partition(Wire::Silent).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_closes_connections_costs_no_call_and_heals() -> Result<()> {
    partition(Wire::Closed).await
}

/// One of two control planes is cut off from Postgres. The data plane is its own.
async fn partition(wire: Wire) -> Result<()> {
    let forwarder = Forwarder::to(cluster().port()).await?;
    let servers = backends().await?;
    let replicas = Replicas::start_on(Store::Behind(&forwarder, cluster()), &["one"]).await?;
    let (_other, other_url) = replicas.another_control(Store::Postgres(cluster())).await?;
    let revision = applied(&replicas, &servers).await?;
    let other = replicas.admin_at(&other_url).await?;
    other.node_in(NodeState::Synced).await?;
    let load = load(&replicas).await?;

    forwarder.set(wire);
    refused(&replicas, &servers[0].at("/refused")).await?;
    let elsewhere = servers[0].at("/elsewhere");
    let (code, errors) = apply(&replicas, &other_url, "elsewhere", &elsewhere).await?;
    ensure!(code == Some(0), "{code:?} {errors}");
    // The other one cannot know any more what becomes of the node.
    other.node_in(NodeState::Offline).await?;
    load.goes_on(200).await?;
    ensure!(
        replicas.planes[0].ready().await? == 200,
        "a data plane depends on the database"
    );

    forwarder.set(Wire::Whole);
    let mut admin = replicas.admin().await?;
    admin.acked(revision + 1).await?;
    let url = format!("http://{}/mcp", replicas.planes[0].address);
    let mut client = Client::legacy(&url, LEGACY).await?;
    let text = client.text("elsewhere__echo", json!({"text": "x"})).await?;
    ensure!(text == "alpha:x", "{text}");
    let node = other.node_in(NodeState::Synced).await?;
    ensure!(node.revision == revision + 1, "{node:?}");
    apply_when_back(&replicas, "after", &servers[0].at("/after")).await?;
    ensure!(admin.history().await? == other.clone().history().await?);
    let expected = ["after", "alpha", "beta", "elsewhere"].map(str::to_owned);
    let stored = names(&mut admin).await?;
    ensure!(stored == BTreeSet::from(expected), "{stored:?}");
    load.stop().await?;
    Ok(())
}
