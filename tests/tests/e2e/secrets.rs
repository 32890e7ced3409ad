//! Secrets from a file to a backend's request, and nowhere else.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fleet_tests::{
    backend::{Backend, server::Server},
    client::{Client, Connection, get},
    fleet::{Fleet, LEGACY},
    programs::ours,
    replicas::{Plane, Replicas},
    wait::until,
};
use hyper::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use super::fleet::printed;

const FIRST: &str = "f1rst-value-of-the-token";
const SECOND: &str = "s3cond-value-of-the-token";
const THIRD: &str = "th1rd-value-of-the-token";

/// A secret whose value comes from the environment, and a backend that sends it.
fn documents(backend: &Backend) -> String {
    format!(
        "kind: Secret\nname: token\nvalue: ${{env:TOKEN_VALUE}}\nbackends: [api]\n---\n\
         kind: Backend\nname: api\nhttp:\n  url: '{}'\n  bearer_token: ${{secret:token}}\n---\n\
         kind: Backend\nname: open\nhttp: {{ url: '{}' }}\n",
        backend.at("/api"),
        backend.at("/open"),
    )
}

pub(super) fn gateway(plane: &Plane) -> String {
    format!("http://{}/mcp", plane.address)
}

/// What a backend is sent as `Authorization` with a call through a data plane.
pub(super) async fn sent(plane: &Plane, backend: &Backend) -> Result<String> {
    let mut client = Client::legacy(&gateway(plane), LEGACY).await?;
    backend.forget();
    let text = client.text("api__echo", json!({"text": "x"})).await?;
    ensure!(text == "echo:x", "{text}");
    let calls = backend.seen_of("tools/call");
    let call = calls.first().context("the call did not arrive")?;
    Ok(call.header("authorization").to_owned())
}

/// A fleet that serves [`documents`], once both backends have answered.
pub(super) async fn serving(replicas: &Replicas, backend: &Backend) -> Result<()> {
    std::fs::write(replicas.dir().join("api.yaml"), documents(backend))?;
    apply(replicas, FIRST, 0).await?;
    for plane in &replicas.planes {
        answering(plane).await?;
    }
    Ok(())
}

/// Waits until a data plane lists the tools of both backends.
pub(super) async fn answering(plane: &Plane) -> Result<()> {
    until("the backends' tools", || async {
        let mut client = Client::legacy(&gateway(plane), LEGACY).await.ok()?;
        let names = client.names("tools/list").await.ok()?;
        (names.len() == 2).then_some(())
    })
    .await
}

pub(super) async fn apply(replicas: &Replicas, value: &str, code: i32) -> Result<(String, String)> {
    let arguments = ["apply", "-f", "api.yaml", "--wait"];
    let variables = [("TOKEN_VALUE", value)];
    let done = replicas
        .mcpctl_given("", &arguments, &variables, "")
        .await?;
    let (ended, out, errors) = printed(&done);
    ensure!(ended == Some(code), "{ended:?}\n{out}\n{errors}");
    Ok((out, errors))
}

/// Everything in a folder and below.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push((path.display().to_string(), std::fs::read(&path)?));
        }
    }
    Ok(())
}

fn holds(bytes: &[u8], what: &str) -> bool {
    bytes
        .windows(what.len())
        .any(|window| window == what.as_bytes())
}

