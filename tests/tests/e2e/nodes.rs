//! What is wrong on one data plane only is told with its name and stops nobody else; what is
//! wrong everywhere does not reach one that has nothing yet.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    admin::http_backend,
    backend::{Backend, server::Server},
    client::{Client, Failure},
    fake_node::FakeNode,
    fleet::LEGACY,
    replicas::Replicas,
    store::Store,
    wait::until,
};
use serde_json::json;

use super::fleet::{applied, backends, node, number, printed};

#[tokio::test(flavor = "multi_thread")]
async fn an_unset_variable_fails_its_backend_on_that_node_only_and_is_told_with_its_name()
-> Result<()> {
    unset_variable(Store::Sqlite).await
}

pub(super) async fn unset_variable(store: Store<'_>) -> Result<()> {
    const VARIABLE: &str = "TOKEN_OF_THE_BACKEND";
    let server = Backend::start(Server::echo("good").legacy()).await?;
    let mut replicas = Replicas::start_on(store, &[]).await?;
    let allow = ["--allow", "env"];
    replicas
        .add_with("has", &allow, &[(VARIABLE, "the-value-of-the-node")])
        .await?;
    replicas.add("lacks", &allow).await?;
    replicas
        .add_with("may-not", &[], &[(VARIABLE, "unused")])
        .await?;
    applied(&replicas, &backends().await?).await?;
    let apply = async |token: &str| {
        let yaml = format!(
            "kind: Backend\nname: keyed\nhttp: {{ url: '{}', bearer_token: '{token}' }}\n---\n\
             kind: Backend\nname: plain\nhttp: {{ url: '{}' }}\n",
            server.at("/keyed"),
            server.at("/plain")
        );
        std::fs::write(replicas.dir().join("keyed.yaml"), yaml)?;
        let arguments = ["apply", "-f", "keyed.yaml", "--wait"];
        Ok::<_, anyhow::Error>(printed(&replicas.mcpctl("", &arguments).await?))
    };

    let (code, _, errors) = apply(&format!("${{env:{VARIABLE}}}")).await?;
    ensure!(code == Some(6), "{code:?} {errors}");
    for (name, why) in [("lacks", VARIABLE), ("may-not", "--allow env")] {
        let line = errors
            .lines()
            .find(|l| l.contains(&format!("{name} serves")));
        let line = line.with_context(|| format!("{name} is not named: {errors}"))?;
        ensure!(
            line.contains("Backend keyed") && line.contains(why),
            "{line}"
        );
        let degraded = node(&replicas, name).await?["degraded"].clone();
        ensure!(degraded[0]["key"]["name"] == "keyed", "{name}: {degraded}");
    }
    ensure!(!errors.contains("has serves"), "{errors}");
    ensure!(!errors.contains("the-value-of-the-node"), "{errors}");
    // Everything else of the change is live everywhere, and this where it can be.
    for plane in &replicas.planes {
        let url = format!("http://{}/mcp", plane.address);
        let mut client = Client::legacy(&url, LEGACY).await?;
        ensure!(client.text("plain__echo", json!({"text": "x"})).await? == "good:x");
        let keyed = client.text("keyed__echo", json!({"text": "x"})).await;
        if plane.name == "has" {
            ensure!(keyed? == "good:x");
        } else {
            let error = keyed.err().context("a call without its token")?;
            let failure = error.downcast::<Failure>()?;
            ensure!(failure.code() == Some(-31001), "{}: {failure}", plane.name);
        }
    }
    let keyed: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|s| s.path == "/keyed")
        .collect();
    ensure!(!keyed.is_empty(), "nothing arrived");
    for seen in keyed {
        let authorization = seen.header("authorization");
        ensure!(authorization == "Bearer the-value-of-the-node", "{seen:?}");
    }

    let (code, _, errors) = apply("a-literal-token").await?;
    ensure!(
        code == Some(0) && errors.contains("by 3 data planes"),
        "{code:?} {errors}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_that_has_nothing_starts_with_the_newest_acked_revision_not_the_refused_one()
-> Result<()> {
    newest_acked(Store::Sqlite).await
}

pub(super) async fn newest_acked(store: Store<'_>) -> Result<()> {
    let server = Backend::start(Server::echo("good").legacy()).await?;
    let mut replicas = Replicas::start_on(store, &[]).await?;
    let token = replicas.node_token();
    let verdict = |revision| (revision == 2).then(|| "upgrade this data plane".to_owned());
    let url = replicas.control_url.clone();
    let _old = FakeNode::connect(&url, token, "old", Arc::new(verdict)).await?;
    let mut admin = replicas.admin().await?;
    let first = http_backend("first", &server.at("/first"));
    ensure!(admin.apply(vec![first]).await?.revision == 1);
    admin.acked(1).await?;
    let second = http_backend("second", &server.at("/second"));
    ensure!(admin.apply(vec![second]).await?.revision == 2);
    until("the refusal", || async {
        let old = node(&replicas, "old").await.ok()?;
        (number(&old["nacked_revision"]) == Some(2)).then_some(())
    })
    .await?;

    replicas.add("new", &[]).await?;
    let plane = &replicas.planes[0];
    let served = |line: &str| {
        let (_, revision) = line.split_once(" serving revision=")?;
        Some(revision.split(' ').next()?.to_owned())
    };
    let started_with = plane.process.line("what it serves first", served).await?;
    ensure!(
        started_with == "1",
        "it started with revision {started_with}"
    );
    ensure!(plane.ready().await? == 200);
    // From then on it may take what another one could not.
    until("revision 2", || async {
        let new = node(&replicas, "new").await.ok()?;
        (number(&new["revision"]) == Some(2)).then_some(())
    })
    .await?;
    let old = node(&replicas, "old").await?;
    ensure!(number(&old["revision"]) == Some(1), "{old}");

    let third = http_backend("third", &server.at("/third"));
    ensure!(admin.apply(vec![third]).await?.revision == 3);
    admin.acked(3).await?;
    let url = format!("http://{}/mcp", plane.address);
    let mut client = Client::legacy(&url, LEGACY).await?;
    for tool in ["first__echo", "second__echo", "third__echo"] {
        ensure!(client.text(tool, json!({"text": "x"})).await? == "good:x");
    }
    Ok(())
}
