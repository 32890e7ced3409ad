//! Backends over the HTTP+SSE transport of 2024-11-05: a real server, killed and started again.

use anyhow::{Result, ensure};
use fleet_tests::{
    client::Failure,
    fleet::Fleet,
    process::Process,
    programs::{here, python},
    wait::until,
};
use serde_json::json;
use tokio::process::Command;

async fn server(port: u16) -> Result<(Process, u16)> {
    let mut command = Command::new(python());
    command.arg(here("servers/sse.py")).arg(port.to_string());
    let process = Process::start("sse.py", command)?;
    let port = |line: &str| line.strip_prefix("port ")?.parse().ok();
    let port = process.line("its port", port).await?;
    Ok((process, port))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_over_http_and_sse_is_called_and_found_again_after_kill_9() -> Result<()> {
    let (mut process, port) = server(0).await?;
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: old\nsse: {{ url: 'http://127.0.0.1:{port}/sse' }}\n"
    ))
    .await?;
    fleet.offers(&["old__echo", "old__hang"]).await?;
    let mut client = fleet.client().await?;
    for turn in 0..20 {
        let said = format!("{turn} é");
        ensure!(client.text("old__echo", json!({"text": said})).await? == said);
    }

    let mut hanging = fleet.client().await?;
    let (called, killed) = tokio::join!(hanging.call("old__hang", json!({})), async {
        // Behind the call on the same connection: when it is answered, the call has arrived.
        client.text("old__echo", json!({"text": "x"})).await?;
        process.kill().await
    });
    killed?;
    let failure = called
        .expect_err("the server is gone")
        .downcast::<Failure>()?;
    ensure!(matches!(failure.code(), Some(-31004 | -31001)), "{failure}");

    let _again = server(port).await?;
    until("an answer of the new server", || async {
        let mut client = fleet.client().await.ok()?;
        let answer = client
            .text("old__echo", json!({"text": "back"}))
            .await
            .ok()?;
        (answer == "back").then_some(())
    })
    .await
}
