//! A control plane and a data plane as processes of their own: what is served outlives the control plane.

use anyhow::{Result, ensure};
use fleet_proto::v1::NodeState;
use fleet_tests::{
    admin::{Admin, http_backend},
    backend::{Backend, server::Server},
    client::Client,
    fleet::{LEGACY, Split},
    store::Store,
    wait::until,
};
use serde_json::json;

async fn offers(url: &str, tool: &str) -> Result<Client> {
    until(tool, || async {
        let mut client = Client::legacy(url, LEGACY).await.ok()?;
        client
            .names("tools/list")
            .await
            .ok()?
            .iter()
            .any(|n| n == tool)
            .then_some(client)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_plane_serves_on_without_its_control_plane_and_finds_it_again() -> Result<()> {
    found_again(Store::Sqlite).await
}

pub(super) async fn found_again(store: Store<'_>) -> Result<()> {
    let backend = Backend::start(Server::echo("good").legacy()).await?;
    let mut split = Split::start_on(store, &[]).await?;
    let mut admin = split.admin().await?;
    let revision = admin
        .apply(vec![http_backend("one", &backend.at("/one"))])
        .await?
        .revision;
    admin.acked(revision).await?;
    let mut client = offers(&split.url, "one__echo").await?;

    split.control.kill().await?;
    for turn in 0..20 {
        let text = client
            .text("one__echo", json!({"text": turn.to_string()}))
            .await?;
        ensure!(text == format!("good:{turn}"), "{text}");
    }
    offers(&split.url, "one__echo").await?;

    split.restart_control().await?;
    let mut admin = split.admin().await?;
    ensure!(
        admin.revision().await? == revision,
        "the revision did not survive"
    );
    admin.node_in(NodeState::Synced).await?;
    let next = admin
        .apply(vec![http_backend("two", &backend.at("/two"))])
        .await?
        .revision;
    ensure!(next > revision, "{next} after {revision}");
    admin.acked(next).await?;
    offers(&split.url, "two__echo").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_that_is_gone_is_shown_as_offline() -> Result<()> {
    offline(Store::Sqlite).await
}

pub(super) async fn offline(store: Store<'_>) -> Result<()> {
    let mut split = Split::start_on(store, &[]).await?;
    let admin = split.admin().await?;
    admin.node_in(NodeState::Synced).await?;
    split.data.kill().await?;
    let node = admin.node_in(NodeState::Offline).await?;
    ensure!(node.node_id == "one", "{node:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_admin_token_changes_nothing() -> Result<()> {
    let split = Split::start().await?;
    for token in ["wrong", "node-token-of-the-tests"] {
        let mut stranger = Admin::connect(&split.control_url, token).await?;
        let refused = stranger
            .apply(vec![http_backend("evil", "http://127.0.0.1:1/mcp")])
            .await;
        let code = refused.err().map(|status| status.code());
        ensure!(
            matches!(
                code,
                Some(tonic::Code::Unauthenticated | tonic::Code::PermissionDenied)
            ),
            "{token}: {code:?}"
        );
    }
    ensure!(
        split.admin().await?.revision().await? == 0,
        "something was written"
    );
    Ok(())
}
