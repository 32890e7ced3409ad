//! A session lives on one data plane. What its client is asked, is told and has missed comes to any
//! other one: each request of these tests goes to another one than the last.

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{Backend, talker::Talker},
    client::Client,
    fleet::LEGACY,
    wait::until,
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::peers::Three;

/// Three data planes, and the same client at each: its session lives on the first.
struct Elsewhere {
    talker: Talker,
    backend: Backend,
    at: [Client; 3],
    _three: Three,
}

async fn elsewhere() -> Result<Elsewhere> {
    let talker = Talker::default();
    let backend = Backend::start(talker.script()).await?;
    let url = backend.url();
    let more = format!("---\nkind: Backend\nname: talker\nhttp: {{ url: '{url}' }}\n");
    let three = Three::with(&more).await?;
    for node in 0..3 {
        until("the tools", || async {
            let mut client = Client::modern(&three.url(node)).await.ok()?;
            let names = client.names("tools/list").await.ok()?;
            names.contains(&"talker__ask".to_owned()).then_some(())
        })
        .await?;
    }
    let capabilities = json!({"sampling": {}, "elicitation": {"form": {}}, "roots": {}});
    let home = Client::legacy_that_can(&three.url(0), LEGACY, capabilities).await?;
    let (second, third) = (home.at(&three.url(1)).await?, home.at(&three.url(2)).await?);
    Ok(Elsewhere {
        talker,
        backend,
        at: [home, second, third],
        _three: three,
    })
}

fn told(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_answers_and_cancels_arrives_from_any_data_plane() -> Result<()> {
    let Elsewhere {
        backend,
        at,
        _three,
        ..
    } = &elsewhere().await?;
    // Where the call is made, and where it is answered.
    for (turn, (call, answer)) in [(0, 1), (1, 0), (1, 2), (2, 2), (2, 1)]
        .into_iter()
        .enumerate()
    {
        for method in ["elicitation/create", "sampling/createMessage", "roots/list"] {
            let id = format!("{method} {turn}");
            let arguments = json!({"id": id, "method": method, "params": {"x": 1.10}});
            let mut stream = at[call]
                .open_call(json!(turn), "talker__ask", arguments)
                .await?;
            let question = stream.message().await?;
            ensure!(question["method"] == method, "{question}");
            let said = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"of": id}});
            let accepted = at[answer].send(&said).await?;
            ensure!(
                accepted.status == StatusCode::ACCEPTED,
                "{call}, {answer}: {accepted:?}"
            );
            let response = stream.message().await?;
            let text = response["result"]["content"][0]["text"].as_str();
            let got: Value = serde_json::from_str(text.context("no text")?)?;
            ensure!(
                got["id"] == id && got["result"] == json!({"of": id}),
                "{got}"
            );
        }
    }
    let mut stream = at[1]
        .open_call(json!("c"), "talker__wait", json!({}))
        .await?;
    stream.message().await?;
    let cancelled = told("notifications/cancelled", json!({"requestId": "c"}));
    ensure!(at[2].send(&cancelled).await?.status == StatusCode::ACCEPTED);
    until("the cancellation at the backend", || async {
        let seen = backend.seen_of("notifications/cancelled");
        (seen.first()?.message["params"]["requestId"] == "c").then_some(())
    })
    .await?;
    let calls = backend.seen_of("tools/call");
    let session = calls[0].header("mcp-session-id");
    ensure!(
        calls
            .iter()
            .all(|call| call.header("mcp-session-id") == session)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_opened_and_resumed_at_any_data_plane() -> Result<()> {
    let Elsewhere {
        talker,
        backend,
        at,
        _three,
    } = &elsewhere().await?;
    let updated = told(
        "notifications/resources/updated",
        json!({"uri": "talk://one"}),
    );
    let log = told(
        "notifications/message",
        json!({"level": "info", "data": 1.10}),
    );
    let mut stream = at[1].listen(None).await?;
    ensure!(stream.status == StatusCode::OK, "{}", stream.status);
    let subscribe = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe",
        "params": {"uri": "talk://one"}});
    let subscribed = at[2].send(&subscribe).await?.response()?;
    ensure!(subscribed["result"].is_object(), "{subscribed}");
    backend.is_listened_to().await?;
    // What belongs to no call.
    talker.say(&updated);
    ensure!(stream.message().await? == updated);
    talker.say(&log);
    let event = loop {
        let event = stream.next().await?.context("the stream ended")?;
        if !event.data.is_empty() {
            break event;
        }
    };
    ensure!(event.message() == log, "{event:?}");
    // What is said while nobody reads is not lost, nor is anything said twice.
    drop(stream);
    talker.say(&updated);
    let mut stream = at[2].listen(event.id.as_deref()).await?;
    ensure!(stream.message().await? == updated);
    talker.say(&log);
    ensure!(stream.message().await? == log);
    let mut newer = at[0].listen(None).await?;
    ensure!(stream.next().await?.is_none(), "two streams at a time");
    talker.say(&updated);
    ensure!(newer.message().await? == updated);
    let upstream = backend.seen();
    let upstream = upstream.iter().filter(|seen| seen.http == Method::GET);
    ensure!(
        upstream.count() == 1,
        "a backend is listened to more than once"
    );

    // The stream of a call.
    let mut stream = at[1]
        .open_call(json!("w"), "talker__wait", json!({}))
        .await?;
    let first = stream.next().await?.context("nothing came")?;
    let waiting = stream.message().await?;
    drop(stream);
    let mut rest = at[2].listen(first.id.as_deref()).await?;
    ensure!(rest.message().await? == waiting);
    drop(rest);
    talker.go();
    let mut rest = at[0].listen(first.id.as_deref()).await?;
    ensure!(rest.message().await? == waiting);
    let response = rest.message().await?;
    ensure!(
        response["id"] == "w" && response["result"].is_object(),
        "{response}"
    );
    ensure!(rest.next().await?.is_none(), "the response is the last");
    Ok(())
}
