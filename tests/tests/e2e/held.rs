//! Calls of 2026-07-28 clients that wait for an answer in the middle of them: the answer may come
//! to any data plane, and to nobody but the one that was asked.

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{
        Backend, json as answer,
        server::{Server, refused, result as response},
        talker::Talker,
    },
    client::{Client, Failure},
    fleet::Fleet,
    wait::until,
};
use hyper::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::peers::Three;

fn talker(url: &str) -> String {
    format!("kind: Backend\nname: talker\nhttp: {{ url: '{url}' }}\n---\n")
}

fn question(id: &str) -> Value {
    let params =
        json!({"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}});
    json!({"id": id, "method": "elicitation/create", "params": params})
}

/// A client of this endpoint that can be asked.
async fn able(url: &str, token: Option<&str>) -> Result<Client> {
    let mut client = match token {
        Some(token) => Client::modern_with_token(url, token).await?,
        None => Client::modern(url).await?,
    };
    client.capabilities = json!({"elicitation": {}});
    Ok(client)
}

/// What goes on with a call of `ask`.
fn retry(asked: &Value, arguments: &Value) -> Result<Value> {
    let requests = asked["inputRequests"].as_object();
    let (name, _) = requests
        .and_then(|requests| requests.iter().next())
        .with_context(|| format!("nothing is asked: {asked}"))?;
    Ok(json!({"name": "talker__ask", "arguments": arguments,
        "requestState": asked["requestState"],
        "inputResponses": {name: {"action": "accept", "content": {"name": "me"}}}}))
}

fn failure(answer: Result<Value>) -> Result<Failure> {
    let error = answer.err().context("it was accepted")?;
    error.downcast::<Failure>()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_may_come_to_any_data_plane() -> Result<()> {
    let backend = Backend::start(Talker::default().script()).await?;
    let more = format!("---\n{}", talker(&backend.url()));
    let three = Three::with(more.trim_end_matches("---\n")).await?;
    let mut first = able(&three.url(0), None).await?;
    until("the tool", || async {
        let mut client = Client::modern(&three.url(0)).await.ok()?;
        let names = client.names("tools/list").await.ok()?;
        names.contains(&"talker__ask".to_owned()).then_some(())
    })
    .await?;
    let arguments = question("one");
    let asked = first.call("talker__ask", arguments.clone()).await?;
    let mut second = able(&three.url(1), None).await?;
    let done = second
        .request("tools/call", retry(&asked, &arguments)?)
        .await?;
    let text = done["content"][0]["text"].as_str().unwrap_or_default();
    ensure!(text.contains("accept") && text.contains("me"), "{done}");
    ensure!(
        backend.seen_of("tools/call").len() == 1,
        "it was called anew"
    );

    let arguments = question("two");
    let asked = first.call("talker__ask", arguments.clone()).await?;
    three.nodes[0].process.signal(Signal::KILL)?;
    let refused = second
        .request("tools/call", retry(&asked, &arguments)?)
        .await;
    let refused = failure(refused)?;
    ensure!(refused.code() == Some(-31010), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_was_asked_can_go_on_and_only_once() -> Result<()> {
    let backend = Backend::start(Talker::default().script()).await?;
    let policies = "kind: Gateway\nname: a-default\npath: /mcp\n---\n\
         kind: Gateway\nname: closed\npath: /closed\nauth: staff\n---\n\
         kind: AuthPolicy\nname: staff\nbearer: { tokens: [the-first-token, the-second-token] }\n";
    let fleet = Fleet::start(&(talker(&backend.url()) + policies)).await?;
    fleet.offers(&["talker__ask"]).await?;
    let url = fleet.at("/closed");
    let mut client = able(&url, Some("the-first-token")).await?;
    let mut other = able(&url, Some("the-second-token")).await?;
    let arguments = question("one");
    let asked = client.call("talker__ask", arguments.clone()).await?;
    let good = retry(&asked, &arguments)?;
    let mut changed = good.clone();
    changed["arguments"]["id"] = json!("two");
    for (who, params) in [(&mut other, &good), (&mut client, &changed)] {
        let refused = failure(who.request("tools/call", params.clone()).await)?;
        ensure!(refused.code() == Some(-32602), "{refused}");
        ensure!(refused.status == StatusCode::BAD_REQUEST, "{refused}");
    }
    // Who answers nothing is asked again.
    let mut nothing = good.clone();
    nothing["inputResponses"] = json!({});
    let again = client.request("tools/call", nothing).await?;
    ensure!(again["resultType"] == "input_required", "{again}");
    ensure!(again["inputRequests"] == asked["inputRequests"], "{again}");
    let refused = failure(client.request("tools/call", good).await)?;
    ensure!(
        refused.code() == Some(-32602),
        "an old state goes on: {refused}"
    );
    let done = client
        .request("tools/call", retry(&again, &arguments)?)
        .await?;
    ensure!(done["resultType"] == "complete", "{done}");
    ensure!(
        backend.seen_of("tools/call").len() == 1,
        "it was called anew"
    );

    // The next call of such a client is made in the same session, and one that cannot be asked
    // in another one.
    client.call("talker__tell", json!({})).await?;
    let mut unable = Client::modern_with_token(&url, "the-first-token").await?;
    unable.call("talker__tell", json!({})).await?;
    let calls = backend.seen_of("tools/call");
    let sessions: Vec<_> = calls.iter().map(|s| s.header("mcp-session-id")).collect();
    ensure!(
        sessions.len() == 3 && sessions[0] == sessions[1],
        "{sessions:?}"
    );
    ensure!(sessions[1] != sessions[2], "{sessions:?}");
    Ok(())
}

/// A backend of 2025-11-25 refuses until its user has been somewhere.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_to_go_somewhere_first_is_asked_to() -> Result<()> {
    let place = json!({"mode": "url", "message": "Log in", "elicitationId": "e1",
        "url": "https://example.com/login"});
    let data = json!({"elicitations": [place]});
    let server = Server::echo("talker").on("tools/call ask", move |seen| {
        let data = data.clone();
        async move {
            if seen.message["params"]["inputResponses"].is_object() {
                let done = json!({"content": [{"type": "text", "text": "in"}]});
                return answer(200, &response(&seen, done));
            }
            let mut error = refused(&seen, -32042, "URL elicitation is required");
            error["error"]["data"] = data;
            answer(200, &error)
        }
    });
    let backend = Backend::start(server.legacy()).await?;
    let fleet = Fleet::start(&talker(&backend.url())).await?;
    fleet.offers(&["talker__ask"]).await?;
    let mut client = able(&fleet.url, None).await?;
    let refused = failure(client.call("talker__ask", json!({})).await)?;
    ensure!(
        refused.code() == Some(-32042),
        "asked a client that knows only of forms: {refused}"
    );
    client.capabilities = json!({"elicitation": {"url": {}}});
    let asked = client.call("talker__ask", json!({})).await?;
    let request = json!({"method": "elicitation/create", "params": place});
    ensure!(
        asked["inputRequests"] == json!({"url-1": request}),
        "{asked}"
    );
    let done = client
        .request("tools/call", retry(&asked, &json!({}))?)
        .await?;
    ensure!(done["resultType"] == "complete", "{done}");
    let sent = backend.seen_of("tools/call");
    let last = sent.last().context("nothing was sent")?;
    ensure!(
        last.message["params"].get("requestState").is_none(),
        "{last:?}"
    );
    let mut unable = Client::modern(&fleet.url).await?;
    let refused = failure(unable.call("talker__ask", json!({})).await)?;
    ensure!(refused.code() == Some(-32042), "{refused}");
    Ok(())
}

/// Some servers ask on the stream of the session what belongs to a call.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_beside_the_stream_of_the_call_is_asked_too() -> Result<()> {
    let backend = Backend::start(Talker::default().script()).await?;
    let fleet = Fleet::start(&talker(&backend.url())).await?;
    fleet.offers(&["talker__ask"]).await?;
    let mut client = able(&fleet.url, None).await?;
    for id in ["one", "two"] {
        let mut arguments = question(id);
        arguments["aside"] = json!(true);
        let asked = client.call("talker__ask", arguments.clone()).await?;
        ensure!(asked["resultType"] == "input_required", "{asked}");
        let done = client
            .request("tools/call", retry(&asked, &arguments)?)
            .await?;
        let text = done["content"][0]["text"].as_str().unwrap_or_default();
        ensure!(text.contains("accept"), "{done}");
    }
    ensure!(
        backend.seen_of("tools/call").len() == 2,
        "it was called anew"
    );
    Ok(())
}
