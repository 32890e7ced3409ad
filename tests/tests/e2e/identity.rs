//! Data planes that join over TLS and come with certificates: how they get in, stay in, and are
//! kept out.

use std::{os::unix::fs::PermissionsExt, path::Path, time::SystemTime};

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    postgres::cluster,
    process::Process,
    programs::ours,
    secured::{Member, Secured},
    store::Store,
    wait::until,
};
use serde_json::Value;
use tokio::process::Command;

const BACKEND: &str = "kind: Backend\nname: one\nhttp: { url: \"http://127.0.0.1:1/mcp\" }\n";

fn number(value: &Value, field: &str) -> u64 {
    let text = value[field].as_str().and_then(|text| text.parse().ok());
    text.or_else(|| value[field].as_u64()).unwrap_or(0)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Writes a revision, which every node must serve.
async fn apply(fleet: &Secured, text: &str) -> Result<()> {
    let file = fleet.dir().join("backends.yaml");
    std::fs::write(&file, text)?;
    let file = file.to_string_lossy();
    fleet
        .done(&["apply", "--wait", "-f", &file])
        .await
        .map(drop)
}

/// Waits until what is in a file is another than this.
async fn until_other(file: &Path, than: &[u8]) -> Result<Vec<u8>> {
    until("a renewed certificate", || async {
        std::fs::read(file).ok().filter(|bytes| bytes != than)
    })
    .await
}

/// A node that has joined and is in sync.
async fn joined(fleet: &Secured, id: &str) -> Result<Member> {
    let token = fleet.token(&format!("{id}.token"), &[]).await?;
    let node = fleet.node(id, Some(&token)).await?;
    fleet.until_state(id, "SYNCED").await?;
    Ok(node)
}

async fn joins_and_comes_back(store: Store<'_>) -> Result<()> {
    let mut fleet = Secured::start(store, &[]).await?;
    let mut node = joined(&fleet, "n1").await?;
    let shown = fleet.until_state("n1", "SYNCED").await?;
    ensure!(
        number(&shown, "certificate_expires_ms") > now_ms(),
        "{shown}"
    );
    apply(&fleet, BACKEND).await?;
    let identity = fleet.identity("n1");
    let mode = |path: &Path| Ok::<_, anyhow::Error>(path.metadata()?.permissions().mode() & 0o777);
    ensure!(mode(&identity)? == 0o600, "{identity:?}");
    ensure!(mode(identity.parent().context("in a folder")?)? == 0o700);

    // Without the token, and also after the control plane was away.
    node.process.kill().await?;
    fleet.control.kill().await?;
    let back = fleet.node("n1", None).await?;
    ensure!(back.ready().await? == 200, "it serves what it kept");
    fleet.restart_control().await?;
    fleet.until_state("n1", "SYNCED").await?;
    let listed = fleet.done(&["node", "join-tokens", "--all"]).await?;
    ensure!(listed.contains("used by n1"), "{listed}");
    for file in ["fleet.db", "fleet.db-wal"] {
        let bytes = std::fs::read(fleet.dir().join(file)).unwrap_or_default();
        let token = std::fs::read_to_string(fleet.dir().join("n1.token"))?;
        let secret = token.split('.').nth(2).context("a secret")?.as_bytes();
        ensure!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_with_the_pin_of_its_token_and_comes_back_with_its_certificate() -> Result<()>
{
    joins_and_comes_back(Store::Sqlite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_with_the_pin_of_its_token_and_comes_back_with_its_certificate_on_postgres()
-> Result<()> {
    joins_and_comes_back(Store::Postgres(cluster())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_again_and_again_under_one_stream() -> Result<()> {
    let fleet = Secured::start(Store::Sqlite, &["--node-certificate-lifetime", "12s"]).await?;
    let node = joined(&fleet, "n1").await?;
    let file = fleet.identity("n1");
    let mut before = std::fs::read(&file)?;
    let first = number(
        &fleet.until_state("n1", "SYNCED").await?,
        "certificate_expires_ms",
    );
    while now_ms() <= first {
        before = until_other(&file, &before).await?;
    }
    // The certificate that the stream came with has ended; the stream has not.
    apply(&fleet, BACKEND).await?;
    let opened = "stream to the control plane is open";
    let streams = node.process.printed().matches(opened).count();
    ensure!(streams == 1, "{streams} streams");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_certificate_ended_while_it_was_away_renews_it_and_is_back() -> Result<()> {
    let fleet = Secured::start(Store::Sqlite, &["--node-certificate-lifetime", "5s"]).await?;
    let mut node = joined(&fleet, "n1").await?;
    node.process.kill().await?;
    let shown = fleet.until_state("n1", "OFFLINE").await?;
    let expires = number(&shown, "certificate_expires_ms");
    until("the end of the certificate", || async {
        (now_ms() > expires + 1000).then_some(())
    })
    .await?;
    let back = fleet.node("n1", None).await?;
    back.says("this node has a new certificate").await?;
    fleet.until_state("n1", "SYNCED").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_cut_off_serves_on_and_returns_with_a_new_token_only() -> Result<()> {
    let fleet = Secured::start(Store::Sqlite, &[]).await?;
    let mut node = joined(&fleet, "n1").await?;
    let said = fleet.done(&["node", "revoke", "n1"]).await?;
    ensure!(said.contains("n1 revoked (1 certificate"), "{said}");
    fleet.until_state("n1", "OFFLINE").await?;
    node.says("is not let in any more").await?;
    ensure!(node.ready().await? == 200, "it serves what it has");
    node.process.kill().await?;
    // Its old token and one for anybody do not help it.
    let any = fleet.token("any.token", &[]).await?;
    let mut still = fleet.node("n1", Some(&any)).await?;
    still.says("has joined before").await?;
    still.process.kill().await?;
    let own = fleet.token("own.token", &["--node-id", "n1"]).await?;
    let _back = fleet.node("n1", Some(&own)).await?;
    fleet.until_state("n1", "SYNCED").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_lets_in_one_node_and_only_the_one_it_is_for() -> Result<()> {
    let fleet = Secured::start(Store::Sqlite, &[]).await?;
    let token = fleet.token("token", &["--node-id", "n1"]).await?;
    let other = fleet.node("n2", Some(&token)).await?;
    other.says("the join token is not good").await?;
    ensure!(other.ready().await? != 200, "it has nothing");
    let _first = fleet.node("n1", Some(&token)).await?;
    fleet.until_state("n1", "SYNCED").await?;
    // Replayed by somebody who has another data directory and the same name.
    let thief = fleet.process("n1", &fleet.data("thief"), Some(&token))?;
    let refused = |line: &str| line.contains("the join token is not good").then_some(());
    thief.line("its refusal", refused).await?;
    let revoked = fleet.token("revoked", &[]).await?;
    let id = std::fs::read_to_string(&revoked)?;
    let id = id.split('.').nth(1).context("an id")?;
    fleet.done(&["node", "revoke-join-token", id]).await?;
    let third = fleet.node("n3", Some(&revoked)).await?;
    third.says("the join token is not good").await?;
    let reasons = fleet.control.printed();
    for reason in [
        "it is for another node",
        "it has been used",
        "it has been revoked",
    ] {
        ensure!(reasons.contains(reason), "not in the log: {reason}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_foreign_control_plane_nor_a_foreign_certificate_is_trusted() -> Result<()> {
    let fleet = Secured::start(Store::Sqlite, &[]).await?;
    let other = Secured::start(Store::Sqlite, &[]).await?;
    // Its token names another CA than the one that answers.
    let foreign = other.token("token", &[]).await?;
    let lost = fleet.node("n1", Some(&foreign)).await?;
    lost.says("UnknownIssuer").await?;
    drop(lost);
    // A certificate of another fleet, and trust in this one.
    let ca = fleet.dir().join("ca.pem");
    std::fs::write(&ca, fleet.done(&["trust"]).await?)?;
    let mut node = joined(&other, "n2").await?;
    node.process.kill().await?;
    let mut command = Command::new(ours("mcp-dataplane"));
    command
        .args(["--control-plane", &fleet.url, "--node-id", "n2"])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .arg("--control-plane-ca")
        .arg(&ca)
        .arg("--data-dir")
        .arg(other.data("n2"));
    let guest = Process::start("mcp-dataplane n2", command)?;
    let refused = |line: &str| line.contains("is not let in any more").then_some(());
    guest.line("its refusal", refused).await?;
    ensure!(fleet.shown("n2").await?.is_none(), "it was let in");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_right_after_it_joined_comes_back_with_its_certificate() -> Result<()> {
    let fleet = Secured::start(Store::Sqlite, &[]).await?;
    let token = fleet.token("token", &[]).await?;
    let mut process = fleet.process("n1", &fleet.data("n1"), Some(&token))?;
    let joined = |line: &str| line.contains("has joined the fleet").then_some(());
    process.line("that it has joined", joined).await?;
    process.kill().await?;
    let _back = fleet.node("n1", Some(&token)).await?;
    fleet.until_state("n1", "SYNCED").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_unencrypted_beyond_this_machine_unless_that_is_said() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let fails = async |program: &str, arguments: &[&str], why: &str| {
        let mut command = Command::new(ours(program));
        command
            .args(arguments)
            .current_dir(dir.path())
            .env("MCP_FLEET_CONTEXT", dir.path().join("context.json"))
            .env("MCP_FLEET_NODE_TOKEN", "a-node-token-of-this-test");
        let mut process = Process::start(program, command)?;
        let code = process.ended().await?;
        ensure!(code != 0, "{program} {arguments:?} has not failed");
        let said = |line: &str| line.contains(why).then_some(());
        process.line(why, said).await
    };
    // RFC 5737: nobody is there.
    let far = "http://192.0.2.1:8182";
    fails("mcp-dataplane", &["--control-plane", far], "--insecure").await?;
    let open = ["--grpc-listen", "0.0.0.0:0"];
    fails("mcp-controlplane", &open, "--tls-name").await?;
    let list = ["nodes", "--control-plane", far, "--token", "t"];
    fails("mcpctl", &list, "--insecure").await?;
    // Nor does a join token, even here.
    std::fs::write(dir.path().join("token"), "mfj1.a.b")?;
    let plain = ["--join-token-file", "token", "--data-dir", "data"];
    fails("mcp-dataplane", &plain, "over TLS only").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_another_node_is_no_identity() -> Result<()> {
    let fleet = Secured::start(Store::Sqlite, &[]).await?;
    let mut node = joined(&fleet, "n1").await?;
    node.process.kill().await?;
    let mut process = fleet.process("n2", &fleet.data("n1"), None)?;
    ensure!(process.ended().await? != 0);
    let said = |line: &str| line.contains("is of another node id").then_some(());
    process.line("why", said).await
}
