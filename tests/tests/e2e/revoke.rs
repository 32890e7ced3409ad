//! What must stop working at once: client tokens and sessions.

use anyhow::{Result, ensure};
use fleet_proto::{
    hash::Hash,
    v1::{AuthPolicy, BearerAuth, Gateway, auth_policy::Scheme, resource::Kind},
};
use fleet_tests::{
    backend::{Backend, server::Server},
    client::{Client, Connection},
    fleet::LEGACY,
    replicas::{Plane, Replicas},
    wait::until,
};
use serde_json::json;

use super::{
    fleet::printed,
    secrets::{answering, gateway, sent, serving},
};

const LEAKED: &str = "leaked-client-token";
const GOOD: &str = "other-client-token";

fn policy(tokens: &[&str]) -> fleet_proto::v1::Resource {
    let tokens = tokens.iter().map(ToString::to_string).collect();
    fleet_proto::v1::Resource {
        kind: Some(Kind::AuthPolicy(AuthPolicy {
            name: "staff".to_owned(),
            scheme: Some(Scheme::Bearer(BearerAuth { tokens })),
            ..AuthPolicy::default()
        })),
    }
}

fn guarded() -> fleet_proto::v1::Resource {
    fleet_proto::v1::Resource {
        kind: Some(Kind::Gateway(Gateway {
            name: "guarded".to_owned(),
            path: "/guarded".to_owned(),
            auth: "staff".to_owned(),
            ..Gateway::default()
        })),
    }
}

