//! Calls of 2026-07-28 that take several rounds: what the client is given to bring back opens for
//! it, this request and this backend only.

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{
        Backend, json as answer,
        server::{Server, result},
    },
    client::{Client, Failure},
    fleet::Fleet,
};
use hyper::StatusCode;
use serde_json::{Value, json};

/// A server whose tool `ask` asks twice: its state counts the rounds. `stateless` gives none.
fn asking(name: &str) -> Server {
    Server::echo(name)
        .on("tools/call ask", |seen| async move {
            let params = &seen.message["params"];
            let round = match params["requestState"].as_str() {
                None => 0,
                Some(state) => state.len(),
            };
            let last = params["inputResponses"]["who"]["content"]["name"].clone();
            let content = json!([{"type": "text", "text": format!("{round} {last}")}]);
            answer(
                200,
                &result(
                    &seen,
                    if round == 2 {
                        json!({"resultType": "complete", "content": content})
                    } else {
                        json!({"resultType": "input_required", "requestState": "x".repeat(round + 1), "inputRequests": who()})
                    },
                ),
            )
        })
        .on("tools/call stateless", |seen| async move {
            let params = &seen.message["params"];
            let given = params.get("requestState").is_some();
            let done = json!({"resultType": "complete", "content": [{"type": "text", "text": format!("{given}")}]});
            let ask = json!({"resultType": "input_required", "inputRequests": who()});
            let answered = params["inputResponses"].is_object();
            answer(200, &result(&seen, if answered { done } else { ask }))
        })
}

fn who() -> Value {
    json!({"who": {"method": "elicitation/create", "params": {
        "mode": "form", "message": "Who?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}}})
}

fn again(tool: &str, arguments: &Value, state: &Value) -> Value {
    json!({"name": tool, "arguments": arguments, "requestState": state,
        "inputResponses": {"who": {"action": "accept", "content": {"name": "me"}}}})
}

struct Setup {
    one: Backend,
    two: Backend,
    fleet: Fleet,
}

async fn setup(gateway: &str) -> Result<Setup> {
    let one = Backend::start(asking("one").modern()).await?;
    let two = Backend::start(asking("two").modern()).await?;
    let old = Backend::start(Server::echo("old").legacy()).await?;
    let urls = (one.url(), two.url(), old.url());
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: one\nhttp: {{ url: '{}' }}\n---\n\
         kind: Backend\nname: two\nhttp: {{ url: '{}' }}\n---\n\
         kind: Backend\nname: old\nhttp: {{ url: '{}' }}\n---\n{gateway}",
        urls.0, urls.1, urls.2
    ))
    .await?;
    fleet.offers(&["one__ask", "two__ask"]).await?;
    Ok(Setup { one, two, fleet })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_takes_as_many_rounds_as_its_backend_asks_for() -> Result<()> {
    let Setup { one, two, fleet } = setup("kind: Gateway\nname: default\npath: /mcp\n").await?;
    let mut client = Client::modern(&fleet.url).await?;
    client.capabilities = json!({"elicitation": {}});
    for tool in ["one__ask", "two__ask"] {
        let arguments = json!({"b": [1.5, {"c": "d"}], "a": "x"});
        let mut result = client.call(tool, arguments.clone()).await?;
        for _ in 0..2 {
            ensure!(result["inputRequests"] == who(), "{result}");
            ensure!(result["resultType"] == "input_required", "{result}");
            let params = again(tool, &arguments, &result["requestState"]);
            result = client.request("tools/call", params).await?;
        }
        ensure!(result["content"][0]["text"] == "2 \"me\"", "{result}");
    }
    let first = client.call("one__stateless", json!({})).await?;
    let state = &first["requestState"];
    let params = again("one__stateless", &json!({}), state);
    let second = client.request("tools/call", params).await?;
    ensure!(second["content"][0]["text"] == "false", "{second}");
    ensure!(one.seen_of("tools/call").len() == 5);
    ensure!(two.seen_of("tools/call").len() == 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_made_up_stolen_or_meant_for_another_call_reaches_no_backend() -> Result<()>
{
    let policies = "kind: Gateway\nname: closed\npath: /closed\nauth: staff\n---\n\
         kind: Gateway\nname: other\npath: /other\nauth: staff\n---\n\
         kind: AuthPolicy\nname: staff\nbearer: { tokens: [the-first-token, the-second-token] }\n";
    let open = "kind: Gateway\nname: a-default\npath: /mcp\n---\n";
    let Setup { one, two, fleet } = setup(&format!("{open}{policies}")).await.context("setup")?;
    let mut client = Client::modern_with_token(&fleet.at("/closed"), "the-first-token").await?;
    let mut second = Client::modern_with_token(&fleet.at("/closed"), "the-second-token").await?;
    let mut elsewhere = Client::modern_with_token(&fleet.at("/other"), "the-first-token").await?;
    let arguments = json!({"amount": 1});
    let asked = client.call("one__ask", arguments.clone()).await?;
    let state = asked["requestState"].clone();
    one.forget();
    two.forget();
    let good = again("one__ask", &arguments, &state);
    let mut changed = good.clone();
    changed["arguments"]["amount"] = json!(1_000_000);
    let mut made_up = good.clone();
    made_up["requestState"] = json!("x");
    let mut cut = good.clone();
    let text = state.as_str().unwrap_or_default();
    cut["requestState"] = json!(text[..text.len() - 1]);
    let mut no_text = good.clone();
    no_text["requestState"] = json!({"x": 1});
    let other_tool = again("one__stateless", &arguments, &state);
    let other_backend = again("two__ask", &arguments, &state);
    for params in [
        &changed,
        &made_up,
        &cut,
        &no_text,
        &other_tool,
        &other_backend,
    ] {
        refused(client.request("tools/call", params.clone()).await, params)?;
    }
    refused(second.request("tools/call", good.clone()).await, &good)?;
    refused(elsewhere.request("tools/call", good.clone()).await, &good)?;
    ensure!(one.seen_of("tools/call").is_empty(), "{:?}", one.seen());
    ensure!(two.seen_of("tools/call").is_empty(), "{:?}", two.seen());

    let next = client.request("tools/call", good).await?;
    ensure!(next["resultType"] == "input_required", "{next}");
    Ok(())
}

fn refused(answer: Result<Value>, params: &Value) -> Result<()> {
    let error = answer
        .err()
        .with_context(|| format!("accepted: {params}"))?;
    let failure = error.downcast::<Failure>()?;
    ensure!(failure.code() == Some(-32602), "{params}: {failure}");
    ensure!(
        failure.status == StatusCode::BAD_REQUEST,
        "{params}: {failure}"
    );
    Ok(())
}
