//! `mcpctl connect`: clients that speak MCP over stdio, at a gateway.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{Backend, Seen, talker::Talker},
    fleet::Fleet,
    programs::ours,
    wait::{soon, until},
};
use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::clients::{self, CLIENTS};

/// `mcpctl connect`, and the client's ends of its pipes.
struct Bridge {
    process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Bridge {
    fn start(url: &str) -> Result<Self> {
        let mut command = Command::new(ours("mcpctl"));
        command.args(["connect", url]).kill_on_drop(true);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take().context("stdin is a pipe")?;
        let stdout = process.stdout.take().context("stdout is a pipe")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self {
            process,
            stdin,
            lines,
        })
    }

    async fn say(&mut self, message: &Value) -> Result<()> {
        let line = format!("{message}\n");
        Ok(self.stdin.write_all(line.as_bytes()).await?)
    }

    async fn hear(&mut self) -> Result<Value> {
        let line = soon("a message", self.lines.next_line()).await??;
        Ok(serde_json::from_str(&line.context("its end")?)?)
    }

    /// Opens a session of a client that can sample.
    async fn open(&mut self) -> Result<()> {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {"sampling": {}},
            "clientInfo": {"name": "test", "version": "0"},
        });
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        self.say(&message).await?;
        let opened = self.hear().await?;
        ensure!(
            opened["result"]["serverInfo"]["name"] == "mcp-fleet",
            "{opened}"
        );
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await
    }
}

