//! Two control planes, each a process, over one Postgres: whoever writes where, there is one line
//! of revisions, nothing written is lost, and who comes too late is told.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use fleet_proto::{
    key::Key,
    v1::{Backend, HttpBackend, NodeState, Resource, backend::Transport, resource::Kind},
};
use fleet_tests::{
    admin::{Admin, policy, resource},
    backend::{Backend as Scripted, server::Server},
    client::Client,
    fleet::LEGACY,
    postgres::cluster,
    replicas::Replicas,
    store::Store,
    wait::{soon, until},
};
use serde_json::json;
use tonic::Code;

use super::fleet::printed;

/// Per writer at the gRPC API, of which there are two at each control plane; every other one adds
/// to a count that all share.
const WRITES: u64 = 120;
/// Per `mcpctl`, of which there is one at each control plane.
const APPLIES: u64 = 10;
const ALL: u64 = 4 * WRITES + 2 * APPLIES;

/// A backend that says how often it was written.
fn counter(url: &str, count: u64) -> Resource {
    let transport = HttpBackend {
        url: url.to_owned(),
        ..HttpBackend::default()
    };
    resource(Backend {
        name: "counter".to_owned(),
        labels: [("count".to_owned(), count.to_string())].into(),
        transport: Some(Transport::Http(transport)),
        ..Backend::default()
    })
}

/// The revision that a control plane serves, and the count in it.
async fn counted(admin: &mut Admin) -> Result<(u64, u64)> {
    let list = admin.list("Backend").await?;
    let Some(Kind::Backend(backend)) = list.resources.first().and_then(|r| r.kind.as_ref()) else {
        bail!("no counter: {list:?}");
    };
    Ok((list.revision, backend.labels["count"].parse()?))
}

/// What a writer was told: the revisions it has made, and how often it came too late.
#[derive(Default)]
struct Told {
    revisions: Vec<u64>,
    conflicts: u64,
}

/// Writes of its own, that cannot fail, and in turn with them additions to the count, each on top
/// of what was read.
async fn write(mut admin: Admin, who: String, url: String) -> Result<Told> {
    let mut told = Told::default();
    for turn in 0..WRITES {
        if turn % 2 == 0 {
            let own = policy(&format!("{who}-{turn}"));
            told.revisions.push(admin.apply(vec![own]).await?.revision);
            continue;
        }
        loop {
            let (revision, count) = counted(&mut admin).await?;
            match admin.apply_at(revision, counter(&url, count + 1)).await {
                Ok(made) => {
                    ensure!(made == revision + 1, "{made} was made on top of {revision}");
                    told.revisions.push(made);
                    break;
                }
                Err(status) if status.code() == Code::Aborted => told.conflicts += 1,
                Err(status) => return Err(status.into()),
            }
        }
    }
    Ok(told)
}

