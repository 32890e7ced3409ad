//! What `deploy/` ships is what the programs it is for accept, and its example of a client in
//! another language pushes configuration.

use std::{path::Path, process::Output};

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{Backend, server::Server},
    balancer::{nginx_files, system},
    client::Client,
    fleet::LEGACY,
    programs::{installed, ours, root},
    replicas::Replicas,
    wait::soon,
};
use serde_json::json;
use tokio::process::Command;

async fn run(command: &mut Command) -> Result<Output> {
    command.kill_on_drop(true);
    let output = soon("the end of a program", command.output()).await?;
    output.with_context(|| format!("{command:?} does not start"))
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy);
    text.concat()
}

#[tokio::test]
async fn nginx_accepts_its_configuration() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let main = nginx_files(dir.path(), 8000, &["127.0.0.1:1", "127.0.0.1:2"])?;
    for (from, to) in [
        ("nginx/mcp-fleet.d", "mcp-fleet.d"),
        ("container/mcp-fleet.d", "mcp-fleet.d"),
    ] {
        // The shipped lists instead of those of the tests.
        for file in ["listen.conf", "dataplanes.conf"] {
            let shipped = root().join("deploy").join(from).join(file);
            std::fs::copy(shipped, dir.path().join(to).join(file))?;
        }
        let mut nginx = Command::new(system("nginx"));
        nginx
            .arg("-t")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(&main);
        let checked = run(nginx.args(["-e", "stderr"])).await?;
        let text = said(&checked);
        ensure!(
            checked.status.success() && !text.contains("[emerg]"),
            "{from}: {text}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn haproxy_accepts_its_configuration() -> Result<()> {
    let mut haproxy = Command::new(system("haproxy"));
    let file = root().join("deploy/haproxy/haproxy.cfg");
    let checked = run(haproxy.args(["-c", "-f"]).arg(file)).await?;
    let text = said(&checked);
    ensure!(
        checked.status.success() && !text.contains("WARNING") && !text.contains("ALERT"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn systemd_accepts_its_units_and_finds_them_hardened() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for program in ["mcp-controlplane", "mcp-dataplane"] {
        let name = format!("{program}.service");
        let unit = std::fs::read_to_string(root().join("deploy/systemd").join(&name))?;
        let file = dir.path().join(&name);
        // A unit whose program is not installed is refused.
        let installed = format!("/usr/local/bin/{program}");
        ensure!(
            unit.contains(&installed),
            "{name} does not start {installed}"
        );
        let built = ours(program);
        std::fs::write(&file, unit.replace(&installed, &built.to_string_lossy()))?;
        let verified = analyze(&["verify", "--man=no"], &file).await?;
        ensure!(verified.is_empty(), "{verified}");
        // 0 is the most that can be closed, 100 is nothing closed.
        analyze(
            &["security", "--offline=true", "--no-pager", "--threshold=20"],
            &file,
        )
        .await?;
    }
    Ok(())
}

async fn analyze(arguments: &[&str], file: &Path) -> Result<String> {
    let mut command = Command::new(system("systemd-analyze"));
    let done = run(command.args(arguments).arg(file)).await?;
    ensure!(done.status.success(), "{arguments:?}: {}", said(&done));
    Ok(said(&done))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_program_pushes_over_grpc_and_waits() -> Result<()> {
    let backend = Backend::start(Server::echo("good").legacy()).await?;
    let replicas = Replicas::start(&["one"]).await?;
    replicas
        .admin()
        .await?
        .node_in(fleet_proto::v1::NodeState::Synced)
        .await?;
    let push = async |arguments: &[&str], token: &str| {
        let mut command = Command::new(installed("grpc/bin/python"));
        command
            .arg(root().join("deploy/ci/push.py"))
            .args(arguments)
            .env("MCP_FLEET_CONTROL_PLANE", &replicas.control_url)
            .env("MCP_FLEET_TOKEN", token);
        let done = run(&mut command).await?;
        Ok::<_, anyhow::Error>((done.status.code(), said(&done)))
    };
    let token = replicas.admin_token();
    let good = format!("good={}", backend.url());
    let (code, text) = push(&["--message", "from CI", &good], token).await?;
    ensure!(
        code == Some(0) && text.contains("backend/good created") && text.contains("1 of 1"),
        "{code:?} {text}"
    );
    let url = format!("http://{}/mcp", replicas.planes[0].address);
    let mut client = Client::legacy(&url, LEGACY).await?;
    ensure!(client.text("good__echo", json!({"text": "x"})).await? == "good:x");
    let (code, text) = push(&[&good], token).await?;
    ensure!(
        code == Some(0) && text.contains("backend/good unchanged"),
        "{code:?} {text}"
    );

    let revision = replicas.admin().await?.revision().await?;
    for (arguments, with, expected) in [
        (&["bad__name=http://127.0.0.1:1/mcp"][..], token, 3),
        (
            &["--expect-revision", "0", "next=http://127.0.0.1:1/mcp"],
            token,
            4,
        ),
        (&["env=${env:HOME}"], token, 6),
        (&[&good[..]], "wrong-token-of-the-tests", 7),
    ] {
        let (code, text) = push(arguments, with).await?;
        ensure!(code == Some(expected), "{arguments:?}: {code:?} {text}");
    }
    let (code, text) = push(&["--remove", "env", "--remove", "good"], token).await?;
    ensure!(
        code == Some(0) && text.contains("backend/good deleted"),
        "{code:?} {text}"
    );
    ensure!(replicas.admin().await?.revision().await? == revision + 2);
    Ok(())
}
