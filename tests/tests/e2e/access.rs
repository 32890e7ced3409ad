//! Who may what at the control plane, seen by `mcpctl` and over REST: a viewer cannot write, and a
//! token of one project sees nothing of another.

use anyhow::{Context, Result, ensure};
use fleet_tests::{client::Connection, fake_node::FakeNode, replicas::Replicas, store::Store};
use hyper::{Method, StatusCode};

use super::fleet::printed;

/// A resource in each of two projects. No word of the second one is a part of any other text.
const FILES: [(&str, &str); 2] = [
    (
        "shop.yaml",
        "kind: Backend\nname: apple\nproject: shop\nhttp: { url: 'http://127.0.0.1:1/apple' }\n",
    ),
    (
        "savanna.yaml",
        "kind: Backend\nname: zebra\nproject: savanna\nhttp: { url: 'http://127.0.0.1:1/zebra' }\n",
    ),
];
const HIDDEN: [&str; 2] = ["savanna", "zebra"];

type Printed = (Option<i32>, String, String);

/// A control plane with both, applied one after the other.
async fn fleet(store: Store<'_>) -> Result<Replicas> {
    let replicas = Replicas::start_on(store, &["one"]).await?;
    for (file, yaml) in FILES {
        std::fs::write(replicas.dir().join(file), yaml)?;
        let (code, _, errors) = mcpctl(&replicas, None, &["apply", "-f", file]).await?;
        ensure!(code == Some(0), "{errors}");
    }
    let changed = FILES.map(|(file, yaml)| (format!("changed-{file}"), yaml.replace(":1/", ":2/")));
    for (file, yaml) in changed {
        std::fs::write(replicas.dir().join(file), yaml)?;
    }
    Ok(replicas)
}

/// Runs `mcpctl` with a token; without one, as the administrator.
async fn mcpctl(replicas: &Replicas, token: Option<&str>, arguments: &[&str]) -> Result<Printed> {
    let token = token.unwrap_or_else(|| replicas.admin_token());
    let arguments = [arguments, &["--token", token]].concat();
    Ok(printed(&replicas.mcpctl("", &arguments).await?))
}

/// Makes a token, which is all that stdout holds.
async fn token(replicas: &Replicas, arguments: &[&str]) -> Result<String> {
    let arguments = [&["token", "create"], arguments].concat();
    let (code, out, errors) = mcpctl(replicas, None, &arguments).await?;
    ensure!(code == Some(0), "{errors}");
    Ok(out.trim_end().to_owned())
}

