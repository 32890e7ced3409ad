//! Log messages of backends of the revisions with sessions: each client is told as much as it has
//! asked for.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use fleet_tests::{
    backend::{
        Backend,
        talker::{SEVERITIES, Talker},
    },
    client::Client,
    fleet::{Fleet, LEGACY},
    programs::{here, python},
    wait::until,
};
use serde_json::{Value, json};

/// A fleet with a backend over HTTP, `http`, and one behind one connection, `child`.
struct Logging {
    http: Backend,
    fleet: Fleet,
    /// What the child has read.
    seen: PathBuf,
    _dir: tempfile::TempDir,
}

async fn logging() -> Result<Logging> {
    let http = Backend::start(Talker::default().script()).await?;
    let dir = tempfile::tempdir()?;
    let seen = dir.path().join("seen");
    let child = json!({"command": python(), "args": [here("servers/asking.py"), seen]});
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: http\nhttp: {{ url: '{}' }}\n---\n\
         kind: Backend\nname: child\nstdio: {child}\n",
        http.url(),
    ))
    .await?;
    fleet.offers(&["http__log", "child__log"]).await?;
    Ok(Logging {
        http,
        fleet,
        seen,
        _dir: dir,
    })
}

/// The severities of what a client is told in a call; `level` is that of the call.
async fn told(client: &mut Client, backend: &str, level: Option<&str>) -> Result<Vec<String>> {
    let mut params = json!({"name": format!("{backend}__log"), "arguments": {}});
    if let Some(level) = level {
        params["_meta"]["io.modelcontextprotocol/logLevel"] = json!(level);
    }
    let answer = client.post("tools/call", Some(params), None).await?;
    let messages = answer.messages()?;
    ensure!(
        messages
            .last()
            .is_some_and(|last| last["result"].is_object()),
        "{answer:?}"
    );
    let logs = messages
        .iter()
        .filter(|message| message["method"] == "notifications/message");
    let level = |log: &Value| {
        log["params"]["level"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    Ok(logs.map(level).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_new_era_is_told_what_each_call_asks_for() -> Result<()> {
    let logging = logging().await?;
    for backend in ["http", "child"] {
        for able in [json!({}), json!({"roots": {}})] {
            let mut client = Client::modern(&logging.fleet.url).await?;
            client.capabilities = able;
            for (level, least) in [
                (None, 8),
                (Some("error"), 4),
                (Some("debug"), 0),
                (Some("warning"), 3),
                (None, 8),
            ] {
                let told = told(&mut client, backend, level).await?;
                ensure!(
                    told == SEVERITIES[least..],
                    "{backend}, {level:?}: {told:?}"
                );
            }
        }
    }
    // One session is shared, the other one has one call at a time.
    let set = logging.http.seen_of("logging/setLevel");
    let set: Vec<_> = set
        .iter()
        .map(|seen| seen.message["params"]["level"].clone())
        .collect();
    let expected = ["error", "debug", "error", "debug", "warning"];
    ensure!(set == expected.map(Value::from), "{set:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_what_it_asks_for_whatever_others_do() -> Result<()> {
    let logging = logging().await?;
    let url = &logging.fleet.url;
    let mut quiet = Client::legacy(url, LEGACY).await?;
    // The backend's own level.
    ensure!(told(&mut quiet, "child", None).await? == SEVERITIES[3..]);
    let mut loud = Client::legacy(url, LEGACY).await?;
    loud.request("logging/setLevel", json!({"level": "debug"}))
        .await?;
    let mut few = Client::legacy(url, LEGACY).await?;
    few.request("logging/setLevel", json!({"level": "alert"}))
        .await?;
    for _ in 0..2 {
        ensure!(told(&mut loud, "child", None).await? == SEVERITIES);
        ensure!(told(&mut few, "child", None).await? == SEVERITIES[6..]);
        ensure!(told(&mut quiet, "child", None).await? == SEVERITIES[1..]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_of_another_call_is_told_to_nobody() -> Result<()> {
    let logging = logging().await?;
    let mut other = Client::modern(&logging.fleet.url).await?;
    let waits = tokio::spawn(async move { other.call("child__wait", json!({})).await });
    until("the other call at the backend", || async {
        let seen = std::fs::read_to_string(&logging.seen).unwrap_or_default();
        seen.contains("tools/call").then_some(())
    })
    .await?;
    let mut client = Client::modern(&logging.fleet.url).await?;
    ensure!(told(&mut client, "child", Some("debug")).await?.is_empty());
    waits.abort();
    Ok(())
}
