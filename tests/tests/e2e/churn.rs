//! A thousand applies, each a new revision that the data plane has acked, under the load of 32
//! clients: no call fails, and neither process holds more at the end than early on.

use anyhow::{Context, Result, ensure};
use fleet_proto::v1::{Backend as Config, HttpBackend, NodeState, backend::Transport};
use fleet_tests::{
    admin::{Admin, http_backend, resource},
    backend::{Backend, server::Server},
    client::Client,
    fleet::LEGACY,
    load::Load,
    process::{Held, held},
    replicas::Replicas,
    store::Store,
};

const APPLIES: u64 = 1000;
/// By then everything that is kept on purpose is there.
const WARM: u64 = 200;
const CLIENTS: usize = 32;
/// Generous: what a leak of a table, a pool or a stream for each apply would go far beyond.
const MEMORY_KIB: u64 = 8 << 10;
const DESCRIPTORS: usize = 32;
const THREADS: usize = 8;

/// A backend that comes, changes, and goes.
async fn change(admin: &mut Admin, turn: u64, url: &str) -> Result<u64> {
    let resource = match turn % 3 {
        0 => http_backend("extra", url),
        1 => resource(Config {
            name: "extra".to_owned(),
            transport: Some(Transport::Http(HttpBackend {
                url: url.to_owned(),
                headers: [("x-turn".to_owned(), turn.to_string())].into(),
                ..HttpBackend::default()
            })),
            ..Config::default()
        }),
        _ => return Ok(admin.delete_backend("extra").await?.revision),
    };
    Ok(admin.apply(vec![resource]).await?.revision)
}

fn grown(what: &str, early: Held, late: Held) -> Result<()> {
    eprintln!("{what}: after {WARM} applies {early:?}, after {APPLIES} {late:?}");
    ensure!(
        late.memory <= early.memory + MEMORY_KIB
            && late.descriptors <= early.descriptors + DESCRIPTORS
            && late.threads <= early.threads + THREADS,
        "{what}: after {WARM} applies {early:?}, after {APPLIES} {late:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_applies_under_load_fail_no_call_and_leave_nothing_behind() -> Result<()> {
    churn(Store::Sqlite).await
}

pub(super) async fn churn(store: Store<'_>) -> Result<()> {
    let backend = Backend::start(Server::echo("alpha").legacy()).await?;
    let replicas = Replicas::start_on(store, &["one"]).await?;
    let mut admin = replicas.admin().await?;
    admin.node_in(NodeState::Synced).await?;
    let first = http_backend("alpha", &backend.url());
    let mut revision = admin.apply(vec![first]).await?.revision;
    admin.acked(revision).await?;
    let plane = &replicas.planes[0];
    let url = format!("http://{}/mcp", plane.address);
    let mut clients = Vec::new();
    for index in 0..CLIENTS {
        clients.push(if index % 2 == 0 {
            Client::legacy(&url, LEGACY).await?
        } else {
            Client::modern(&url).await?
        });
    }
    let load = Load::start(clients, &["alpha"]);
    load.goes_on(1000).await?;

    let pids = [replicas.control.pid(), plane.process.pid()];
    let mut early = None;
    for turn in 0..APPLIES {
        if turn == WARM {
            early = Some(pids.map(held));
        }
        let next = change(&mut admin, turn, &backend.at("/extra")).await?;
        ensure!(
            next > revision,
            "turn {turn}: no new revision after {revision}"
        );
        revision = next;
        let acked = admin.acked(revision).await;
        acked.with_context(|| format!("turn {turn}"))?;
    }
    let late = pids.map(held);
    let calls = load.stop().await?;
    ensure!(calls > 10 * APPLIES, "the load stood still: {calls} calls");
    let [control, data] = early.context("more applies than it takes to get warm")?;
    let [control_late, data_late] = late;
    grown("control plane", control?, control_late?)?;
    grown("data plane", data?, data_late?)
}