/// The status of a request with these headers.
async fn status(url: &str, headers: &[(&'static str, String)]) -> Result<u16> {
    let mut connection = Connection::open(url).await?;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    Ok(connection.post(headers, ping).await?.status.as_u16())
}

fn guarded_at(plane: &Plane) -> String {
    format!("http://{}/guarded", plane.address)
}

async fn session(plane: &Plane, token: &str) -> Result<Vec<(&'static str, String)>> {
    let client = Client::legacy_with_token(&guarded_at(plane), LEGACY, Some(token)).await?;
    Ok(client.headers().to_vec())
}

/// Waits until every data plane answers so.
async fn everywhere(
    replicas: &Replicas,
    headers: &[(&'static str, String)],
    wanted: u16,
) -> Result<()> {
    for plane in &replicas.planes {
        let url = guarded_at(plane);
        until(&format!("{wanted} at {}", plane.name), || async {
            (status(&url, headers).await.ok()? == wanted).then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_stays_out_over_rollback_and_restart() -> Result<()> {
    let mut replicas = Replicas::start(&["keyed"]).await?;
    replicas.add_without_state_key("bare").await?;
    let mut admin = replicas.admin().await?;
    let first = admin
        .apply(vec![policy(&[LEAKED, GOOD]), guarded()])
        .await?
        .revision;
    admin.acked(first).await?;
    let (leaked, good) = (
        session(&replicas.planes[0], LEAKED).await?,
        session(&replicas.planes[0], GOOD).await?,
    );
    everywhere(&replicas, &leaked, 200).await?;

    let argument = format!("sha256:{}", Hash::of(b"my-token"));
    for (arguments, input) in [
        (vec!["revoke", "-", "-m", "leaked"], format!("{LEAKED}\n")),
        (
            vec!["revoke", argument.as_str(), "--project", "other"],
            String::new(),
        ),
    ] {
        let done = replicas.mcpctl_given("", &arguments, &[], &input).await?;
        let (code, out, errors) = printed(&done);
        ensure!(code == Some(0), "{out}{errors}");
        ensure!(
            !out.contains(LEAKED) && !errors.contains(LEAKED),
            "{out}{errors}"
        );
    }
    let plain = replicas.mcpctl("", &["revoke", LEAKED]).await?;
    ensure!(printed(&plain).0 == Some(2), "a token on the command line");
    everywhere(&replicas, &leaked, 401).await?;
    everywhere(&replicas, &good, 200).await?;
    let list = printed(&replicas.mcpctl("", &["revocations"]).await?).1;
    ensure!(
        list.contains("leaked") && list.contains(&argument),
        "{list}"
    );

    // Neither the policy nor a rollback lets it in again; and no rollback an old value.
    let next = admin.apply(vec![policy(&[GOOD])]).await?.revision;
    admin.acked(next).await?;
    let rollback = ["rollback", &first.to_string(), "--wait"];
    let (code, _, errors) = printed(&replicas.mcpctl("", &rollback).await?);
    ensure!(code == Some(0), "{errors}");
    everywhere(&replicas, &leaked, 401).await?;
    everywhere(&replicas, &good, 200).await?;

    // Not even a restart without the control plane, with or without a state key.
    replicas.control.kill().await?;
    for index in 0..2 {
        replicas.planes[index].process.kill().await?;
        replicas.restart(index).await?;
        let url = guarded_at(&replicas.planes[index]);
        let token = |token: &str| vec![("authorization", format!("Bearer {token}"))];
        ensure!(status(&url, &token(LEAKED)).await? == 401);
        ensure!(status(&url, &token(GOOD)).await? != 401);
    }
    replicas.restart_control().await?;
    let back = ["unrevoke", "-"];
    let (code, _, errors) = printed(&replicas.mcpctl_given("", &back, &[], LEAKED).await?);
    ensure!(code == Some(0), "{errors}");
    for plane in &replicas.planes {
        let url = guarded_at(plane);
        until("a client with the token", || async {
            Client::legacy_with_token(&url, LEGACY, Some(LEAKED))
                .await
                .ok()
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_does_not_bring_back_an_old_value() -> Result<()> {
    let backend = Backend::start(Server::echo("echo").legacy()).await?;
    let replicas = Replicas::start(&["one"]).await?;
    serving(&replicas, &backend).await?;
    let first = replicas.admin().await?.revision().await?;
    let set = ["secret", "set", "token", "--wait"];
    let done = replicas
        .mcpctl_given("", &set, &[], "a-newer-value")
        .await?;
    ensure!(printed(&done).0 == Some(0));
    let label = ["apply", "-f", "-", "--wait"];
    let yaml = format!(
        "kind: Backend\nname: open\nlabels: {{ a: b }}\nhttp: {{ url: '{}' }}\n",
        backend.at("/open")
    );
    let done = replicas.mcpctl_given("", &label, &[], &yaml).await?;
    ensure!(printed(&done).0 == Some(0), "{:?}", printed(&done));
    let rollback = ["rollback", &first.to_string(), "--wait"];
    let (code, out, errors) = printed(&replicas.mcpctl("", &rollback).await?);
    ensure!(
        code == Some(0) && out.contains("backend/open configured"),
        "{out}{errors}"
    );
    ensure!(sent(&replicas.planes[0], &backend).await? == "Bearer a-newer-value");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_session_keys_logs_nobody_out_unless_it_is_to() -> Result<()> {
    let backend = Backend::start(Server::echo("echo").legacy()).await?;
    let replicas = Replicas::start(&["one", "two"]).await?;
    serving(&replicas, &backend).await?;
    let [one, two] = &replicas.planes[..] else {
        anyhow::bail!("two data planes");
    };
    answering(two).await?;
    let old = Client::legacy(&gateway(one), LEGACY)
        .await?
        .headers()
        .to_vec();
    let rotate = async |arguments: &[&str]| {
        let arguments = [&["session-keys", "rotate"], arguments].concat();
        let (code, out, errors) = printed(&replicas.mcpctl("", &arguments).await?);
        ensure!(code == Some(0), "{out}{errors}");
        Ok(out)
    };
    for keys in ["2 keys", "3 keys"] {
        let out = rotate(&[]).await?;
        ensure!(out.contains(keys), "{out}");
    }
    // Both have the new ring when they have acknowledged it.
    let version = |node: &fleet_proto::v1::Node| {
        let of =
            |set: &&fleet_proto::v1::SetVersion| set.set() == fleet_proto::v1::SetKind::SessionKeys;
        node.sets.iter().find(of).map_or(0, |set| set.version)
    };
    let acked = async |wanted: u64| {
        let admin = replicas.admin().await?;
        until("the ring on both", || {
            let mut admin = admin.clone();
            async move {
                let nodes = admin.nodes().await.ok()?;
                nodes
                    .iter()
                    .all(|node| version(node) == wanted)
                    .then_some(())
            }
        })
        .await
    };
    acked(3).await?;
    let new = Client::legacy(&gateway(two), LEGACY)
        .await?
        .headers()
        .to_vec();
    for plane in [one, two] {
        for session in [&old, &new] {
            let code = status(&gateway(plane), session).await?;
            ensure!(code == 200, "{}: {code}", plane.name);
        }
    }
    rotate(&["--end-sessions"]).await?;
    acked(4).await?;
    for plane in [one, two] {
        for session in [&old, &new] {
            let code = status(&gateway(plane), session).await?;
            ensure!(code == 404, "{}: {code}", plane.name);
        }
    }
    let again = Client::legacy(&gateway(one), LEGACY)
        .await?
        .headers()
        .to_vec();
    ensure!(
        status(&gateway(two), &again).await? == 200,
        "the new key is shared"
    );
    Ok(())
}
