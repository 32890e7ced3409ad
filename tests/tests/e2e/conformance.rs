//! The official conformance suite against the reference server, directly and through a gateway
//! with bare names. What may be lost on the way is listed in docs/conformance.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    fleet::Fleet,
    process::Process,
    programs::{here, installed, node, python, root},
    wait::soon,
};
use serde_json::Value;
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

/// Scenarios in which checks may be lost until their features are built.
const UNBUILT: [&str; 6] = [
    "tools-call-sampling:",
    "tools-call-elicitation:",
    "elicitation-",
    "tools-call-with-logging:",
    "server-sse-polling:",
    "input-required-result-",
];
const UNBUILT_CHECKS: [&str; 7] = [
    "resources-subscribe:",
    "resources-unsubscribe:",
    "server-stateless:sep-2575-server-honors-notification-filter",
    "server-stateless:sep-2575-server-sends-prompts-list-changed-on-subscription",
    "server-stateless:sep-2575-server-sends-subscription-ack",
    "server-stateless:sep-2575-server-sends-tools-list-changed-on-subscription",
    "server-stateless:sep-2575-server-tags-subscription-id",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_server_loses_nothing_directly() -> Result<()> {
    let (_server, url) = reference().await?;
    for run in &RUNS {
        let (lost, _) = lost(run, &url).await?;
        ensure!(
            lost.is_empty(),
            "{}: the kit itself loses {lost:#?}",
            run.name
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_gateway_exactly_the_listed_checks_are_lost() -> Result<()> {
    let (_server, url) = reference().await?;
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: reference\nhttp: {{ url: '{url}' }}\n---\n\
         kind: Gateway\nname: default\npath: /mcp\nbare_names: true\n"
    ))
    .await?;
    fleet.offers(&["test_simple_text"]).await?;
    let document = fs::read_to_string(root().join("docs/conformance.md"))?;
    let mut wrong = Vec::new();
    for run in &RUNS {
        let listed = listed(&document, run.name)?;
        let (lost, why) = lost(run, &fleet.url).await?;
        for check in lost.difference(&listed) {
            let why = why.get(check).map_or("not run", String::as_str);
            wrong.push(format!("{}: lost and not listed: {check}: {why}", run.name));
        }
        for check in listed.difference(&lost) {
            wrong.push(format!(
                "{}: no longer lost, take it off the list: {check}",
                run.name
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn the_list_holds_only_what_is_not_built_yet() -> Result<()> {
    let document = fs::read_to_string(root().join("docs/conformance.md"))?;
    for run in &RUNS {
        for check in listed(&document, run.name)? {
            let allowed = UNBUILT
                .iter()
                .chain(&UNBUILT_CHECKS)
                .any(|p| check.starts_with(p));
            ensure!(allowed, "{}: may not be lost: {check}", run.name);
        }
    }
    Ok(())
}

/// The checks listed as lost: the fenced block under the heading `## Lost: NAME`.
fn listed(document: &str, name: &str) -> Result<BTreeSet<String>> {
    let heading = format!("\n## Lost: {name}\n");
    let (_, section) = document
        .split_once(&heading)
        .with_context(|| format!("no{heading}"))?;
    let block = section
        .split("```")
        .nth(1)
        .context("no fenced block under the heading")?;
    let block = block
        .strip_prefix("text\n")
        .context("the block is not `text`")?;
    Ok(block.lines().map(str::to_owned).collect())
}

async fn reference() -> Result<(Process, String)> {
    let mut command = Command::new(python());
    command
        .arg("-u")
        .arg(here("conformance/reference_server.py"));
    let server = Process::start("the reference server", command)?;
    let url = server
        .line("its URL", |l| {
            Some(l.strip_prefix("reference: ")?.to_owned())
        })
        .await?;
    Ok((server, url))
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
