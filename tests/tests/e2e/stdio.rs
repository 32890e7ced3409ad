//! Backends that are child processes: large messages both ways at once, and no process left behind.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use fleet_proto::v1::{Backend, StdioBackend, backend::Transport};
use fleet_tests::{
    admin::resource,
    fleet::{Fleet, Split},
    process::{kill, runs},
    programs::{here, python},
    wait::until,
};
use futures_util::future::try_join_all;
use serde_json::json;

async fn fleet(pids: &Path) -> Result<Fleet> {
    let stdio = json!({"command": python(), "args": [here("servers/stdio.py"), pids]});
    let yaml = format!("kind: Backend\nname: big\ntimeout: 60s\nstdio: {stdio}\n");
    let fleet = Fleet::start(&yaml).await?;
    fleet.offers(&["big__inflate"]).await?;
    Ok(fleet)
}

/// What the server has recorded, by role.
fn recorded(pids: &Path) -> Option<BTreeMap<String, u32>> {
    let text = std::fs::read_to_string(pids).ok()?;
    let lines = text.lines().map(|line| {
        let (role, pid) = line.split_once(' ')?;
        Some((role.to_owned(), pid.parse().ok()?))
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_calls_at_once_with_300_kb_arguments_and_1_mb_results_finish() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let fleet = fleet(&dir.path().join("pids")).await?;
    const SIZE: usize = 1 << 20;
    let calls = (0..4).map(|turn| {
        let fleet = &fleet;
        async move {
            let mut client = fleet.client().await?;
            let mut digests = Vec::new();
            for round in 0..5 {
                let text = format!("{turn}.{round}.").repeat(300 * 1024 / 4);
                let arguments = json!({"text": text, "size": SIZE});
                let answer = client.text("big__inflate", arguments).await?;
                ensure!(
                    answer.len() == 64 + SIZE,
                    "{} bytes came back",
                    answer.len()
                );
                digests.push((text, answer[..64].to_owned()));
            }
            Ok(digests)
        }
    });
    for (text, digest) in try_join_all(calls).await?.into_iter().flatten() {
        ensure!(digest == sha256(&text)?, "a call got another call's answer");
    }
    ensure!(fleet.stop().await? == 0);
    Ok(())
}

/// The digest, by the program that the server's own came from as well.
fn sha256(text: &str) -> Result<String> {
    use std::{io::Write, process::*};
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("stdin is piped")?
        .write_all(text.as_bytes())?;
    let output = String::from_utf8(child.wait_with_output()?.stdout)?;
    Ok(output.chars().take(64).collect())
}

/// The processes of the backend: what runs the server, the server, and what that has started.
const ROLES: [&str; 4] = ["parent", "server", "child", "apart"];

/// A data plane of its own that runs the server, and what the server has recorded.
async fn data_plane(pids: &Path, arguments: &[&str]) -> Result<(Split, BTreeMap<String, u32>)> {
    let split = Split::start_with(arguments).await?;
    let mut admin = split.admin().await?;
    let transport = StdioBackend {
        command: python().display().to_string(),
        args: vec![
            here("servers/stdio.py").display().to_string(),
            pids.display().to_string(),
        ],
        ..StdioBackend::default()
    };
    let backend = Backend {
        name: "big".to_owned(),
        transport: Some(Transport::Stdio(transport)),
        ..Backend::default()
    };
    let revision = admin.apply(vec![resource(backend)]).await?.revision;
    admin.acked(revision).await?;
    let all = until("the pids of the server", || async {
        recorded(pids).filter(|all| all.contains_key("ready"))
    });
    let all = all.await.with_context(|| split.data.printed())?;
    Ok((split, all))
}

async fn all_gone(all: &BTreeMap<String, u32>) -> Result<()> {
    until("the end of every process of the backend", || async {
        ROLES.iter().all(|role| !runs(all[*role])).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_data_plane_leaves_no_process_behind() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut split, all) = data_plane(&dir.path().join("pids"), &[]).await?;
    ensure!(
        ROLES.iter().all(|role| runs(all[*role])),
        "they do not all run: {all:?}"
    );
    ensure!(all["parent"] != split.data.pid(), "the server has no guard");
    split.data.kill().await?;
    all_gone(&all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_up_leaves_no_process_behind() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let pids = dir.path().join("pids");
    let mut fleet = fleet(&pids).await?;
    let all = recorded(&pids).context("the server has recorded nothing")?;
    ensure!(
        ROLES.iter().all(|role| runs(all[*role])),
        "they do not all run: {all:?}"
    );
    fleet.process.kill().await?;
    all_gone(&all).await
}

/// That the test above would notice: the same server, the same kill, no guard.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_guard_the_processes_of_a_backend_survive_kill_9() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let pids = dir.path().join("pids");
    let (mut split, all) = data_plane(&pids, &["--stdio-guard", "off"]).await?;
    let data_plane = split.data.pid();
    split.data.kill().await?;
    // Its stdin has ended: the server knows, and stays.
    let known = until("the server's end of input", || async {
        recorded(&pids)?.contains_key("eof").then_some(())
    })
    .await;
    let survivors = ["server", "child", "apart"].map(|role| (all[role], runs(all[role])));
    for (pid, _) in survivors {
        kill(pid);
    }
    known?;
    ensure!(all["parent"] == data_plane, "there is a guard");
    ensure!(survivors.iter().all(|(_, ran)| *ran), "{survivors:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_leaves_no_process_behind() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let pids = dir.path().join("pids");
    let fleet = fleet(&pids).await?;
    let all = recorded(&pids).context("the server has recorded nothing")?;
    ensure!(fleet.stop().await? == 0);
    all_gone(&all).await
}
