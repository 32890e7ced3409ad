//! The official conformance suite against the reference server, directly and through a gateway:
//! with bare names, and with the default prefix, which a program between takes off again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{Backend, server::Server},
    fleet::Fleet,
    process::Process,
    programs::{here, installed, node, python},
    wait::soon,
};
use serde_json::{Value, json};
use tokio::process::Command;

/// A suite, the revision it is run for and the name of both in baselines and in the document.
struct Run {
    suite: &'static str,
    revision: &'static str,
    name: &'static str,
}

const NEW: &str = "conformance";
const STABLE: &str = "conformance-stable";
const RUNS: [Run; 5] = [
    Run {
        suite: NEW,
        revision: "2025-06-18",
        name: "2025-06-18",
    },
    Run {
        suite: NEW,
        revision: "2025-11-25",
        name: "2025-11-25",
    },
    Run {
        suite: NEW,
        revision: "2026-07-28",
        name: "2026-07-28",
    },
    Run {
        suite: STABLE,
        revision: "2025-06-18",
        name: "stable-2025-06-18",
    },
    Run {
        suite: STABLE,
        revision: "2025-11-25",
        name: "stable-2025-11-25",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_server_loses_nothing_directly() -> Result<()> {
    let (_server, url) = reference().await?;
    nothing_is_lost(&url).await
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_gateway_with_bare_names_nothing_is_lost() -> Result<()> {
    let (_server, url) = reference().await?;
    let fleet = Fleet::start(&format!(
        "{}---\nkind: Gateway\nname: default\npath: /mcp\nbare_names: true\n",
        backend(&url)
    ))
    .await?;
    fleet.offers(&["test_simple_text"]).await?;
    nothing_is_lost(&fleet.url).await
}

/// The reference server is one of several backends here, of both eras.
#[tokio::test(flavor = "multi_thread")]
async fn through_a_gateway_with_the_default_prefix_nothing_is_lost() -> Result<()> {
    let (_server, url) = reference().await?;
    // They come behind the reference server in every list.
    let other = |name| {
        let tools = json!({"tools": [{
            "name": "echo", "description": "Echoes.", "inputSchema": {"type": "object"}}]});
        Server::echo(name).lists("tools/list", tools)
    };
    let old = Backend::start(other("x-old").legacy()).await?;
    let new = Backend::start(other("x-new").modern()).await?;
    let (of_old, of_new) = (old.url(), new.url());
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: x-new\nhttp: {{ url: '{of_new}' }}\n---\n\
         kind: Backend\nname: x-old\nhttp: {{ url: '{of_old}' }}\n---\n{}",
        backend(&url)
    ))
    .await?;
    let all = ["reference__test_simple_text", "x-old__echo", "x-new__echo"];
    fleet.offers(&all).await?;
    let mut command = Command::new(node());
    command
        .arg(here("conformance/bare.mjs"))
        .args([&fleet.url, "reference__"]);
    let (_between, url) = printing("bare: ", command).await?;
    nothing_is_lost(&url).await
}

fn backend(url: &str) -> String {
    format!("kind: Backend\nname: reference\nhttp: {{ url: '{url}' }}\n")
}

/// Runs the suites and compares with what succeeds directly, as far as that is known.
async fn nothing_is_lost(url: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for run in &RUNS {
        let (lost, why) = lost(run, url).await?;
        for check in &lost {
            let why = why.get(check).map_or("not run", String::as_str);
            wrong.push(format!("{}: lost: {check}: {why}", run.name));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

pub(super) async fn reference() -> Result<(Process, String)> {
    let mut command = Command::new(python());
    command
        .arg("-u")
        .arg(here("conformance/reference_server.py"));
    printing("reference: ", command).await
}

/// Starts a program that prints its URL behind this.
async fn printing(label: &'static str, command: Command) -> Result<(Process, String)> {
    let process = Process::start(label, command)?;
    let url = |line: &str| Some(line.strip_prefix(label)?.to_owned());
    let url = process.line("its URL", url).await?;
    Ok((process, url))
}

/// The checks of the baseline that do not succeed, and what the suite says about those it ran.
async fn lost(run: &Run, url: &str) -> Result<(BTreeSet<String>, BTreeMap<String, String>)> {
    let out = tempfile::tempdir()?;
    let cli = "node_modules/@modelcontextprotocol/conformance/dist/index.js";
    let mut command = Command::new(node());
    command
        .arg(installed(&format!("{}/{cli}", run.suite)))
        .args(["server", "--url", url]);
    command
        .args(["--suite", "all", "--spec-version", run.revision, "-o"])
        .arg(out.path());
    // It fails when any check fails: the checks themselves say which.
    soon(
        "the end of the conformance suite",
        command.kill_on_drop(true).output(),
    )
    .await??;
    let checks = checks(out.path())?;
    let baseline = here(&format!("conformance/baselines/{}.txt", run.name));
    let baseline = fs::read_to_string(baseline)?;
    let succeeded = |id: &str| {
        checks
            .get(id)
            .is_some_and(|(status, _)| status == "SUCCESS")
    };
    let lost: BTreeSet<_> = baseline
        .lines()
        .filter(|id| !succeeded(id))
        .map(str::to_owned)
        .collect();
    let of_lost = |id: &String| {
        id.split(':')
            .next()
            .is_some_and(|s| lost.iter().any(|l| l.split(':').next() == Some(s)))
    };
    for (id, (status, message)) in &checks {
        ensure!(
            status != "FAILURE" || of_lost(id),
            "{}: {id} fails: {message}",
            run.name
        );
    }
    let why = checks
        .into_iter()
        .map(|(id, (status, why))| (id, format!("{status} {why}")));
    Ok((lost, why.collect()))
}

/// Every check of a run: `scenario:check`, repeats numbered, with its status and message.
fn checks(out: &Path) -> Result<BTreeMap<String, (String, String)>> {
    let mut checks = BTreeMap::new();
    for entry in fs::read_dir(out)? {
        let entry = entry?;
        let folder = entry.file_name().to_string_lossy().into_owned();
        // server-SCENARIO-2026-01-01T00-00-00-000Z
        let Some(scenario) = folder.strip_prefix("server-") else {
            continue;
        };
        let end = scenario
            .rfind('T')
            .and_then(|t| t.checked_sub(11))
            .context("no time in it")?;
        let scenario = &scenario[..end];
        let Ok(text) = fs::read_to_string(entry.path().join("checks.json")) else {
            checks.insert(
                format!("{scenario}:finished"),
                ("FAILURE".into(), "no checks".into()),
            );
            continue;
        };
        let mut repeats = BTreeMap::<String, u32>::new();
        for check in serde_json::from_str::<Vec<Value>>(&text)? {
            let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            let id = format!("{scenario}:{}", text("id"));
            let repeat = repeats.entry(id.clone()).or_default();
            *repeat += 1;
            let id = if *repeat > 1 {
                format!("{id}#{repeat}")
            } else {
                id
            };
            checks.insert(id, (text("status"), text("errorMessage")));
        }
    }
    ensure!(!checks.is_empty(), "the suite ran nothing");
    Ok(checks)
}
