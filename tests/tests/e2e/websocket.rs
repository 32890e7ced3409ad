//! Backends over a WebSocket: one connection for all calls, which is found again when it is lost.

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::websocket::WebSocketServer, client::Failure, fleet::Fleet, wait::until,
};
use futures_util::future::{join_all, try_join_all};
use serde_json::{Value, json};

/// `CallError::Gone`.
const GONE: i64 = -31004;

async fn fleet(server: &WebSocketServer) -> Result<Fleet> {
    let url = server.url();
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: ws\nwebsocket: {{ url: '{url}', bearer_token: t0ken, headers: {{ X-Team: core }} }}\n"
    ))
    .await?;
    fleet.offers(&["ws__echo"]).await?;
    Ok(fleet)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_calls_share_a_connection_that_carries_token_and_headers() -> Result<()> {
    let server = WebSocketServer::start().await?;
    let fleet = fleet(&server).await?;
    // Every client counts its ids from 1, and all of them are under way at once.
    let calls = (0..20).map(|turn| {
        let fleet = &fleet;
        async move {
            let mut client = fleet.client().await?;
            for round in 0..5 {
                let said = format!("{turn}.{round} é \u{2028}");
                let answer = client.text("ws__echo", json!({"text": said})).await?;
                ensure!(answer == said, "{said} was answered with {answer}");
            }
            Ok(())
        }
    });
    try_join_all(calls).await?;
    let calls = server.seen_of("tools/call");
    let mut ids: Vec<_> = calls.iter().map(|call| call["id"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == 100, "{} ids for 100 calls", ids.len());
    let upgrades = server.upgrades();
    let [headers] = &upgrades[..] else {
        anyhow::bail!("{} connections", upgrades.len());
    };
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|v| v == value);
    ensure!(has("authorization", "Bearer t0ken") && has("x-team", "core"));
    ensure!(has("sec-websocket-protocol", "mcp"));

    let mut client = fleet.client().await?;
    let params = json!({"name": "ws__report", "arguments": {"text": "done"}});
    let answer = client
        .post("tools/call", Some(params), Some(json!("mine")))
        .await?;
    let body = String::from_utf8(answer.body.to_vec())?;
    ensure!(body.contains(r#""progressToken":"mine""#), "{body}");
    ensure!(answer.response()?["result"]["content"][0]["text"] == "done");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_when_the_server_is_gone_and_it_is_found_again() -> Result<()> {
    let server = WebSocketServer::start().await?;
    let fleet = fleet(&server).await?;
    let mut client = fleet.client().await?;
    let hanging = (0..3).map(|_| async {
        let mut client = fleet.client().await?;
        client.call("ws__hang", json!({})).await
    });
    let mut hanging = std::pin::pin!(join_all(hanging));
    let all_arrived = until("the calls", || async {
        (server.seen_of("tools/call").len() == 3).then_some(())
    });
    tokio::select! {
        arrived = all_arrived => arrived?,
        ended = &mut hanging => anyhow::bail!("{ended:?}"),
    }
    let address = server.address();
    server.kill().await;
    for ended in hanging.await {
        ensure!(code(ended) == Some(GONE), "a call on a lost connection");
    }
    // Refused at once while there is no server.
    ensure!(client.call("ws__echo", json!({})).await.is_err());

    let server = WebSocketServer::start_at(address).await?;
    let mut client = again(&fleet, "back").await?;
    ensure!(server.upgrades().len() == 1);
    // A farewell is no different.
    ensure!(code(client.call("ws__leave", json!({})).await) == Some(GONE));
    again(&fleet, "once more").await?;
    ensure!(server.upgrades().len() == 2);
    Ok(())
}

/// Calls until the server answers.
async fn again(fleet: &Fleet, text: &str) -> Result<fleet_tests::client::Client> {
    until("an answer of the new server", || async {
        let mut client = fleet.client().await.ok()?;
        let answer = client.text("ws__echo", json!({"text": text})).await.ok()?;
        (answer == text).then_some(client)
    })
    .await
}

fn code(ended: Result<Value>) -> Option<i64> {
    ended.err()?.downcast::<Failure>().ok()?.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_floods_reach_nobody() -> Result<()> {
    let server = WebSocketServer::start().await?;
    let fleet = fleet(&server).await?;
    let mut client = fleet.client().await?;
    for tool in ["ws__noise", "ws__flood", "ws__echo"] {
        let answer = client.text(tool, json!({"text": tool})).await;
        let answer = answer.with_context(|| format!("{tool} failed"))?;
        ensure!(answer == tool, "{tool} was answered with {answer}");
    }
    ensure!(server.upgrades().len() == 1, "the connection was given up");
    Ok(())
}
