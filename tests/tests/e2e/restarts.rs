//! Real servers over HTTP, made with four SDKs, that are killed in the middle of calls and started
//! again at the same port: a held call fails at once, and each client goes on with what it has.

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{Backend, server::Server},
    client::{Client, Events, Failure},
    fleet::{Fleet, LEGACY},
    load::Load,
    process::Process,
    programs::{here, installed, node},
    wait::until,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

const UNAVAILABLE: i64 = -31001;
const GONE: i64 = -31004;

/// A server, and where it listens.
struct Real {
    name: &'static str,
    process: Process,
    /// Host and port.
    address: String,
}

const SERVERS: [&str; 4] = ["everything", "python", "mcp1", "fastmcp"];
/// A resource of the first.
const RESOURCE: &str = "demo://resource/static/document/features.md";

impl Real {
    async fn start(name: &'static str, port: &str) -> Result<Self> {
        let mut command = if name == "everything" {
            let package = "servers/node_modules/@modelcontextprotocol/server-everything/dist";
            let mut command = Command::new(node());
            command.arg("-r").arg(here("servers/loopback.cjs"));
            command.arg(installed(package).join("index.js"));
            command.arg("streamableHttp");
            command
        } else {
            let mut command = Command::new(installed(&format!("{name}/bin/python")));
            command.arg(here("servers/served.py")).arg(port);
            command
        };
        command.env("LOOPBACK_PORT", port);
        let process = Process::start(name, command)?;
        let address = process
            .line("where it listens", |line| {
                let said = ["loopback: http://", "running on http://"];
                let address = said.iter().find_map(|said| line.split_once(said))?.1;
                Some(address.split_whitespace().next()?.to_owned())
            })
            .await?;
        Ok(Self {
            name,
            process,
            address,
        })
    }

    async fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.ended().await.map(drop)
    }

    async fn start_again(&mut self) -> Result<()> {
        let (_, port) = self.address.rsplit_once(':').context("no port")?;
        *self = Self::start(self.name, port).await?;
        Ok(())
    }

    async fn echo(&self, client: &mut Client) -> Result<()> {
        let key = if self.name == "everything" {
            "message"
        } else {
            "text"
        };
        let text = client
            .text(&format!("{}__echo", self.name), json!({key: "here"}))
            .await?;
        ensure!(text.ends_with("here"), "{}: {text}", self.name);
        Ok(())
    }

    /// A call that has begun there, and would take an hour.
    async fn held(&self, client: &mut Client) -> Result<Events> {
        let (tool, arguments) = if self.name == "everything" {
            let arguments = json!({"duration": 3600, "steps": 36_000});
            ("trigger-long-running-operation", arguments)
        } else {
            ("wait", json!({}))
        };
        let params = json!({"name": format!("{}__{tool}", self.name), "arguments": arguments,
            "_meta": {"progressToken": "own"}});
        let mut events = client.stream("tools/call", params).await?;
        let begun = events.message().await?;
        ensure!(begun["method"] == "notifications/progress", "{begun}");
        Ok(events)
    }
}

/// The error in which a call ends.
async fn end(mut events: Events) -> Result<Value> {
    loop {
        let message = events.message().await?;
        if message["id"].is_null() {
            continue;
        }
        return Ok(message["error"]["code"].clone());
    }
}

/// What holds of one server, whatever the others do meanwhile.
async fn survives(fleet: &Fleet, real: &mut Real, load: &Load) -> Result<()> {
    let mut clients = [
        Client::legacy(&fleet.url, LEGACY).await?,
        Client::modern(&fleet.url).await?,
    ];
    for client in &mut clients {
        real.echo(client).await?;
    }
    for turn in 0..2 {
        let mut held = Vec::new();
        for client in &mut clients {
            held.push(real.held(client).await?);
        }
        real.kill().await?;
        for client in &mut clients {
            let refused = real.echo(client).await.err().context("it answers")?;
            let failure = refused.downcast::<Failure>()?;
            ensure!(
                failure.code() == Some(UNAVAILABLE),
                "turn {turn}, while it is gone: {failure}"
            );
        }
        load.goes_on(20).await?;
        real.start_again().await?;
        // One that could have been resumed has been tried to be.
        for (events, era) in held.into_iter().zip(["old", "new"]) {
            let code = end(events).await;
            let code = code.with_context(|| format!("turn {turn}, call of the {era} era"))?;
            ensure!(code == GONE, "turn {turn}, call of the {era} era: {code}");
        }
        for client in &mut clients {
            real.echo(client)
                .await
                .with_context(|| format!("turn {turn}, when it is back"))?;
        }
    }
    Ok(())
}

async fn fleet(servers: &[Real]) -> Result<(Fleet, Backend)> {
    let good = Backend::start(Server::echo("good").legacy()).await?;
    let mut yaml = String::new();
    let urls = servers
        .iter()
        .map(|real| (real.name, format!("http://{}/mcp", real.address)));
    for (name, url) in urls.chain([("good", good.url())]) {
        yaml += &format!("kind: Backend\nname: {name}\nhttp: {{ url: '{url}' }}\n---\n");
    }
    let fleet = Fleet::start(&yaml).await?;
    let tools: Vec<_> = servers
        .iter()
        .map(|real| format!("{}__echo", real.name))
        .collect();
    let tools = tools.iter().map(String::as_str);
    fleet
        .offers(&tools.chain(["good__echo"]).collect::<Vec<_>>())
        .await?;
    Ok((fleet, good))
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_server_that_is_killed_and_started_again_go_on() -> Result<()> {
    let starting = SERVERS.map(|name| Real::start(name, "0"));
    let mut servers = futures_util::future::try_join_all(starting).await?;
    let (fleet, _good) = fleet(&servers).await?;
    let load = Load::start(vec![fleet.client().await?], &["good"]);
    let (fleet, load) = (&fleet, &load);
    let all = servers.iter_mut().map(|real| async move {
        let name = real.name;
        let survives = survives(fleet, real, load).await;
        survives.context(name)
    });
    futures_util::future::try_join_all(all).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_watched_at_a_server_is_watched_when_it_is_back() -> Result<()> {
    let mut servers = [Real::start("everything", "0").await?];
    let (fleet, _good) = fleet(&servers).await?;
    let mut client = fleet.client().await?;
    let mut events = client.listen(None).await?;
    let subscribed = json!({"uri": RESOURCE});
    client.request("resources/subscribe", subscribed).await?;
    for turn in 0..2 {
        // It tells those sessions that have asked it to, of what they have subscribed to.
        client
            .call("everything__toggle-subscriber-updates", json!({}))
            .await?;
        let told = events.message_of("notifications/resources/updated");
        let told = told.await.with_context(|| format!("turn {turn}"))?;
        ensure!(told["params"]["uri"] == RESOURCE, "{told}");
        if turn == 0 {
            servers[0].kill().await?;
            servers[0].start_again().await?;
            until("a call of what is back", || async {
                let mut other = fleet.client().await.ok()?;
                servers[0].echo(&mut other).await.ok()
            })
            .await?;
        }
    }
    Ok(())
}
