//! Sessions of the older era on any data plane: three that have joined, behind a balancer without
//! affinity.

use std::{
    collections::BTreeSet,
    ops::{Deref, DerefMut},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fleet_tests::{
    backend::{Backend, server::Server},
    balancer::Balancer,
    client::{Client, Connection, get},
    fleet::LEGACY,
    process::Process,
    programs::{here, python},
    secured::{Member, Secured},
    store::Store,
    wait::until,
};
use hyper::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;
use tokio::{process::Command, sync::Notify};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// What the data planes keep their session keys under.
const STATE_KEY: &str = "6b9d4f3c2a1e58070f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778";

/// Three data planes that have joined a fleet.
pub(super) struct Joined {
    fleet: Secured,
    pub(super) nodes: Vec<Member>,
}

impl Joined {
    /// With this configuration.
    pub(super) async fn before(yaml: &str) -> Result<Self> {
        let fleet = Secured::start(Store::Sqlite, &[]).await?;
        std::fs::write(fleet.dir().join("state.key"), STATE_KEY)?;
        let mut nodes = Vec::new();
        for id in NODES {
            let token = fleet.token(&format!("{id}.token"), &[]).await?;
            nodes.push(plane(&fleet, id, Some(&token), "127.0.0.1:0").await?);
        }
        for id in NODES {
            fleet.until_state(id, "SYNCED").await?;
        }
        let file = fleet.dir().join("fleet.yaml");
        std::fs::write(&file, yaml)?;
        let file = file.to_string_lossy().into_owned();
        fleet.done(&["apply", "--wait", "-f", &file]).await?;
        for node in &nodes {
            peers(node, 2).await?;
        }
        Ok(Self { fleet, nodes })
    }

    pub(super) fn url(&self, node: usize) -> String {
        format!("http://{}/mcp", self.nodes[node].address)
    }

    /// nginx before them, without affinity.
    pub(super) async fn balancer(&self) -> Result<Balancer> {
        let addresses: Vec<_> = self.nodes.iter().map(|n| n.address.as_str()).collect();
        Balancer::nginx_before(&addresses).await
    }

    /// Starts a killed one again, where it was.
    pub(super) async fn restart(&mut self, node: usize) -> Result<()> {
        let address = self.nodes[node].address.clone();
        self.nodes[node] = plane(&self.fleet, NODES[node], None, &address).await?;
        Ok(())
    }
}

/// Three data planes before an HTTP and a stdio backend of the older era.
pub(super) struct Three {
    joined: Joined,
    http: Backend,
    /// Lets the tool `held` answer.
    go_on: Arc<Notify>,
}

impl Deref for Three {
    type Target = Joined;

    fn deref(&self) -> &Joined {
        &self.joined
    }
}

impl DerefMut for Three {
    fn deref_mut(&mut self) -> &mut Joined {
        &mut self.joined
    }
}

impl Three {
    async fn start() -> Result<Self> {
        Self::with("").await
    }

    /// With more documents in its configuration.
    pub(super) async fn with(more: &str) -> Result<Self> {
        let go_on = Arc::new(Notify::new());
        let held = go_on.clone();
        let server = Server::echo("http").tool("held", move |_| {
            let held = held.clone();
            async move {
                held.notified().await;
                "went on".to_owned()
            }
        });
        let http = Backend::start(server.legacy()).await?;
        let stdio = json!({"command": python(), "args": [here("servers/pid.py")]});
        let yaml = format!(
            "kind: Backend\nname: http\nhttp: {{ url: '{}' }}\n---\n\
             kind: Backend\nname: child\nstdio: {stdio}\n{more}",
            http.url()
        );
        Ok(Self {
            joined: Joined::before(&yaml).await?,
            http,
            go_on,
        })
    }

    /// The upstream sessions in which tools of the HTTP backend were called.
    fn sessions(&self) -> BTreeSet<String> {
        let calls = self.http.seen_of("tools/call").into_iter();
        calls
            .map(|s| s.header("mcp-session-id").to_owned())
            .collect()
    }
}

async fn plane(fleet: &Secured, id: &str, token: Option<&Path>, at: &str) -> Result<Member> {
    let key = fleet.dir().join("state.key");
    let key = key.to_string_lossy();
    let peers = ["--peer-listen", "127.0.0.1:0"];
    let others = ["--allow", "stdio", "--state-key", &key];
    let arguments = [&peers[..], &others].concat();
    fleet.node_at(id, token, at, &arguments).await
}

pub(super) async fn metric(node: &Member, line: &str) -> Option<u64> {
    let (_, _, text) = get(&format!("{}/metrics", node.admin_url)).await.ok()?;
    let value = text.lines().find_map(|l| l.strip_prefix(line));
    value?.trim().parse().ok()
}

/// Waits until a data plane reaches so many others.
pub(super) async fn peers(node: &Member, count: u64) -> Result<()> {
    until(&format!("{count} peers"), || async {
        let reached = metric(node, r#"mcp_fleet_peers{reached="yes"}"#).await;
        (reached == Some(count)).then_some(())
    })
    .await
}

/// The same client at another data plane.
pub(super) async fn post(
    url: &str,
    client: &Client,
    method: &str,
    params: serde_json::Value,
) -> Result<fleet_tests::client::Answer> {
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    let mut connection = Connection::open(url).await?;
    connection.post(client.headers(), body.to_string()).await
}

async fn call(url: &str, client: &Client, tool: &str) -> Result<String> {
    let params = json!({"name": tool, "arguments": {"text": "x"}});
    let answer = post(url, client, "tools/call", params).await?;
    let message = answer.response()?;
    let text = message["result"]["content"][0]["text"].as_str();
    Ok(text.with_context(|| format!("{answer:?}"))?.to_owned())
}

pub(super) async fn delete(url: &str, client: &Client) -> Result<StatusCode> {
    let mut connection = Connection::open(url).await?;
    let answer = connection.send(Method::DELETE, client.headers(), Bytes::new());
    Ok(answer.await?.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_one_session_at_each_backend_whatever_data_plane_its_requests_reach()
-> Result<()> {
    let three = Three::start().await?;
    let balancer = three.balancer().await?;
    let mut client = Client::legacy(&balancer.url, LEGACY).await?;
    let mut children = BTreeSet::new();
    for turn in 0..12 {
        let text = client
            .text("http__echo", json!({"text": turn.to_string()}))
            .await?;
        ensure!(text == format!("http:{turn}"), "{text}");
        children.insert(client.text("child__pid", json!({})).await?);
        if turn % 2 == 0 {
            // Not in step with the balancer: each call meets each data plane.
            ensure!(client.names("tools/list").await?.len() == 3);
        }
    }
    ensure!(three.sessions().len() == 1, "{:?}", three.sessions());
    ensure!(children.len() == 1, "answered by {children:?}");
    let mut relayed = 0;
    for node in &three.nodes {
        relayed += metric(node, "mcp_fleet_relayed_total ").await.unwrap_or(0);
    }
    ensure!(
        relayed >= 12,
        "{relayed} of 24 calls came to another data plane"
    );
    let told = three.joined.fleet.done(&["describe", "node", "n1"]).await?;
    ensure!(told.contains("Peers:        127.0.0.1:"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_data_plane_costs_the_calls_held_there_and_no_session() -> Result<()> {
    let mut three = Three::start().await?;
    let balancer = three.balancer().await?;
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(Client::legacy(&balancer.url, LEGACY).await?);
    }
    // Sessions of the one that is killed, and a call of one of them held there.
    let at_home = Client::legacy(&three.url(0), LEGACY).await?;
    let held = {
        let (url, headers) = (three.url(1), at_home.headers().to_vec());
        let params = json!({"name": "http__held", "arguments": {}});
        let body = json!({"jsonrpc": "2.0", "id": "h", "method": "tools/call", "params": params});
        tokio::spawn(async move {
            let mut connection = Connection::open(&url).await?;
            connection.post(&headers, body.to_string()).await
        })
    };
    let is_held = |seen: &fleet_tests::backend::Seen| seen.message["params"]["name"] == "held";
    until("the held call", || async {
        let calls = three.http.seen_of("tools/call");
        calls.iter().any(is_held).then_some(())
    })
    .await?;
    three.nodes[0].process.kill().await?;
    let lost = held.await??.response()?;
    ensure!(
        lost["id"] == "h" && lost["error"]["code"] == -31010,
        "{lost}"
    );
    for round in 0..2 {
        for (turn, client) in clients.iter_mut().enumerate() {
            for _ in 0..4 {
                let text = client.text("http__echo", json!({"text": "x"})).await;
                let text = text.with_context(|| format!("round {round}, client {turn}"))?;
                ensure!(text == "http:x");
                client.text("child__pid", json!({})).await?;
            }
        }
        // Its sessions are taken by one of the others, the same for both.
        if round == 0 {
            three.http.forget();
            for node in [1, 2, 1, 2] {
                ensure!(call(&three.url(node), &at_home, "http__echo").await? == "http:x");
            }
            ensure!(three.sessions().len() == 1, "{:?}", three.sessions());
            three.restart(0).await?;
            for node in &three.nodes {
                peers(node, 2).await?;
            }
        }
    }
    three.go_on.notify_waiters();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ended_at_one_data_plane_is_over_at_all_and_stays_so_without_its_home()
-> Result<()> {
    let mut three = Three::start().await?;
    let client = Client::legacy(&three.url(0), LEGACY).await?;
    for node in 0..3 {
        ensure!(call(&three.url(node), &client, "http__echo").await? == "http:x");
    }
    ensure!(delete(&three.url(1), &client).await? == StatusCode::NO_CONTENT);
    let params = || json!({"name": "http__echo", "arguments": {"text": "x"}});
    for node in 0..3 {
        let answer = post(&three.url(node), &client, "tools/call", params()).await?;
        ensure!(answer.status == StatusCode::NOT_FOUND, "{node}: {answer:?}");
    }
    // Also what any node answers by itself, as soon as it has heard.
    until("the end of the session on the third", || async {
        let list = post(&three.url(2), &client, "tools/list", json!({})).await;
        (list.ok()?.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await?;
    // The upstream session has ended with it.
    until("DELETE at the backend", || async {
        let seen = three.http.seen();
        seen.iter().any(|s| s.http == Method::DELETE).then_some(())
    })
    .await?;
    three.nodes[0].process.kill().await?;
    three.nodes[1].process.kill().await?;
    three.restart(1).await?;
    peers(&three.nodes[1], 1).await?;
    for node in [1, 2] {
        until("404 from who was not there", || async {
            let answer = post(&three.url(node), &client, "tools/call", params()).await;
            (answer.ok()?.status == StatusCode::NOT_FOUND).then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_that_hangs_loses_its_sessions_until_it_is_back() -> Result<()> {
    let three = Three::start().await?;
    let client = Client::legacy(&three.url(0), LEGACY).await?;
    ensure!(call(&three.url(1), &client, "http__echo").await? == "http:x");
    let at_home = three.sessions();
    three.nodes[0].process.signal(Signal::STOP)?;
    // What is sent to it is held, until it has answered nothing for too long.
    for node in [1, 2] {
        until("an answer of another one", || async {
            let text = call(&three.url(node), &client, "http__echo").await;
            (text.ok()? == "http:x").then_some(())
        })
        .await?;
    }
    three.http.forget();
    for node in [1, 2] {
        ensure!(call(&three.url(node), &client, "http__echo").await? == "http:x");
    }
    let elsewhere = three.sessions();
    ensure!(
        elsewhere.len() == 1 && elsewhere != at_home,
        "{elsewhere:?}"
    );
    three.nodes[0].process.signal(Signal::CONT)?;
    for node in &three.nodes {
        peers(node, 2).await?;
    }
    three.http.forget();
    for node in 0..3 {
        ensure!(call(&three.url(node), &client, "http__echo").await? == "http:x");
    }
    ensure!(three.sessions() == at_home, "{:?}", three.sessions());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_have_their_homes_while_the_control_plane_is_gone() -> Result<()> {
    let mut three = Three::start().await?;
    let client = Client::legacy(&three.url(0), LEGACY).await?;
    ensure!(call(&three.url(0), &client, "http__echo").await? == "http:x");
    three.joined.fleet.control.kill().await?;
    // One that starts from disk knows its peers from there.
    three.nodes[1].process.kill().await?;
    three.restart(1).await?;
    peers(&three.nodes[1], 2).await?;
    for node in [1, 2] {
        ensure!(call(&three.url(node), &client, "http__echo").await? == "http:x");
    }
    ensure!(three.sessions().len() == 1, "{:?}", three.sessions());
    ensure!(delete(&three.url(2), &client).await? == StatusCode::NO_CONTENT);
    for node in 0..3 {
        until("404 of a list", || async {
            let list = post(&three.url(node), &client, "tools/list", json!({})).await;
            (list.ok()?.status == StatusCode::NOT_FOUND).then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_another_principal_is_found_on_no_data_plane() -> Result<()> {
    let three = Three::with(
        "---\nkind: Gateway\nname: default\npath: /mcp\nbackends: ['*']\nauth: two\n---\n\
         kind: AuthPolicy\nname: two\nbearer: { tokens: [token-of-one, token-of-another] }\n",
    )
    .await?;
    let own = Client::legacy_with_token(&three.url(0), LEGACY, Some("token-of-one")).await?;
    let params = json!({"name": "http__echo", "arguments": {"text": "x"}});
    for node in 0..3 {
        ensure!(call(&three.url(node), &own, "http__echo").await? == "http:x");
        let mut headers = own.headers().to_vec();
        for (name, value) in &mut headers {
            if *name == "authorization" {
                *value = "Bearer token-of-another".to_owned();
            }
        }
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
        let mut connection = Connection::open(&three.url(node)).await?;
        let answer = connection.post(&headers, body.to_string()).await?;
        ensure!(answer.status == StatusCode::NOT_FOUND, "{node}: {answer:?}");
        // Nor can it end it.
        let answer = connection
            .send(Method::DELETE, &headers, Bytes::new())
            .await?;
        ensure!(answer.status == StatusCode::NOT_FOUND, "{node}: {answer:?}");
    }
    ensure!(call(&three.url(1), &own, "http__echo").await? == "http:x");
    // What the data planes tell each other is no credential to a client.
    let seen = three.http.seen();
    let ours = |seen: &fleet_tests::backend::Seen| {
        seen.headers
            .keys()
            .any(|name| name.as_str().starts_with("mcp-fleet-"))
    };
    ensure!(
        !seen.iter().any(ours),
        "headers of ours have reached a backend"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_nodes_of_the_fleet_comes_to_a_peer_listener() -> Result<()> {
    let fleet = Secured::start(Store::Sqlite, &[]).await?;
    let token = fleet.token("n1.token", &[]).await?;
    let node = fleet.node("n1", Some(&token)).await?;
    let shown = fleet.until_state("n1", "SYNCED").await?;
    let address = shown["peer_address"].as_str().context("an address")?;
    let other = Secured::start(Store::Sqlite, &[]).await?;
    let token = other.token("n9.token", &[]).await?;
    let _foreign = other.node("n9", Some(&token)).await?;
    other.until_state("n9", "SYNCED").await?;
    let foreign = other.identity("n9").to_string_lossy().into_owned();
    let refusals = || {
        node.process
            .printed()
            .matches("is no node of this fleet")
            .count()
    };
    for (turn, shown) in [vec![], vec!["-cert", &foreign, "-key", &foreign]]
        .iter()
        .enumerate()
    {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-connect", address, "-alpn", "h2", "-tls1_3"])
            .args(shown);
        let mut client = Process::start("openssl", command)?;
        client.ended().await?;
        until("the refusal", || async {
            (refusals() > turn).then_some(())
        })
        .await?;
    }
    // Without TLS nothing is answered.
    ensure!(get(&format!("http://{address}/ended")).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_listener_that_is_asked_for_needs_a_certificate() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("backends.yaml");
    std::fs::write(
        &config,
        "kind: Backend\nname: a\nhttp: { url: 'http://127.0.0.1:1/' }\n",
    )?;
    let mut command = Command::new(fleet_tests::programs::ours("mcp-dataplane"));
    command.arg("--config").arg(&config);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--peer-listen", "127.0.0.1:0"]);
    let mut process = Process::start("mcp-dataplane", command)?;
    ensure!(process.ended().await? != 0);
    let why = |line: &str| line.contains("has no certificate").then_some(());
    process.line("why", why).await
}