/// What anybody can see of a fleet: its files, what its programs have printed, and all
/// that its doors tell.
async fn visible(replicas: &Replicas) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    files(replicas.dir(), &mut found)?;
    found.push((
        "the control plane".into(),
        replicas.control.printed().into(),
    ));
    for plane in &replicas.planes {
        found.push((plane.name.clone(), plane.process.printed().into()));
        for path in [
            "/metrics",
            "/admin/backends",
            "/admin/configuration",
            "/readyz",
        ] {
            let (_, _, text) = get(&format!("{}{path}", plane.admin_url)).await?;
            found.push((format!("{}{path}", plane.name), text.into()));
        }
    }
    let verbs: [&[&str]; 9] = [
        &["export"],
        &["get", "secrets", "-o", "json"],
        &["get", "-o", "yaml"],
        &["describe", "secret", "token"],
        &["describe", "backend", "api"],
        &["history"],
        &["history", "secret/token"],
        &["nodes", "-o", "json"],
        &["status"],
    ];
    for verb in verbs {
        let output = replicas.mcpctl("", verb).await?;
        found.push((verb.join(" "), [output.stdout, output.stderr].concat()));
    }
    let rest = replicas.rest_url().await?;
    let token = replicas.admin_token();
    for path in [
        "secrets",
        "secrets/token",
        "resources",
        "audit",
        "revisions",
        "revisions/1?resources=true",
        "nodes",
    ] {
        let url = format!("{rest}/api/v1/{path}");
        let headers = [("authorization", format!("Bearer {token}"))];
        let mut connection = Connection::open(&url).await?;
        let answer = connection.send(Method::GET, &headers, Bytes::new()).await?;
        ensure!(answer.status == 200, "{url}: {}", answer.status);
        found.push((url, answer.body.to_vec()));
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_and_its_rotation_reach_the_backend_and_nothing_else_shows_them() -> Result<()> {
    let backend = Backend::start(Server::echo("echo").legacy()).await?;
    let mut replicas = Replicas::start(&["one"]).await?;
    replicas.add_without_state_key("two").await?;
    serving(&replicas, &backend).await?;
    let everywhere = async |value: &str| {
        for plane in &replicas.planes {
            let header = sent(plane, &backend).await?;
            ensure!(
                header == format!("Bearer {value}"),
                "{}: {header}",
                plane.name
            );
        }
        Ok(())
    };
    everywhere(FIRST).await?;
    let revision = replicas.admin().await?.revision().await?;

    // When `apply --wait` is done, both use the new value: without a new revision.
    let diff = ["diff", "-f", "api.yaml"];
    let rotated = [("TOKEN_VALUE", SECOND)];
    let (code, diff, _) = printed(&replicas.mcpctl_given("", &diff, &rotated, "").await?);
    ensure!(code == Some(1) && diff.contains("secret/token"), "{diff}");
    let (out, errors) = apply(&replicas, SECOND, 0).await?;
    ensure!(out.contains("secret/token configured"), "{out}");
    ensure!(out.contains(&format!("revision {revision}")), "{out}");
    ensure!(errors.contains("by 2 data planes"), "{errors}");
    everywhere(SECOND).await?;
    let set = ["secret", "set", "token", "--wait"];
    let input = format!("{THIRD}\n");
    let (code, set, errors) = printed(&replicas.mcpctl_given("", &set, &[], &input).await?);
    ensure!(code == Some(0), "{set}\n{errors}");
    everywhere(THIRD).await?;
    ensure!(replicas.admin().await?.revision().await? == revision);

    let mut seen = visible(&replicas).await?;
    seen.push(("diff".into(), diff.into()));
    ensure!(seen.len() > 40, "too little was looked at: {}", seen.len());
    for (place, bytes) in &seen {
        for value in [FIRST, SECOND, THIRD] {
            ensure!(!holds(bytes, value), "{place} shows {value}");
        }
    }
    // What is looked at is what there is, and the search finds a value where it is.
    for (place, what) in [
        ("fleet.db-wal", "${secret:token}"),
        ("export", "token"),
        ("one", "serving"),
    ] {
        let is_found =
            |(name, bytes): &(String, Vec<u8>)| name.contains(place) && holds(bytes, what);
        ensure!(seen.iter().any(is_found), "no {what} in {place}");
    }
    let arrived = format!("{:?}", backend.seen());
    ensure!(holds(arrived.as_bytes(), THIRD), "{arrived}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_gets_wrong_is_shown_at_its_place() -> Result<()> {
    let backend = Backend::start(Server::echo("echo").legacy()).await?;
    let replicas = Replicas::start(&[]).await?;
    let yaml = documents(&backend);
    std::fs::write(replicas.dir().join("api.yaml"), &yaml)?;
    let unset = replicas.mcpctl("", &["apply", "-f", "api.yaml"]).await?;
    let (code, _, errors) = printed(&unset);
    ensure!(code == Some(3), "{errors}");
    ensure!(
        errors.starts_with("api.yaml:3:8: ") && errors.contains("${env:TOKEN_VALUE} is not set"),
        "{errors}"
    );
    let other = yaml.replace("backends: [api]", "backends: [other]");
    std::fs::write(replicas.dir().join("api.yaml"), other)?;
    let (_, errors) = apply(&replicas, FIRST, 3).await?;
    ensure!(
        errors.starts_with("api.yaml:10:17: ") && errors.contains("does not list backend api"),
        "{errors}"
    );
    ensure!(!errors.contains(FIRST), "{errors}");
    ensure!(replicas.admin().await?.revision().await? == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_the_control_plane_has_the_secrets_under_a_state_key_only() -> Result<()>
{
    let backend = Backend::start(Server::echo("echo").legacy()).await?;
    let mut replicas = Replicas::start(&["keyed"]).await?;
    replicas.add_without_state_key("bare").await?;
    serving(&replicas, &backend).await?;
    apply(&replicas, SECOND, 0).await?;
    let mut session = Client::legacy(&gateway(&replicas.planes[1]), LEGACY).await?;
    let headers = session.headers().to_vec();
    session.text("open__echo", json!({"text": "x"})).await?;

    replicas.control.kill().await?;
    for index in 0..2 {
        replicas.planes[index].process.kill().await?;
        replicas.restart(index).await?;
    }
    let [keyed, bare] = &replicas.planes[..] else {
        anyhow::bail!("two data planes");
    };
    until("the tools of the restarted data plane", || async {
        sent(keyed, &backend).await.ok()
    })
    .await?;
    ensure!(sent(keyed, &backend).await? == format!("Bearer {SECOND}"));
    // A session of the other one: the ring was kept.
    let mut connection = Connection::open(&gateway(keyed)).await?;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let answer = connection.post(&headers, ping).await?;
    ensure!(answer.status == 200, "{answer:?}");

    // Without it: that backend alone does not work, and the node says which and why.
    let (backends_state, text) = until("the state of the backends", || async {
        let (_, _, text) = get(&format!("{}/admin/backends", bare.admin_url))
            .await
            .ok()?;
        let state: Value = serde_json::from_str(&text).ok()?;
        let open = state["backends"]
            .as_array()?
            .iter()
            .find(|b| b["name"] == "open")?;
        (open["state"] == "fresh").then(|| (state.clone(), text))
    })
    .await?;
    let api = backends_state["backends"].as_array().context("a list")?;
    let api = api
        .iter()
        .find(|b| b["name"] == "api")
        .context("the backend")?;
    ensure!(api["transport"]["kind"] == "broken", "{text}");
    let log = bare.process.printed();
    ensure!(
        log.contains("Backend api")
            && log.contains("${secret:token}")
            && log.contains("--state-key"),
        "{log}"
    );
    let mut client = Client::legacy(&gateway(bare), LEGACY).await?;
    ensure!(client.text("open__echo", json!({"text": "x"})).await? == "echo:x");
    backend.forget();
    ensure!(
        client
            .text("api__echo", json!({"text": "x"}))
            .await
            .is_err()
    );
    ensure!(backend.seen_of("tools/call").is_empty());

    // And is whole again when the control plane is back, which sees it mended.
    replicas.restart_control().await?;
    let bare = &replicas.planes[1];
    until("the secret", || async { sent(bare, &backend).await.ok() }).await?;
    let mut admin = replicas.admin().await?;
    until("a node without problems", || {
        let mut admin = admin.clone();
        async move {
            let nodes = admin.nodes().await.ok()?;
            (nodes.len() == 2 && nodes.iter().all(|n| n.degraded.is_empty())).then_some(())
        }
    })
    .await?;
    ensure!(admin.revision().await? == 1);
    for (place, bytes) in visible(&replicas).await? {
        ensure!(!holds(&bytes, FIRST) && !holds(&bytes, SECOND), "{place}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn up_and_a_file_alone_serve_secrets_too() -> Result<()> {
    let backend = Backend::start(Server::echo("echo").legacy()).await?;
    let yaml = documents(&backend).replace("${env:TOKEN_VALUE}", FIRST);
    let fleet = Fleet::start(&yaml).await?;
    fleet.offers(&["api__echo"]).await?;
    fleet
        .client()
        .await?
        .text("api__echo", json!({"text": "x"}))
        .await?;
    let call = backend.seen_of("tools/call").pop().context("no call")?;
    ensure!(call.header("authorization") == format!("Bearer {FIRST}"));
    let mut kept = Vec::new();
    files(&fleet.dir().join("data"), &mut kept)?;
    kept.push(("the log".into(), fleet.process.printed().into()));
    ensure!(kept.iter().all(|(_, bytes)| !holds(bytes, FIRST)));
    // A new value in the file is used without a new revision.
    let rotated = yaml.replace(FIRST, SECOND);
    std::fs::write(fleet.dir().join("backends.yaml"), rotated)?;
    let mut client = fleet.client().await?;
    backend.forget();
    until("the new value", || {
        let seen = backend.seen();
        let is_new = |header: &str| header == format!("Bearer {SECOND}");
        let found = seen.iter().any(|seen| is_new(seen.header("authorization")));
        async move { found.then_some(()) }
    })
    .await?;
    client.text("api__echo", json!({"text": "x"})).await?;
    drop(fleet);

    // A child has it in its environment, and may say so: the log does not.
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("value"), format!("{THIRD}\n"))?;
    let script = format!(
        "echo \"my key is $KEY\" >&2; exec {} demo-server --stdio",
        ours("mcpctl").display()
    );
    let config = json!([
        {"kind": "Secret", "name": "key", "backends": ["*"],
         "value": format!("${{file:{}/value}}", dir.path().display())},
        {"kind": "Backend", "name": "child",
         "stdio": {"command": "sh", "args": ["-c", script.replace('$', "$$")], "env": {"KEY": "${secret:key}"}}},
    ]);
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, config.to_string())?;
    let mut command = Command::new(ours("mcp-dataplane"));
    command
        .arg("--config")
        .arg(&file)
        .args(["--node-id", "alone"]);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let process = fleet_tests::process::Process::start("mcp-dataplane", command)?;
    let said = |line: &str| line.contains("my key is").then(|| line.to_owned());
    let line = process.line("what the child says", said).await?;
    ensure!(line.contains("(hidden)"), "{line}");
    let environ = until("the child's environment", || async {
        let children = fleet_tests::process::below(process.pid());
        let environs = children
            .iter()
            .filter_map(|pid| std::fs::read(format!("/proc/{pid}/environ")).ok());
        environs.into_iter().find(|environ| holds(environ, "KEY="))
    })
    .await?;
    ensure!(holds(&environ, &format!("KEY={THIRD}")));
    for pid in fleet_tests::process::below(process.pid()) {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        ensure!(!holds(&arguments, THIRD), "{pid} shows it to everybody");
    }
    ensure!(!process.printed().contains(THIRD));
    Ok(())
}
