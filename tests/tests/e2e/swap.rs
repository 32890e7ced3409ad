//! The configuration changes 300 times under load: no client of an untouched backend notices, and
//! calls in flight on a removed one complete.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Context, Result, ensure};
use fleet_proto::v1::{Backend as Config, HttpBackend, backend::Transport};
use fleet_tests::{
    admin::{Admin, http_backend, resource},
    backend::{Backend, server::Server},
    client::Client,
    fleet::Fleet,
    wait::soon,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

const APPLIES: u64 = 300;
const CLIENTS: u64 = 32;
/// So many of the clients are held at the backend during each apply.
const HELD: u64 = 4;

/// Holds calls at the backend until they are let go, by the group they name.
#[derive(Clone, Default)]
struct Gates(Arc<Mutex<HashMap<String, Gate>>>);

#[derive(Clone)]
struct Gate {
    waiting: watch::Sender<u64>,
    open: watch::Sender<bool>,
}

impl Gates {
    fn gate(&self, group: &str) -> Gate {
        let new = || Gate {
            waiting: watch::Sender::new(0),
            open: watch::Sender::new(false),
        };
        self.0
            .lock()
            .entry(group.to_owned())
            .or_insert_with(new)
            .clone()
    }

    /// Counts the call in and waits until the gate opens.
    async fn pass(self, group: String) {
        let gate = self.gate(&group);
        gate.waiting.send_modify(|count| *count += 1);
        let _ = gate.open.subscribe().wait_for(|open| *open).await;
    }

    /// Waits until so many calls are held.
    async fn held(&self, group: &str, calls: u64) -> Result<()> {
        let mut waiting = self.gate(group).waiting.subscribe();
        soon(
            &format!("{calls} calls at the gate {group}"),
            waiting.wait_for(|n| *n >= calls),
        )
        .await??;
        Ok(())
    }

    fn open(&self, group: &str) {
        self.gate(group).open.send_replace(true);
        self.0.lock().remove(group);
    }
}

/// A server with `echo` and `hold {gate, text}`, which answers when the gate opens.
fn server(name: &'static str, gates: &Gates) -> Server {
    let gates = gates.clone();
    Server::echo(name).tool("hold", move |arguments| {
        let text = |key: &str| arguments[key].as_str().unwrap_or_default().to_owned();
        let (passed, text) = (gates.clone().pass(text("gate")), text("text"));
        async move {
            passed.await;
            format!("{name}:{text}")
        }
    })
}

/// A client that calls one tool, `hold` at the gate it is sent to, and checks each answer.
fn hold(
    mut client: Client,
    backend: &'static str,
    gate: String,
    text: String,
) -> JoinHandle<Result<Client>> {
    tokio::spawn(async move {
        let arguments = json!({"gate": gate, "text": text});
        let answer = client.text(&format!("{backend}__hold"), arguments).await?;
        ensure!(
            answer == format!("{backend}:{text}"),
            "asked {text}, answered {answer}"
        );
        Ok(client)
    })
}

/// Clients that call without pause until told to stop, and count their calls.
fn load(
    clients: Vec<Client>,
    stop: &Arc<AtomicBool>,
    calls: &Arc<AtomicU64>,
) -> Vec<JoinHandle<Result<()>>> {
    let run = |(index, mut client): (usize, Client)| {
        let (stop, calls) = (Arc::clone(stop), Arc::clone(calls));
        tokio::spawn(async move {
            let backend = if index % 2 == 0 { "alpha" } else { "beta" };
            let tool = format!("{backend}__echo");
            while !stop.load(Relaxed) {
                let text = format!("{index}-{}", calls.fetch_add(1, Relaxed));
                let answer = client.text(&tool, json!({"text": text})).await?;
                ensure!(
                    answer == format!("{backend}:{text}"),
                    "asked {text}, answered {answer}"
                );
            }
            Ok(())
        })
    };
    clients.into_iter().enumerate().map(run).collect()
}

/// What every turn works on: the fleet, the clients that are held, and the backend that comes,
/// changes and goes.
struct Turns {
    fleet: Fleet,
    admin: Admin,
    gates: Gates,
    held: Vec<Client>,
    extra: String,
    revision: u64,
}

impl Turns {
    /// One apply, while calls of untouched backends are in flight: sent before it, answered after
    /// the data plane has acked it. Every third one removes a backend with a call in flight, too.
    async fn run(&mut self, turn: u64) -> Result<()> {
        let gate = format!("turn-{turn}");
        let calls = self.held.drain(..).enumerate().map(|(index, client)| {
            let backend = if index % 2 == 0 { "alpha" } else { "beta" };
            hold(client, backend, gate.clone(), format!("{turn}.{index}"))
        });
        let calls: Vec<_> = calls.collect();
        self.gates.held(&gate, HELD).await?;
        let on_removed = if turn % 3 == 2 {
            Some(self.on_extra(turn).await?)
        } else {
            None
        };

        let revision = self.change(turn).await?;
        ensure!(
            revision > self.revision,
            "no new revision after {}",
            self.revision
        );
        self.revision = revision;
        self.admin.acked(revision).await?;

        self.gates.open(&gate);
        for call in calls {
            self.held.push(call.await??);
        }
        if let Some(call) = on_removed {
            self.gates.open(&format!("extra-{turn}"));
            call.await?.context("a call on a removed backend")?;
        }
        Ok(())
    }

    /// The change of a turn to the backend `extra`: added, changed, removed.
    async fn change(&mut self, turn: u64) -> Result<u64> {
        match turn % 3 {
            0 => Ok(self
                .admin
                .apply(vec![http_backend("extra", &self.extra)])
                .await?
                .revision),
            1 => {
                let headers = [("x-turn".to_owned(), turn.to_string())].into();
                let http = HttpBackend {
                    url: self.extra.clone(),
                    headers,
                    ..Default::default()
                };
                let backend = Config {
                    name: "extra".to_owned(),
                    transport: Some(Transport::Http(http)),
                    ..Config::default()
                };
                Ok(self.admin.apply(vec![resource(backend)]).await?.revision)
            }
            _ => Ok(self.admin.delete_backend("extra").await?.revision),
        }
    }

    /// A call in flight on the backend that is about to be removed.
    async fn on_extra(&self, turn: u64) -> Result<JoinHandle<Result<Client>>> {
        self.fleet.offers(&["extra__hold"]).await?;
        let gate = format!("extra-{turn}");
        let call = hold(
            self.fleet.client().await?,
            "extra",
            gate.clone(),
            turn.to_string(),
        );
        self.gates.held(&gate, 1).await?;
        Ok(call)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_applies_under_load_fail_no_call() -> Result<()> {
    const { assert!(APPLIES * HELD >= 1000, "too few calls that overlap a swap") };
    let gates = Gates::default();
    let alpha = Backend::start(server("alpha", &gates).legacy()).await?;
    let beta = Backend::start(server("beta", &gates).modern()).await?;
    let extra = Backend::start(server("extra", &gates).legacy()).await?;
    let yaml = [("alpha", &alpha), ("beta", &beta)].map(|(name, b)| {
        format!(
            "kind: Backend\nname: {name}\nhttp: {{ url: '{}' }}\n",
            b.url()
        )
    });
    let fleet = Fleet::start(&yaml.join("---\n")).await?;
    fleet.offers(&["alpha__hold", "beta__hold"]).await?;

    let mut clients = Vec::new();
    for index in 0..CLIENTS {
        // Both eras at both backends, among the held ones, too.
        let modern = index % 4 >= 2;
        clients.push(if modern {
            Client::modern(&fleet.url).await?
        } else {
            fleet.client().await?
        });
    }
    let held = clients.split_off(usize::try_from(CLIENTS - HELD)?);
    let (stop, calls) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let load = load(clients, &stop, &calls);

    let mut admin = fleet.admin().await?;
    let revision = admin.revision().await?;
    let mut turns = Turns {
        fleet,
        admin,
        gates,
        held,
        extra: extra.url(),
        revision,
    };
    for turn in 0..APPLIES {
        turns
            .run(turn)
            .await
            .with_context(|| format!("turn {turn}"))?;
    }
    stop.store(true, Relaxed);
    for client in load {
        client.await??;
    }
    let calls = calls.load(Relaxed);
    ensure!(calls > APPLIES, "the load stood still: {calls} calls");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_backend_is_gone_for_new_calls() -> Result<()> {
    let gates = Gates::default();
    let backend = Backend::start(server("extra", &gates).legacy()).await?;
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: stays\nhttp: {{ url: '{}' }}\n",
        backend.at("/stays")
    ))
    .await?;
    let mut admin = fleet.admin().await?;
    let revision = admin
        .apply(vec![http_backend("extra", &backend.url())])
        .await?
        .revision;
    admin.acked(revision).await?;
    fleet.offers(&["extra__echo", "stays__echo"]).await?;
    let revision = admin.delete_backend("extra").await?.revision;
    admin.acked(revision).await?;
    let mut client = fleet.client().await?;
    ensure!(client.names("tools/list").await? == ["stays__echo", "stays__hold"]);
    ensure!(
        client.call("extra__echo", json!({})).await.is_err(),
        "it still answers"
    );
    Ok(())
}
