//! A gateway with bearer tokens lets in who holds one, and nothing of anybody else gets anywhere.

use anyhow::{Result, ensure};
use fleet_tests::{
    backend::{Backend, server::Server},
    client::{Client, Connection, MODERN},
    fleet::{Fleet, LEGACY},
    wait::{soon, until},
};
use hyper::StatusCode;
use serde_json::json;

const TOKEN: &str = "a-token-of-the-staff";

async fn fleet() -> Result<(Backend, Fleet)> {
    let backend = Backend::start(Server::echo("good").legacy()).await?;
    let url = backend.url();
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: good\nhttp: {{ url: '{url}' }}\n---\n\
         kind: AuthPolicy\nname: staff\nbearer: {{ tokens: [{TOKEN}] }}\n---\n\
         kind: Gateway\nname: default\npath: /mcp\nauth: staff\n"
    ))
    .await?;
    until("the backend's tools", || async {
        let mut client = Client::legacy_with_token(&fleet.url, LEGACY, Some(TOKEN))
            .await
            .ok()?;
        client
            .names("tools/list")
            .await
            .ok()?
            .contains(&"good__echo".to_owned())
            .then_some(())
    })
    .await?;
    Ok((backend, fleet))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_missing_token_gets_401_and_reaches_nothing() -> Result<()> {
    let (backend, fleet) = fleet().await?;
    let inside = Client::legacy_with_token(&fleet.url, LEGACY, Some(TOKEN)).await?;
    let session: Vec<_> = inside
        .headers()
        .iter()
        .filter(|(name, _)| *name != "authorization")
        .cloned()
        .collect();
    backend.forget();
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "good__echo", "arguments": {"text": "x"},
        "_meta": {"io.modelcontextprotocol/protocolVersion": MODERN,
                  "io.modelcontextprotocol/clientCapabilities": {}},
    }});
    let modern = vec![
        ("mcp-protocol-version", MODERN.to_owned()),
        ("mcp-method", "tools/call".to_owned()),
        ("mcp-name", "good__echo".to_owned()),
    ];
    let wrong = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some("Bearer wrong".to_owned()),
        Some(format!("Bearer {TOKEN}x")),
        Some(format!("Bearer {}", &TOKEN[1..])),
        Some(format!("Basic {TOKEN}")),
        Some(TOKEN.to_owned()),
    ];
    for authorization in wrong {
        for (era, headers) in [("with a session", &session), ("stateless", &modern)] {
            let mut headers = headers.clone();
            headers.extend(authorization.clone().map(|value| ("authorization", value)));
            let mut connection = Connection::open(&fleet.url).await?;
            let answer = connection.post(&headers, call.to_string()).await?;
            let what = format!("{authorization:?}, {era}: {answer:?}");
            ensure!(answer.status == StatusCode::UNAUTHORIZED, "{what}");
            let challenge = answer
                .headers
                .get("www-authenticate")
                .map(|value| value.to_str());
            ensure!(
                matches!(challenge, Some(Ok(c)) if c.starts_with("Bearer")),
                "{what}"
            );
        }
    }
    ensure!(backend.seen().is_empty(), "reached: {:#?}", backend.seen());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_token_is_let_in_and_not_passed_on() -> Result<()> {
    let (backend, fleet) = fleet().await?;
    let mut client = Client::legacy_with_token(&fleet.url, LEGACY, Some(TOKEN)).await?;
    ensure!(client.text("good__echo", json!({"text": "in"})).await? == "good:in");
    for seen in backend.seen() {
        let everything = format!("{:?} {:?}", seen.headers, seen.body);
        ensure!(
            !everything.contains(TOKEN),
            "the backend has the client's token: {everything}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_token_that_is_good_no_longer_end() -> Result<()> {
    let (_backend, fleet) = fleet().await?;
    let old = Client::legacy_with_token(&fleet.url, LEGACY, Some(TOKEN)).await?;
    let mut new = Client::modern_with_token(&fleet.url, TOKEN).await?;
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let mut streams = [
        old.listen(None).await?,
        new.stream("subscriptions/listen", filter).await?,
    ];
    for stream in &streams {
        ensure!(stream.status == StatusCode::OK, "{}", stream.status);
    }
    let policy =
        "kind: AuthPolicy\nname: staff\nbearer: { tokens: [another-token-of-the-staff] }\n";
    std::fs::write(fleet.dir().join("policy.yaml"), policy)?;
    let done = fleet
        .mcpctl(&["apply", "-f", "policy.yaml", "--wait"])
        .await?;
    ensure!(done.status.success(), "{done:?}");
    for stream in &mut streams {
        soon("the end of a stream", stream.ends()).await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_shown_or_stored_in_clear() -> Result<()> {
    let (_backend, fleet) = fleet().await?;
    let shown = fleet
        .mcpctl(&["get", "auth-policy", "staff", "-o", "yaml"])
        .await?;
    let shown = String::from_utf8(shown.stdout)?;
    ensure!(
        shown.contains("sha256:") && !shown.contains(TOKEN),
        "{shown}"
    );
    ensure!(
        !fleet.process.printed().contains(TOKEN),
        "{}",
        fleet.process.printed()
    );
    let mut folders = vec![fleet.dir().join("data")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                let clear = bytes
                    .windows(TOKEN.len())
                    .any(|window| window == TOKEN.as_bytes());
                ensure!(!clear, "{} holds the token", path.display());
            }
        }
    }
    Ok(())
}