/// The same from the command line: exit code 0 or 4, and no other.
async fn apply(replicas: Arc<Replicas>, control_url: String, who: String) -> Result<Told> {
    let mut admin = replicas.admin_at(&control_url).await?;
    let mut told = Told::default();
    while (told.revisions.len() as u64) < APPLIES {
        let yaml = format!(
            "kind: AuthPolicy\nname: {who}-{}\nbearer: {{ tokens: [a-token-of-{who}] }}\n",
            told.revisions.len()
        );
        let file = format!("{who}.yaml");
        std::fs::write(replicas.dir().join(&file), yaml)?;
        let (revision, _) = counted(&mut admin).await?;
        let expected = revision.to_string();
        let arguments = ["apply", "-f", &file, "--expect-revision", &expected];
        let arguments = [&arguments[..], &["--control-plane", &control_url]].concat();
        match printed(&replicas.mcpctl("", &arguments).await?) {
            (Some(0), ..) => told.revisions.push(revision + 1),
            (Some(4), _, errors) => {
                ensure!(errors.contains("revision"), "{errors}");
                told.conflicts += 1;
            }
            (code, _, errors) => bail!("{code:?} {errors}"),
        }
    }
    Ok(told)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_racing_applies_make_one_line_lose_no_update_and_tell_who_was_late()
-> Result<()> {
    let server = Scripted::start(Server::echo("good").legacy()).await?;
    let store = Store::Postgres(cluster());
    let mut replicas = Replicas::start_on(store, &[]).await?;
    let (_other, other_url) = replicas.another_control(store).await?;
    // At either of them.
    replicas
        .add("one", &["--control-plane", &other_url])
        .await?;
    let urls = [replicas.control_url.clone(), other_url];
    let mut admins = Vec::new();
    for url in &urls {
        admins.push(replicas.admin_at(url).await?);
    }
    let first = admins[0].apply(vec![counter(&server.url(), 0)]).await?;
    ensure!(first.revision == 1);
    until("the other control plane to follow", || {
        let mut admin = admins[1].clone();
        async move { counted(&mut admin).await.ok() }
    })
    .await?;

    let replicas = Arc::new(replicas);
    let mut writers = Vec::new();
    for (index, admin) in admins.iter().enumerate() {
        for nth in 0..2 {
            let write = write(admin.clone(), format!("w{index}{nth}"), server.url());
            writers.push(tokio::spawn(write));
        }
        let apply = apply(
            Arc::clone(&replicas),
            urls[index].clone(),
            format!("m{index}"),
        );
        writers.push(tokio::spawn(apply));
    }
    let (mut revisions, mut conflicts) = (Vec::new(), Vec::new());
    for writer in writers {
        let told = soon("a writer", writer).await???;
        revisions.extend(told.revisions);
        conflicts.push(told.conflicts);
    }
    eprintln!("conflicts: {conflicts:?}");
    ensure!(conflicts.iter().sum::<u64>() > 0, "they did not race");
    // Each answer is a revision of its own: no write has taken another's place.
    revisions.sort_unstable();
    let line: Vec<_> = (2..=ALL + 1).collect();
    ensure!(revisions == line, "{revisions:?}");
    agree(&mut admins).await?;

    for admin in &mut admins {
        admin.acked(ALL + 1).await?;
    }
    let url = format!("http://{}/mcp", replicas.planes[0].address);
    let mut client = Client::legacy(&url, LEGACY).await?;
    ensure!(client.text("counter__echo", json!({"text": "x"})).await? == "good:x");
    Ok(())
}

/// That both control planes have the same history, in which every addition counted.
async fn agree(admins: &mut [Admin]) -> Result<()> {
    let mut histories = Vec::new();
    for admin in admins {
        until("all revisions", || {
            let mut admin = admin.clone();
            async move {
                let (revision, count) = counted(&mut admin).await.ok()?;
                (revision == ALL + 1).then_some(count)
            }
        })
        .await
        .and_then(|count| {
            ensure!(count == 2 * WRITES, "{count} additions are left");
            Ok(())
        })?;
        let policies = admin.list("AuthPolicy").await?.resources;
        let names: BTreeSet<_> = policies
            .iter()
            .filter_map(Key::of)
            .map(|k| k.name)
            .collect();
        ensure!(names.len() as u64 == ALL - 2 * WRITES, "{names:?}");
        histories.push(admin.history().await?);
    }
    let numbers: Vec<_> = histories[0].iter().map(|r| r.number).collect();
    ensure!(
        numbers == (1..=ALL + 1).rev().collect::<Vec<_>>(),
        "{numbers:?}"
    );
    ensure!(
        histories[0] == histories[1],
        "they tell different histories"
    );
    ensure!(histories[0].iter().all(|r| r.created + r.configured == 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_goes_to_the_other_control_plane_when_its_own_is_killed() -> Result<()> {
    let server = Scripted::start(Server::echo("good").legacy()).await?;
    let store = Store::Postgres(cluster());
    let mut replicas = Replicas::start_on(store, &["one"]).await?;
    let mut admin = replicas.admin().await?;
    let first = admin.apply(vec![counter(&server.url(), 0)]).await?;
    admin.acked(first.revision).await?;
    let (other, other_url) = replicas.another_control(store).await?;
    replicas
        .add("two", &["--control-plane", &other_url])
        .await?;
    until("both data planes", || async {
        let nodes = replicas
            .admin_at(&other_url)
            .await
            .ok()?
            .nodes()
            .await
            .ok()?;
        let synced = nodes
            .iter()
            .filter(|node| node.state() == NodeState::Synced);
        (synced.count() == 2).then_some(())
    })
    .await?;
    // It is at one of the two; killing both in turn takes its own from it.
    let mut admin = replicas.admin_at(&other_url).await?;
    replicas.control.kill().await?;
    let next = admin.apply(vec![counter(&server.url(), 1)]).await?.revision;
    two_serves(&mut admin, next).await?;
    replicas.restart_control().await?;
    drop(other);
    let mut admin = replicas.admin().await?;
    let next = admin.apply(vec![counter(&server.url(), 2)]).await?.revision;
    two_serves(&mut admin, next).await
}

async fn two_serves(admin: &mut Admin, revision: u64) -> Result<()> {
    until("the data plane at the other control plane", || {
        let mut admin = admin.clone();
        async move {
            let nodes = admin.nodes().await.ok()?;
            let two = nodes.into_iter().find(|node| node.node_id == "two")?;
            (two.state() == NodeState::Synced && two.revision == revision).then_some(())
        }
    })
    .await
    .context("it stays away")
}
