//! Backends ask clients of the revisions with sessions, and tell them things, in the streams of
//! calls and outside of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{Backend, server::Server, talker::Talker},
    client::{Client, Events},
    fleet::{Fleet, LEGACY},
    wait::until,
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

fn document(name: &str, url: &str) -> String {
    format!("kind: Backend\nname: {name}\nhttp: {{ url: '{url}' }}\ntimeout: 1s\n---\n")
}

/// A fleet, the talking backend of it, and one that has nothing to say.
struct Talking {
    talker: Talker,
    backend: Backend,
    fleet: Fleet,
    _other: Backend,
}

async fn talking() -> Result<Talking> {
    let talker = Talker::default();
    let backend = Backend::start(talker.script()).await?;
    let other = Server::echo("other");
    let other = Backend::start(other.legacy()).await?;
    let yaml = document("talker", &backend.url()) + &document("other", &other.url());
    let fleet = Fleet::start(&yaml).await?;
    fleet.offers(&["talker__ask", "other__echo"]).await?;
    Ok(Talking {
        talker,
        backend,
        fleet,
        _other: other,
    })
}

async fn asked(client: &Client, id: &str, method: &str) -> Result<Events> {
    let params = json!({"x": 1.10, "_meta": {"progressToken": "own-token"}});
    let arguments = json!({"id": id, "method": method, "params": params});
    client.open_call(json!(1), "talker__ask", arguments).await
}

