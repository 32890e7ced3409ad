//! Backends and clients that misbehave harm only themselves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fleet_tests::{
    backend::{Backend, broken, server::Server},
    client::{Connection, Failure},
    fleet::Fleet,
    programs::here,
    wait::until,
};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

/// Far more than what is asked of the product, far less than "for ever".
const AT_ONCE: Duration = Duration::from_secs(5);

/// A backend document. What never answers fails after its timeout, and only a call to that very
/// backend waits for so long.
fn http(name: &str, url: &str) -> String {
    format!("kind: Backend\nname: {name}\ntimeout: 2s\nhttp: {{ url: '{url}' }}\n---\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_backends_delay_neither_start_nor_lists_nor_calls() -> Result<()> {
    let good = Backend::start(Server::echo("good").legacy()).await?;
    let wrong = [
        ("hanging", Backend::start(broken::hanging()).await?),
        ("not-json", Backend::start(broken::not_json()).await?),
        ("not-mcp", Backend::start(broken::not_mcp()).await?),
        ("wrong-id", Backend::start(broken::wrong_id()).await?),
        ("truncated", Backend::start(broken::truncated()).await?),
        ("endless", Backend::start(broken::endless()).await?),
        ("failing", Backend::start(broken::failing()).await?),
        ("wrong-lists", Backend::start(broken::wrong_lists()).await?),
    ];
    let mut yaml = http("good", &good.url());
    yaml += &http(
        "refusing",
        &format!("http://{}/mcp", broken::refusing().await?),
    );
    for (name, backend) in &wrong {
        yaml += &http(name, &backend.url());
    }
    // One that may be silent for longer than anybody waits here: what bounds the first list
    // must not be its timeout.
    let silent = Backend::start(broken::hanging()).await?;
    yaml += &http("silent", &silent.url()).replace("timeout: 2s", "timeout: 60s");
    let garbage = json!({"command": "/bin/sh", "args": [here("servers/garbage.sh")]});
    let missing = json!({"command": "/not/a/program"});
    for (name, stdio) in [("garbage", garbage), ("missing", missing)] {
        yaml += &format!("kind: Backend\nname: {name}\ntimeout: 2s\nstdio: {stdio}\n---\n");
    }

    let fleet = Fleet::start(&yaml).await?;
    let asked = Instant::now();
    let mut client = fleet.client().await?;
    let names = client.names("tools/list").await?;
    ensure!(
        asked.elapsed() < AT_ONCE,
        "the first session and list took {:?}",
        asked.elapsed()
    );
    ensure!(names == ["good__echo"], "listed: {names:?}");

    let asked = Instant::now();
    for turn in 0..50 {
        let text = client
            .text("good__echo", json!({"text": turn.to_string()}))
            .await?;
        ensure!(text == format!("good:{turn}"), "{text}");
        client.names("tools/list").await?;
    }
    ensure!(
        asked.elapsed() < AT_ONCE,
        "50 calls and lists took {:?}",
        asked.elapsed()
    );

    let broken: Vec<_> = wrong.iter().map(|(name, _)| *name).collect();
    for name in broken.into_iter().chain(["refusing", "garbage", "missing"]) {
        let asked = Instant::now();
        let refused = client.text(&format!("{name}__echo"), json!({})).await;
        ensure!(refused.is_err(), "{name} cannot have answered");
        ensure!(
            asked.elapsed() < AT_ONCE,
            "a call to {name} took {:?}",
            asked.elapsed()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_shows_which_backend_is_in_what_state() -> Result<()> {
    let good = Backend::start(Server::echo("good").legacy()).await?;
    let hanging = Backend::start(broken::hanging()).await?;
    let garbage = Backend::start(broken::not_json()).await?;
    let yaml = http("good", &good.url())
        + &http("hanging", &hanging.url())
        + &http("garbage", &garbage.url())
        + &http(
            "refusing",
            &format!("http://{}/mcp", broken::refusing().await?),
        );
    let fleet = Fleet::start(&yaml).await?;
    fleet.offers(&["good__echo"]).await?;
    let told = until("states that tell the backends apart", || async {
        let states = states(&fleet.backends().await.ok()?)?;
        let state = |name: &str| {
            states
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, s)| s.as_str())
        };
        let fresh = state("good")? == "fresh";
        let failed = ["garbage", "refusing"]
            .iter()
            .all(|name| state(name) == Some("failed"));
        (fresh && failed && state("hanging")? != "fresh").then_some(())
    });
    let told = told.await;
    told.with_context(|| fleet.process.printed())
}

/// Name and state of each backend, as `GET /admin/backends` gives them.
fn states(answer: &Value) -> Option<Vec<(String, String)>> {
    let backends = answer["backends"].as_array()?.iter();
    let text = |backend: &Value, key: &str| Some(backend[key].as_str()?.to_owned());
    backends
        .map(|b| Some((text(b, "name")?, text(b, "state")?)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_fails_with_its_timeout_and_stops_no_other() -> Result<()> {
    let server = Server::echo("good").tool("hang", |_| std::future::pending());
    let backend = Backend::start(server.legacy()).await?;
    let url = backend.url();
    let fleet = Fleet::start(&http("good", &url)).await?;
    fleet.offers(&["good__hang"]).await?;
    let mut stuck = fleet.client().await?;
    let stuck = tokio::spawn(async move { stuck.text("good__hang", json!({})).await });
    until("the hanging call at the backend", || async {
        backend.seen_of("tools/call").first().map(drop)
    })
    .await?;
    let mut client = fleet.client().await?;
    for turn in 0..20 {
        let text = client
            .text("good__echo", json!({"text": turn.to_string()}))
            .await?;
        ensure!(text == format!("good:{turn}"), "{text}");
    }
    let error = stuck
        .await?
        .err()
        .context("a call that never ends has ended well")?;
    let failure = error.downcast::<Failure>()?;
    let message = failure.error["message"].as_str().unwrap_or_default();
    ensure!(message.contains("timed out"), "{failure}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_forgets_its_sessions_is_initialized_again_unnoticed() -> Result<()> {
    let server = Server::echo("good");
    let backend = Backend::start(server.legacy()).await?;
    let fleet = Fleet::start(&http("good", &backend.url())).await?;
    fleet.offers(&["good__echo"]).await?;
    let mut client = fleet.client().await?;
    for turn in 0..3 {
        let text = client
            .text("good__echo", json!({"text": turn.to_string()}))
            .await?;
        ensure!(text == format!("good:{turn}"), "{text}");
        server.forget_sessions();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_reach_no_backend() -> Result<()> {
    let backend = Backend::start(Server::echo("good").legacy()).await?;
    let fleet = Fleet::start(&http("good", &backend.url())).await?;
    fleet.offers(&["good__echo"]).await?;
    let session = fleet.client().await?.headers().to_vec();
    backend.forget();
    let call = r#""method":"tools/call","params":{"name":"good__echo","arguments":{}}"#;
    for (body, code) in [
        ("{".to_owned(), -32700),
        ("nonsense".to_owned(), -32700),
        (String::new(), -32700),
        ("null".to_owned(), -32600),
        ("[]".to_owned(), -32600),
        (format!(r#"[{{"jsonrpc":"2.0","id":1,{call}}}]"#), -32600),
        (format!(r#"{{"jsonrpc":"1.0","id":1,{call}}}"#), -32600),
        (format!(r#"{{"jsonrpc":"2.0","id":{{}},{call}}}"#), -32600),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"id":2,{call}}}"#), -32600),
        (format!(r#"{{"jsonrpc":"2.0","id":1,{call},"m\u0065thod":"ping"}}"#), -32600),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"good__echo","name":"x"}}"#
                .to_owned(),
            -32600,
        ),
        (format!(r#"{{"jsonrpc":"2.0","id":1,{call},"result":{{}}}}"#), -32600),
    ] {
        let answer = Connection::open(&fleet.url).await?.post(&session, body.clone()).await?;
        ensure!(answer.status == StatusCode::BAD_REQUEST, "{body}: {answer:?}");
        let error = &answer.response().with_context(|| body.clone())?["error"];
        ensure!(error["code"] == code, "{body}: {error}");
    }
    let not_utf8 = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}".to_vec();
    let answer = Connection::open(&fleet.url)
        .await?
        .post(&session, not_utf8)
        .await?;
    ensure!(answer.status == StatusCode::BAD_REQUEST, "{answer:?}");

    for (header, value, status) in [
        ("host", "evil.example.com", StatusCode::FORBIDDEN),
        ("origin", "https://evil.example.com", StatusCode::FORBIDDEN),
        ("mcp-session-id", "not-one-of-ours", StatusCode::NOT_FOUND),
    ] {
        let mut headers: Vec<_> = session
            .iter()
            .filter(|(n, _)| *n != header)
            .cloned()
            .collect();
        headers.push((header, value.to_owned()));
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,{call}}}"#);
        let answer = Connection::open(&fleet.url)
            .await?
            .post(&headers, body)
            .await?;
        ensure!(answer.status == status, "{header}: {value}: {answer:?}");
    }
    let elsewhere = Connection::open(&fleet.at("/nothing-here"))
        .await?
        .get()
        .await?;
    ensure!(elsewhere.status == StatusCode::NOT_FOUND, "{elsewhere:?}");
    let mut connection = Connection::open(&fleet.url).await?;
    let answer = connection
        .send(Method::PUT, &session, Bytes::from_static(b"{}"))
        .await?;
    ensure!(
        answer.status == StatusCode::METHOD_NOT_ALLOWED,
        "{answer:?}"
    );

    ensure!(
        backend.seen_of("tools/call").is_empty(),
        "reached: {:?}",
        backend.seen()
    );
    let text = fleet
        .client()
        .await?
        .text("good__echo", json!({"text": "still here"}))
        .await?;
    ensure!(text == "good:still here", "{text}");
    Ok(())
}