fn call(id: u64, arguments: &Value) -> Value {
    let params = json!({"name": "talker__ask", "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

async fn talking() -> Result<(Talker, Backend, Fleet)> {
    let talker = Talker::default();
    let backend = Backend::start(talker.script()).await?;
    let yaml = format!(
        "kind: Backend\nname: talker\nhttp: {{ url: '{}' }}\n",
        backend.url()
    );
    let fleet = Fleet::start(&yaml).await?;
    fleet.offers(&["talker__ask"]).await?;
    Ok((talker, backend, fleet))
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_get_over_stdio_what_they_get_over_http() -> Result<()> {
    let files = tempfile::tempdir()?;
    let (_everything, servers) = clients::servers(&files).await?;
    let fleet = clients::fleet(&servers).await?;
    let over_http = json!({"url": fleet.url});
    let over_stdio = json!({"command": ours("mcpctl"), "args": ["connect", fleet.url]});
    for client in &CLIENTS {
        for server in &servers {
            let what = format!("{} with {}", client.name, server.name);
            let prefix = format!("{}__", server.name);
            let http = client.run(&server.plan(&over_http, &prefix)).await;
            let stdio = client.run(&server.plan(&over_stdio, &prefix)).await;
            let mut http = http.with_context(|| format!("{what}, over HTTP"))?;
            let mut stdio = stdio.with_context(|| format!("{what}, over stdio"))?;
            if !client.is_python() {
                is_told_as_much_as_it_hears(&what, &mut http, &mut stdio)?;
            }
            clients::same(&what, &http, &stdio)?;
        }
    }

    // Line by line: all progress, in its order and before the answer.
    let mut bridge = Bridge::start(&fleet.url)?;
    bridge.open().await?;
    let arguments = json!({"duration": 0.2, "steps": 2});
    let tool = "everything__trigger-long-running-operation";
    let params = json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": "t"}});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    bridge.say(&call).await?;
    for step in [1, 2] {
        let progress = bridge.hear().await?;
        ensure!(
            progress["params"] == json!({"progressToken": "t", "progress": step, "total": 2}),
            "{progress}"
        );
    }
    ensure!(bridge.hear().await?["id"] == 1);
    Ok(())
}

/// The TypeScript clients handle the answer at once and notifications a moment later: over stdio,
/// where both may be in one read, the last progress can come too late for them. It is taken out of
/// the comparison, after a look that what they did hear is right.
fn is_told_as_much_as_it_hears(what: &str, http: &mut Value, stdio: &mut Value) -> Result<()> {
    let take = |printed: &mut Value| match printed["progress"].take() {
        Value::Array(calls) => calls,
        _ => Vec::new(),
    };
    let (all, heard) = (take(http), take(stdio));
    let is_start = |(all, heard): (&Value, &Value)| match (all, heard) {
        (Value::Array(all), Value::Array(heard)) => all.starts_with(heard),
        _ => false,
    };
    ensure!(
        all.len() == heard.len() && all.iter().zip(&heard).all(is_start),
        "{what}: progress: over HTTP {all:?}, over stdio {heard:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_on_stdio_is_asked_and_told_and_its_session_ends_with_it() -> Result<()> {
    let (talker, backend, fleet) = talking().await?;
    let mut bridge = Bridge::start(&fleet.url)?;
    bridge.open().await?;
    let arguments = json!({"id": "q", "method": "sampling/createMessage", "params": {}});
    bridge.say(&call(1, &arguments)).await?;
    let question = bridge.hear().await?;
    ensure!(question["method"] == "sampling/createMessage", "{question}");
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"role": "user"}});
    bridge.say(&answer).await?;
    let response = bridge.hear().await?;
    ensure!(
        response["id"] == 1 && response["error"].is_null(),
        "{response}"
    );
    let text = response["result"]["content"][0]["text"].as_str();
    let told: Value = serde_json::from_str(text.context("no text")?)?;
    ensure!(told["result"] == json!({"role": "user"}), "{told}");
    // What belongs to no call comes, too.
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "x"}});
    let heard = async {
        loop {
            // Nobody says when the stream for it is open.
            talker.say(&log);
            let line = bridge.lines.next_line();
            if let Ok(line) = timeout(Duration::from_millis(50), line).await {
                return line;
            }
        }
    };
    let heard = soon("a log message", heard).await??;
    let heard: Value = serde_json::from_str(&heard.context("its end")?)?;
    ensure!(heard == log, "{heard}");

    let Bridge {
        mut process, stdin, ..
    } = bridge;
    drop(stdin);
    let status = soon("the end of mcpctl", process.wait()).await??;
    ensure!(status.success(), "{status}");
    until("the end of the backend's session", || async {
        let ended = |seen: &Seen| seen.http == Method::DELETE;
        backend.seen().iter().any(ended).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_at_once_is_cancelled_at_the_backend() -> Result<()> {
    let (_talker, backend, fleet) = talking().await?;
    let mut bridge = Bridge::start(&fleet.url)?;
    bridge.open().await?;
    for id in 1..=10 {
        let params = json!({"name": "talker__wait", "arguments": {}});
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        bridge.say(&call).await?;
        let method = "notifications/cancelled";
        let cancelled = json!({"jsonrpc": "2.0", "method": method, "params": {"requestId": id}});
        bridge.say(&cancelled).await?;
    }
    until("all to be cancelled", || async {
        (backend.seen_of("notifications/cancelled").len() == 10).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_reached_and_who_refuses_is_said_in_an_answer() -> Result<()> {
    let (_talker, _backend, fleet) = talking().await?;
    let mut bridge = Bridge::start(&fleet.at("/nowhere"))?;
    bridge.say(&call(1, &json!({}))).await?;
    let refused = bridge.hear().await?;
    ensure!(refused["id"] == 1, "{refused}");
    let what = refused["error"]["message"].as_str();
    ensure!(
        what.is_some_and(|w| w.contains("no gateway at this path")),
        "{refused}"
    );

    let gone = fleet.url.clone();
    fleet.stop().await?;
    let mut bridge = Bridge::start(&gone)?;
    bridge.say(&call(2, &json!({}))).await?;
    let unreachable = bridge.hear().await?;
    ensure!(unreachable["id"] == 2, "{unreachable}");
    let what = unreachable["error"]["message"].as_str();
    ensure!(
        what.is_some_and(|w| w.contains("cannot reach")),
        "{unreachable}"
    );
    Ok(())
}