async fn able(fleet: &Fleet) -> Result<Client> {
    let capabilities = json!({"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}});
    Client::legacy_that_can(&fleet.url, LEGACY, capabilities).await
}

fn result(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backend_asks_reaches_the_client_on_the_stream_of_the_call() -> Result<()> {
    let talking = talking().await?;
    let Talking { backend, fleet, .. } = &talking;
    let client = able(fleet).await?;
    for method in [
        "sampling/createMessage",
        "elicitation/create",
        "roots/list",
        "acme/anything",
    ] {
        let mut stream = asked(&client, method, method).await?;
        let question = stream.message().await?;
        ensure!(question["method"] == method, "{question}");
        ensure!(question["params"]["x"] == 1.10, "{question}");
        let id = &question["id"];
        ensure!(id.is_string() && id != method, "the id is not sealed: {id}");
        // Longer than `timeout`: the client owes the answer.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let token = &question["params"]["_meta"]["progressToken"];
        let params = json!({"progressToken": token, "progress": 1});
        let progress =
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
        ensure!(client.send(&progress).await?.status == StatusCode::ACCEPTED);
        let answer = client.send(&result(id, json!({"of": method}))).await?;
        ensure!(answer.status == StatusCode::ACCEPTED, "{answer:?}");
        let response = stream.message().await?;
        ensure!(response["id"] == 1, "{response}");
        let text = response["result"]["content"][0]["text"].as_str();
        let told: Value = serde_json::from_str(text.context("no text")?)?;
        ensure!(
            told == result(&json!(method), json!({"of": method})),
            "{told}"
        );
        ensure!(stream.next().await?.is_none(), "the stream goes on");
    }
    let opened = backend.seen_of("initialize");
    let declared = |seen: &fleet_tests::backend::Seen| {
        seen.message["params"]["capabilities"]["elicitation"] == json!({"form": {}, "url": {}})
    };
    ensure!(opened.iter().any(declared), "{opened:?}");
    let progress = backend.seen_of("notifications/progress");
    ensure!(
        progress.len() == 4
            && progress
                .iter()
                .all(|p| p.message["params"]["progressToken"] == "own-token"),
        "{progress:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_in_a_batch_comes_before_its_responses() -> Result<()> {
    let talking = talking().await?;
    let url = &talking.fleet.url;
    let client = Client::legacy_that_can(url, "2025-03-26", json!({"sampling": {}})).await?;
    let arguments = json!({"id": "q", "method": "sampling/createMessage", "params": {}});
    let params = json!({"name": "talker__ask", "arguments": arguments});
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
        {"jsonrpc": "2.0", "id": 2, "method": "ping"},
    ]);
    let accept = "application/json, text/event-stream".to_owned();
    let mut headers = vec![("accept", accept)];
    headers.push(("content-type", "application/json".to_owned()));
    headers.extend(client.headers().iter().cloned());
    let mut stream = Events::open(url, Method::POST, &headers, batch.to_string()).await?;
    let question = stream.message().await?;
    ensure!(question["method"] == "sampling/createMessage", "{question}");
    let answer = result(&question["id"], json!({"role": "user"}));
    ensure!(client.send(&answer).await?.status == StatusCode::ACCEPTED);
    let responses = stream.message().await?;
    let text = responses[0]["result"]["content"][0]["text"].as_str();
    let told: Value = serde_json::from_str(text.with_context(|| responses.to_string())?)?;
    ensure!(told["result"] == json!({"role": "user"}), "{told}");
    ensure!(responses[1] == result(&json!(2), json!({})), "{responses}");
    ensure!(stream.next().await?.is_none(), "the stream goes on");

    // Nothing to ask, no stream.
    let ping = json!({"jsonrpc": "2.0", "id": 3, "method": "ping"});
    let answer = client.send(&json!([ping])).await?;
    ensure!(
        serde_json::from_slice::<Value>(&answer.body)? == json!([result(&json!(3), json!({}))]),
        "{answer:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_session_can_answer_a_question() -> Result<()> {
    let talking = talking().await?;
    let Talking { talker, fleet, .. } = &talking;
    let (client, stranger) = (able(fleet).await?, able(fleet).await?);
    let mut stream = asked(&client, "q", "roots/list").await?;
    let id = stream.message().await?["id"].clone();
    let mut changed = id.as_str().context("no text")?.to_owned();
    changed.replace_range(40..41, if &changed[40..41] == "A" { "B" } else { "A" });
    for (who, id) in [
        (&stranger, id.clone()),
        (&client, json!(changed)),
        (&client, json!("q")),
        (&client, json!(7)),
        (&client, json!("")),
    ] {
        let answer = who.send(&result(&id, json!({}))).await?;
        ensure!(answer.status == StatusCode::BAD_REQUEST, "{id}: {answer:?}");
        ensure!(answer.response()?["error"]["code"] == -32600, "{answer:?}");
    }
    ensure!(talker.answered("\"q\"").is_none(), "it had an effect");
    let error = json!({"code": -1, "message": "no"});
    let answer = json!({"jsonrpc": "2.0", "id": id, "error": error});
    ensure!(client.send(&answer).await?.status == StatusCode::ACCEPTED);
    stream.message().await?;
    let answered = talker.answered("\"q\"").context("no answer")?;
    ensure!(answered["error"] == error, "{answered}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_declared_nothing_is_not_asked() -> Result<()> {
    let talking = talking().await?;
    let Talking { backend, fleet, .. } = &talking;
    let mut client = fleet.client().await?;
    let arguments = json!({"id": "q", "method": "sampling/createMessage", "params": {}});
    let told: Value = serde_json::from_str(&client.text("talker__ask", arguments).await?)?;
    ensure!(told["error"]["code"] == -32601, "{told}");
    let opened = backend.seen_of("initialize");
    ensure!(
        opened
            .iter()
            .all(|o| o.message["params"]["capabilities"] == json!({}))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_of_a_client_reach_the_backend_concerned_only() -> Result<()> {
    let talker = Talker::default();
    let (one, two) = (
        Backend::start(talker.script()).await?,
        Backend::start(Talker::default().script()).await?,
    );
    let yaml = document("one", &one.url())
        + &document("two", &two.url())
        + "kind: Gateway\nname: g\npath: /mcp\nmethod_owner: { 'acme/*': two, 'acme/one': one, notifications/acme: two }\n";
    let fleet = Fleet::start(&yaml).await?;
    fleet.offers(&["one__wait", "two__wait"]).await?;
    let mut client = able(&fleet).await?;
    for tool in ["one__tell", "two__tell"] {
        client.call(tool, json!({})).await?;
    }
    let mut stream = client
        .open_call(json!("c\"1"), "one__wait", json!({}))
        .await?;
    stream.message().await?;
    let notify = async |method: &str, params: Value| {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        client.send(&message).await
    };
    for (method, params) in [
        (
            "notifications/cancelled",
            json!({"requestId": "c\"1", "reason": "r"}),
        ),
        ("notifications/cancelled", json!({"requestId": "another"})),
        ("notifications/roots/list_changed", json!({})),
        ("notifications/acme", json!({})),
        ("notifications/unknown", json!({})),
        (
            "notifications/progress",
            json!({"progressToken": 1, "progress": 1}),
        ),
    ] {
        let answer = notify(method, params).await?;
        ensure!(
            answer.status == StatusCode::ACCEPTED,
            "{method}: {answer:?}"
        );
    }
    let seen = |backend: &Backend, method: &str| backend.seen_of(method).len();
    let counts = |method| (seen(&one, method), seen(&two, method));
    ensure!(counts("notifications/cancelled") == (1, 0));
    let cancelled = one.seen_of("notifications/cancelled");
    ensure!(cancelled[0].message["params"] == json!({"requestId": "c\"1", "reason": "r"}));
    ensure!(
        !cancelled[0].header("mcp-session-id").is_empty(),
        "in the client's session"
    );
    ensure!(counts("notifications/roots/list_changed") == (1, 1));
    ensure!(counts("notifications/acme") == (0, 1));
    ensure!(counts("notifications/unknown") == (0, 0));
    ensure!(counts("notifications/progress") == (0, 0));
    talker.go();
    let response = stream.message().await?;
    ensure!(response["id"] == "c\"1", "{response}");
    client.request("acme/search", json!({})).await?;
    client.request("acme/one", json!({})).await?;
    ensure!(counts("acme/search") == (0, 1) && counts("acme/one") == (1, 0));
    let unknown = client.request("other/search", json!({})).await;
    ensure!(unknown.is_err(), "{unknown:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_call_reaches_the_stream_of_get() -> Result<()> {
    let talking = talking().await?;
    let Talking {
        talker,
        backend,
        fleet,
        ..
    } = &talking;
    let mut client = able(fleet).await?;
    let other = able(fleet).await?;
    let mut early = client.listen(None).await?;
    ensure!(early.status == StatusCode::OK, "{}", early.status);
    ensure!(early.headers["x-accel-buffering"] == "no");
    let prime = early.next().await?.context("no first event")?;
    ensure!(prime.id.is_some() && prime.retry.is_some() && prime.data.is_empty());
    // The upstream session is opened now, and listened to from then on.
    client.call("talker__tell", json!({})).await?;
    let listened = || async {
        let gets = backend.seen();
        let gets = gets.iter().filter(|seen| seen.http == Method::GET);
        (gets.count() == 1).then_some(())
    };
    until("one upstream stream", listened).await?;
    let updated = json!({
        "jsonrpc": "2.0", "method": "notifications/resources/updated",
        "params": {"uri": "talk://one"},
    });
    talker.say(&updated);
    let event = early.next().await?.context("no event")?;
    ensure!(event.message() == updated, "{event:?}");
    // A question outside of calls is answered as another.
    talker.say(&json!({"jsonrpc": "2.0", "id": 99, "method": "roots/list"}));
    let question = early.message().await?;
    let answer = client
        .send(&result(&question["id"], json!({"roots": []})))
        .await?;
    ensure!(answer.status == StatusCode::ACCEPTED, "{answer:?}");
    ensure!(talker.answered("99").is_some());
    // The client comes back and misses nothing.
    let last = event.id.context("no id")?;
    drop(early);
    let mut again = client.listen(Some(&last)).await?;
    ensure!(again.message().await? == question, "it is sent again");
    talker.say(&updated);
    ensure!(again.message().await? == updated);
    // A newer stream takes the place of the one before.
    let mut newer = client.listen(None).await?;
    ensure!(again.next().await?.is_none(), "two streams at a time");
    newer.next().await?;
    talker.say(&updated);
    ensure!(newer.message().await? == updated);
    ensure!(backend.seen_of("initialize").len() >= 2);
    let stranger = other.listen(Some(&last)).await?;
    ensure!(
        stranger.status == StatusCode::BAD_REQUEST,
        "{}",
        stranger.status
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_gateways_lists_is_told_to_who_listens() -> Result<()> {
    let talking = talking().await?;
    let Talking {
        talker,
        backend,
        fleet,
        ..
    } = &talking;
    let mut client = able(fleet).await?;
    ensure!(client.server["capabilities"]["tools"]["listChanged"] == true);
    client.call("talker__tell", json!({})).await?;
    let mut stream = client.listen(None).await?;
    backend.is_listened_to().await?;
    talker.adds("another");
    talker.say(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    let told = stream.message().await?;
    ensure!(
        told["method"] == "notifications/tools/list_changed",
        "{told}"
    );
    let names = client.names("tools/list").await?;
    ensure!(
        names.iter().any(|name| name == "talker__another"),
        "{names:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_a_call_goes_on_behind_the_last_event() -> Result<()> {
    let talking = talking().await?;
    let Talking { talker, fleet, .. } = &talking;
    let client = able(fleet).await?;
    let mut stream = client
        .open_call(json!(5), "talker__wait", json!({}))
        .await?;
    let mut first = stream.next().await?.context("nothing came")?;
    ensure!(first.data.is_empty() && first.id.is_some(), "{first:?}");
    let waiting = stream.message().await?;
    drop(stream);
    // The call lives on without its client.
    talker.go();
    let mut rest = client.listen(first.id.as_deref()).await?;
    ensure!(rest.status == StatusCode::OK, "{}", rest.status);
    ensure!(rest.message().await? == waiting);
    first = rest.next().await?.context("no response")?;
    ensure!(first.message()["id"] == 5, "{first:?}");
    ensure!(rest.next().await?.is_none(), "the response is the last");
    let mut nothing = client.listen(first.id.as_deref()).await?;
    ensure!(nothing.next().await?.is_none(), "it came twice");
    let garbage = client.listen(Some("garbage")).await?;
    ensure!(garbage.status == StatusCode::BAD_REQUEST);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_lets_go_of_a_call_is_asked_for_the_rest() -> Result<()> {
    let talking = talking().await?;
    let Talking { backend, fleet, .. } = &talking;
    let client = able(fleet).await?;
    let mut stream = client
        .open_call(json!(5), "talker__poll", json!({}))
        .await?;
    let prime = stream.next().await?.context("nothing came")?;
    ensure!(prime.data.is_empty() && prime.retry.is_some(), "{prime:?}");
    ensure!(stream.next().await?.is_none(), "the client is let go, too");
    let mut rest = client.listen(prime.id.as_deref()).await?;
    let response = rest.message().await?;
    ensure!(
        response["id"] == 5 && response["result"].is_object(),
        "{response}"
    );
    let gets = backend.seen();
    let resumed = |seen: &&fleet_tests::backend::Seen| !seen.header("last-event-id").is_empty();
    ensure!(gets.iter().filter(resumed).count() == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_loses_its_stream_and_grows_nothing() -> Result<()> {
    let talking = talking().await?;
    let Talking {
        talker,
        backend,
        fleet,
        ..
    } = &talking;
    let mut client = able(fleet).await?;
    client.call("talker__tell", json!({})).await?;
    let stalled = client.listen(None).await?;
    backend.is_listened_to().await?;
    // A call that floods, and nobody reads it either.
    let arguments = json!({"times": 4000, "size": 30_000});
    let flooded = client
        .open_call(json!(6), "talker__tell", arguments)
        .await?;
    let before = rss(fleet)?;
    let text = "x".repeat(30_000);
    let params = json!({"level": "info", "data": text});
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
    for _ in 0..40 {
        for _ in 0..50 {
            talker.say(&log);
        }
        let answer = client.text("other__echo", json!({"text": "here"})).await?;
        ensure!(answer == "other:here", "{answer}");
    }
    let grown = rss(fleet)?.saturating_sub(before);
    ensure!(grown < 24 << 10, "{grown} KiB for 180 MB that nobody read");
    drop((stalled, flooded));
    // It can listen again.
    let mut again = client.listen(None).await?;
    ensure!(again.status == StatusCode::OK && again.next().await?.is_some());
    Ok(())
}

/// Memory of the product, in KiB.
fn rss(fleet: &Fleet) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fleet.process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let text = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(text.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_reaches_the_stream_of_its_client() -> Result<()> {
    let talking = talking().await?;
    let Talking {
        talker,
        backend,
        fleet,
        ..
    } = &talking;
    let mut client = able(fleet).await?;
    let subscribe = json!({"uri": "talk://one"});
    let mut stream = client.listen(None).await?;
    ensure!(client.server["capabilities"]["resources"]["subscribe"] == true);
    client
        .request("resources/subscribe", subscribe.clone())
        .await?;
    backend.is_listened_to().await?;
    let updated =
        json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": subscribe});
    talker.say(&updated);
    ensure!(stream.message().await? == updated);
    client.request("resources/unsubscribe", subscribe).await?;
    ensure!(backend.seen_of("resources/unsubscribe").len() == 1);
    Ok(())
}
