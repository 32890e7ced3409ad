//! Files: the examples work, a bad file is refused whole, a change of the file is served.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{Backend, server::Server},
    fleet::Fleet,
    programs::root,
};
use serde_json::json;

/// Five problems, three of them in one document, and where each must be reported.
const BAD: &str = "\
kind: Backend
name: new
http: { url: 'http://127.0.0.1:1/mcp' }
---
kind: Backend
name: wrong
http: { url: 'http://127.0.0.1:1/mcp' }
timeouts: 5s
labels: nothing
max_duration: 5 parsecs
---
kind: Gateway
name: team
path: /team
backends:
  - new
  - nwe
---
kind: Backend
name: new
http: { url: 'http://127.0.0.1:2/mcp' }
";
const PROBLEMS: [(&str, &str); 5] = [
    ("bad.yaml:8:1:", "timeouts"),
    ("bad.yaml:9:9:", "labels"),
    ("bad.yaml:10:15:", "5 parsecs"),
    ("bad.yaml:17:5:", "nwe"),
    ("bad.yaml:20:7:", "new"),
];

fn one(backend: &Backend, name: &str) -> String {
    format!(
        "kind: Backend\nname: {name}\nhttp: {{ url: '{}' }}\n",
        backend.at(&format!("/{name}"))
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_five_problems_is_refused_whole_with_five_places() -> Result<()> {
    let backend = Backend::start(Server::echo("good").legacy()).await?;
    let fleet = Fleet::start(&one(&backend, "good")).await?;
    fleet.offers(&["good__echo"]).await?;
    let before = fleet.admin().await?.revision().await?;
    std::fs::write(fleet.dir().join("bad.yaml"), BAD)?;
    for command in [
        &["apply", "-f", "bad.yaml"][..],
        &["validate", "-f", "bad.yaml"],
    ] {
        let refused = fleet.mcpctl(command).await?;
        ensure!(refused.status.code() == Some(3), "{refused:?}");
        let errors = String::from_utf8(refused.stderr)?;
        let places: Vec<_> = errors
            .lines()
            .filter(|line| line.starts_with("bad.yaml:"))
            .collect();
        ensure!(places.len() == PROBLEMS.len(), "{command:?}:\n{errors}");
        for (line, (place, word)) in places.iter().zip(PROBLEMS) {
            ensure!(
                line.starts_with(place) && line.contains(word),
                "{place} {word}:\n{errors}"
            );
        }
        ensure!(refused.stdout.is_empty(), "{command:?} printed on stdout");
    }
    ensure!(
        fleet.admin().await?.revision().await? == before,
        "a revision was made"
    );
    let names = fleet.client().await?.names("tools/list").await?;
    ensure!(names == ["good__echo"], "{names:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_says_what_it_did_and_waits_for_the_data_plane() -> Result<()> {
    let backend = Backend::start(Server::echo("good").legacy()).await?;
    let fleet = Fleet::start(&one(&backend, "good")).await?;
    std::fs::write(fleet.dir().join("more.yaml"), one(&backend, "more"))?;
    let apply = ["apply", "-f", "more.yaml", "--wait"];

    let dry = fleet
        .mcpctl(&["apply", "-f", "more.yaml", "--dry-run"])
        .await?;
    ensure!(printed(&dry)?.contains("backend/more created"), "{dry:?}");
    let before = fleet.admin().await?.revision().await?;
    let done = fleet.mcpctl(&apply).await?;
    ensure!(printed(&done)?.contains("backend/more created"), "{done:?}");
    let after = fleet.admin().await?.revision().await?;
    ensure!(after == before + 1, "{before} -> {after}");
    let again = fleet.mcpctl(&apply).await?;
    ensure!(
        printed(&again)?.contains("backend/more unchanged"),
        "{again:?}"
    );
    ensure!(
        fleet.admin().await?.revision().await? == after,
        "an unchanged apply made a revision"
    );
    fleet.offers(&["good__echo", "more__echo"]).await?;

    let nodes = printed(&fleet.mcpctl(&["nodes"]).await?)?;
    ensure!(nodes.contains("SYNCED"), "{nodes}");
    let got = printed(&fleet.mcpctl(&["get", "backends", "-o", "name"]).await?)?;
    ensure!(got == "backend/good\nbackend/more\n", "{got}");
    let yaml = printed(
        &fleet
            .mcpctl(&["get", "backend", "more", "-o", "yaml"])
            .await?,
    )?;
    std::fs::write(fleet.dir().join("got.yaml"), yaml)?;
    let round = fleet.mcpctl(&["apply", "-f", "got.yaml"]).await?;
    ensure!(
        printed(&round)?.contains("backend/more unchanged"),
        "{round:?}"
    );
    printed(&fleet.mcpctl(&["delete", "backend", "more"]).await?)?;
    let conflict = fleet
        .mcpctl(&["apply", "-f", "more.yaml", "--expect-revision", "1"])
        .await?;
    ensure!(conflict.status.code() == Some(4), "{conflict:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_control_plane_and_a_wrong_token_have_their_own_exit_codes() -> Result<()> {
    let backend = Backend::start(Server::echo("good").legacy()).await?;
    let fleet = Fleet::start(&one(&backend, "good")).await?;
    let wrong = fleet.mcpctl(&["nodes", "--token", "wrong"]).await?;
    ensure!(wrong.status.code() == Some(7), "{wrong:?}");
    let nobody = format!("http://{}", fleet_tests::backend::broken::refusing().await?);
    let gone = fleet
        .mcpctl(&["nodes", "--control-plane", &nobody, "--token", "any"])
        .await?;
    ensure!(gone.status.code() == Some(8), "{gone:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn up_serves_a_changed_file_and_keeps_the_old_state_of_a_bad_one() -> Result<()> {
    let backend = Backend::start(Server::echo("good").legacy()).await?;
    let fleet = Fleet::start(&one(&backend, "good")).await?;
    fleet.offers(&["good__echo"]).await?;
    let file = fleet.dir().join("backends.yaml");
    std::fs::write(&file, "kind: Backend\nname: good\nhtpp: {}\n")?;
    fleet
        .process
        .line("what is wrong", |line| line.contains(":3:1:").then_some(()))
        .await?;
    let text = fleet
        .client()
        .await?
        .text("good__echo", json!({"text": "on"}))
        .await?;
    ensure!(text == "good:on", "{text}");
    std::fs::write(&file, one(&backend, "next"))?;
    fleet.offers(&["next__echo"]).await?;
    let names = fleet.client().await?.names("tools/list").await?;
    ensure!(
        names == ["next__echo"],
        "a document taken out of the file is still served: {names:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_works_as_it_prints() -> Result<()> {
    let fleet = Fleet::start_on(&root().join("examples/quickstart.yaml")).await?;
    fleet.offers(&["demo__echo"]).await?;
    let call = fleet
        .mcpctl(&["call", "demo__echo", r#"{"text":"hello"}"#])
        .await?;
    ensure!(printed(&call)?.contains("hello"), "{call:?}");
    ensure!(fleet.stop().await? == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_valid() -> Result<()> {
    let backend = Backend::start(Server::echo("good").legacy()).await?;
    let fleet = Fleet::start(&one(&backend, "good")).await?;
    let mut examples = 0;
    for entry in std::fs::read_dir(root().join("examples"))? {
        let file = entry?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let checked = fleet
                .mcpctl(&["validate".as_ref(), "-f".as_ref(), file.as_os_str()])
                .await?;
            ensure!(checked.status.success(), "{}: {checked:?}", file.display());
            examples += 1;
        }
    }
    ensure!(examples > 0, "no examples");
    Ok(())
}

/// What a command printed on stdout; it must have succeeded.
fn printed(output: &Output) -> Result<String> {
    ensure!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).context("stdout is not text")
}