/// That each of these is refused with exit code 7 and writes nothing.
async fn denied(replicas: &Replicas, token: &str, writes: &[&[&str]]) -> Result<()> {
    let before = replicas.admin().await?.list("").await?;
    for write in writes {
        let (code, out, errors) = mcpctl(replicas, Some(token), write).await?;
        ensure!(code == Some(7), "{write:?}: {code:?} {out} {errors}");
        ensure!(errors.contains("refused"), "{write:?}: {errors}");
    }
    let after = replicas.admin().await?.list("").await?;
    ensure!(before == after, "something was written: {after:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_reads_everything_and_writes_nothing() -> Result<()> {
    viewer(Store::Sqlite).await
}

pub(super) async fn viewer(store: Store<'_>) -> Result<()> {
    let replicas = fleet(store).await?;
    let viewer = token(&replicas, &["eyes", "--role", "viewer"]).await?;
    let dry = ["apply", "-f", "changed-shop.yaml", "--dry-run"];
    for (read, expected) in [
        (&["get", "-o", "name"][..], 0),
        (&["export"], 0),
        (&["history"], 0),
        (&["nodes"], 0),
        (&dry, 0),
        // There is a difference.
        (&["diff", "-f", "changed-shop.yaml"], 1),
    ] {
        let (code, out, errors) = mcpctl(&replicas, Some(&viewer), read).await?;
        ensure!(
            code == Some(expected) && !out.is_empty(),
            "{read:?}: {code:?} {out} {errors}"
        );
    }
    let writes = [
        &["apply", "-f", "changed-shop.yaml"][..],
        &["delete", "backend", "apple", "-p", "shop"],
        &["rollback", "1"],
        &["token", "create", "more", "--role", "viewer"],
        &["token", "list"],
        &["token", "revoke", "eyes"],
    ];
    denied(&replicas, &viewer, &writes).await?;
    // Nor is it a data plane.
    let verdict = std::sync::Arc::new(|_| None);
    let node = FakeNode::connect(&replicas.control_url, &viewer, "spy", verdict).await;
    ensure!(
        node.is_err(),
        "a viewer received the configuration as a node"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_project_sees_and_writes_nothing_of_another_and_ends_when_revoked()
-> Result<()> {
    project(Store::Sqlite).await
}

pub(super) async fn project(store: Store<'_>) -> Result<()> {
    let replicas = fleet(store).await?;
    let shop = token(&replicas, &["ci", "--role", "editor", "--project", "shop"]).await?;
    for read in [
        &["get", "-o", "name"][..],
        &["get", "-o", "yaml"],
        &["export"],
        &["history", "-o", "json"],
        &["revisions", "-o", "wide"],
        &["history", "backend", "apple", "-p", "shop"],
        &["describe", "backend", "apple", "-p", "shop"],
        &["status"],
        &["nodes", "-o", "json"],
    ] {
        let (code, out, errors) = mcpctl(&replicas, Some(&shop), read).await?;
        ensure!(
            code == Some(0) && !out.is_empty(),
            "{read:?}: {code:?} {out} {errors}"
        );
        let shown = format!("{out}{errors}");
        ensure!(
            !HIDDEN.iter().any(|word| shown.contains(word)),
            "{read:?}: {shown}"
        );
    }
    // It is as if it did not exist.
    for verb in ["get", "describe", "delete"] {
        let zebra = [verb, "backend", "zebra", "-p", "savanna"];
        let ghost = [verb, "backend", "ghost", "-p", "savanna"];
        let (code, out, errors) = mcpctl(&replicas, Some(&shop), &zebra).await?;
        ensure!(code != Some(0), "{verb}: {out} {errors}");
        let nobody = mcpctl(&replicas, Some(&shop), &ghost).await?;
        let told = (code, out, errors.replace("zebra", "ghost"));
        ensure!(
            told == nobody,
            "{verb}: {told:?}, and of what is not there {nobody:?}"
        );
    }
    let writes = [
        &["apply", "-f", "changed-savanna.yaml"][..],
        &[
            "apply",
            "-f",
            "changed-savanna.yaml",
            "-f",
            "changed-shop.yaml",
        ],
        // Without the second project's resource.
        &["rollback", "1"],
    ];
    denied(&replicas, &shop, &writes).await?;
    rest(&replicas, &shop).await?;

    let own = ["apply", "-f", "changed-shop.yaml"];
    let (code, _, errors) = mcpctl(&replicas, Some(&shop), &own).await?;
    ensure!(code == Some(0), "{errors}");
    let history = replicas.admin().await?.history().await?;
    ensure!(history[0].author.contains("ci"), "{:?}", history[0]);
    let (code, _, errors) = mcpctl(&replicas, None, &["token", "revoke", "ci"]).await?;
    ensure!(code == Some(0), "{errors}");
    denied(&replicas, &shop, &[&["get"], &["apply", "-f", "shop.yaml"]]).await
}

/// The same at the other door.
async fn rest(replicas: &Replicas, token: &str) -> Result<()> {
    let address = |line: &str| Some(line.strip_prefix("REST: ")?.to_owned());
    let base = replicas.control.line("its REST address", address).await?;
    let bearer = [("authorization", format!("Bearer {token}"))];
    for (path, status) in [
        ("/resources", StatusCode::OK),
        ("/backends", StatusCode::OK),
        ("/revisions", StatusCode::OK),
        ("/audit", StatusCode::OK),
        ("/backends/apple?project=shop", StatusCode::OK),
        ("/revisions/1?resources=true", StatusCode::OK),
        ("/backends/zebra?project=savanna", StatusCode::NOT_FOUND),
        ("/revisions/2?resources=true", StatusCode::NOT_FOUND),
    ] {
        let mut connection = Connection::open(&format!("{base}{path}")).await?;
        let get = connection.send(Method::GET, &bearer, bytes::Bytes::new());
        let answer = get.await.context(path)?;
        ensure!(answer.status == status, "{path}: {answer:?}");
        let body = String::from_utf8_lossy(&answer.body);
        if status == StatusCode::OK {
            ensure!(
                !HIDDEN.iter().any(|word| body.contains(word)),
                "{path}: {body}"
            );
        }
    }
    Ok(())
}
