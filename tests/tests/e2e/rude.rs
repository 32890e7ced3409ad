//! Backends that greet and list as they should, and misbehave in a call, over every transport: the
//! call ends with an error that says so, and calls of other backends never notice.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{
        Backend, answer, json as json_answer,
        raw::{Asked, Era, Out, Raw, Script, Transport},
        server::{Server, refused},
    },
    client::Failure,
    fleet::Fleet,
    load::Load,
    process::held,
    wait::until,
};
use futures_util::FutureExt;
use serde_json::{Value, json};

const BACKENDS: [(&str, Transport); 5] = [
    ("json", Transport::Json),
    ("events", Transport::Events),
    ("sse", Transport::Sse),
    ("ws", Transport::WebSocket),
    ("stdio", Transport::Stdio),
];

/// How a server may misbehave, and what the client is told: over [`BACKENDS`], in their order. 0:
/// the answer.
const WAYS: [(&str, [i64; 5]); 6] = [
    ("hang", [SILENT; 5]),
    ("not_json", [BAD, GONE, SILENT, SILENT, SILENT]),
    ("wrong_id", [BAD, GONE, SILENT, SILENT, SILENT]),
    // A WebSocket that carries such a text has to be closed (RFC 6455, section 8.1).
    ("not_utf8", [BAD, GONE, SILENT, GONE, SILENT]),
    ("twice", [BAD, 0, 0, 0, 0]),
    ("leave", [GONE; 5]),
];

const SILENT: i64 = -31002;
const BAD: i64 = -31003;
const GONE: i64 = -31004;

/// Notifications of a flood, and the memory in KiB that they may cost: no queue is longer than 64
/// messages or 256 KiB.
const FLOOD: usize = 30_000;
const FLOOD_COSTS: u64 = 24 << 10;
/// What comes of a message without an end, and the memory in KiB that one may cost: it is given up
/// at 64 MiB, and is there twice while its buffer grows.
const ENDLESS: usize = 192 << 20;
const ENDLESS_COSTS: u64 = 160 << 10;

/// Milliseconds between two times that a backend is asked for its lists, at the least.
const RESTS: usize = 250;

fn script() -> Script {
    Arc::new(|asked, out| async move { misbehave(asked, out).await }.boxed())
}

async fn misbehave(asked: Asked, out: Out) {
    let text = |text: &str| {
        let content = json!({"content": [{"type": "text", "text": text}]});
        asked.answer("result", &content.to_string())
    };
    match asked.name.as_str() {
        "hang" => std::future::pending().await,
        "not_json" => drop(out.say("<html>It works!</html>").await),
        "wrong_id" => {
            let other = Asked {
                id: r#""not yours""#.to_owned(),
                ..asked
            };
            out.say(other.answer("result", "{}")).await;
        }
        "not_utf8" => {
            let bytes = text("é").replace('é', "\u{1}").into_bytes();
            let bytes: Vec<_> = bytes
                .iter()
                .map(|b| if *b == 1 { 0xe9 } else { *b })
                .collect();
            out.say(bytes).await;
        }
        "twice" => {
            out.say(text("twice")).await;
            out.say(text("again")).await;
        }
        "leave" => out.hang_up().await,
        "flood" => {
            flood(&asked, &out).await;
            out.say(text("flood")).await;
        }
        "endless" => {
            for _ in 0..ENDLESS >> 16 {
                if !out.begin(vec![b' '; 1 << 16]).await {
                    return;
                }
            }
            out.say("").await;
        }
        other => drop(out.say(text(other)).await),
    }
}

/// Progress of the call and of another one, logs, and news that there are none of.
async fn flood(asked: &Asked, out: &Out) {
    let note = |method: &str, params: Value| {
        json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
    };
    let token: Value = serde_json::from_str(&asked.token).unwrap_or_default();
    let notes = [
        note(
            "notifications/progress",
            json!({"progressToken": token, "progress": 1, "message": "x".repeat(300)}),
        ),
        note(
            "notifications/progress",
            json!({"progressToken": "another", "progress": 1}),
        ),
        note(
            "notifications/message",
            json!({"level": "info", "data": "x".repeat(300)}),
        ),
        note("notifications/tools/list_changed", json!({})),
        note(
            "notifications/resources/updated",
            json!({"uri": "raw://one"}),
        ),
        note("notifications/acme", json!({})),
    ];
    for note in notes.iter().cycle().take(FLOOD) {
        if !out.say(note.clone()).await {
            return;
        }
    }
}

/// A fleet with a backend that behaves and one of each kind that does not.
struct Rude {
    fleet: Fleet,
    backends: Vec<Raw>,
    load: Load,
    _good: Backend,
}

impl Rude {
    async fn start() -> Result<Self> {
        let good = Backend::start(Server::echo("good").legacy()).await?;
        let mut yaml = format!(
            "kind: Backend\nname: good\nhttp: {{ url: '{}' }}\n---\n",
            good.url()
        );
        let mut tools = vec!["echo", "flood", "endless"];
        tools.extend(WAYS.map(|(way, _)| way));
        let mut backends = Vec::new();
        for (name, transport) in BACKENDS {
            let backend = Raw::start(transport, Era::Legacy, &tools, script()).await?;
            yaml += &backend.document(name, "timeout: 2s\n");
            backends.push(backend);
        }
        let fleet = Fleet::start(&yaml).await?;
        fleet
            .offers(&[
                "good__echo",
                "json__echo",
                "events__echo",
                "sse__echo",
                "ws__echo",
                "stdio__echo",
            ])
            .await?;
        let clients = vec![fleet.client().await?, fleet.client().await?];
        let load = Load::start(clients, &["good"]);
        load.goes_on(20).await?;
        Ok(Self {
            fleet,
            backends,
            load,
            _good: good,
        })
    }

    /// Calls a tool while the others go on: its text, or the code and message of its error.
    async fn call(&self, tool: &str) -> Result<Result<String, (i64, String)>> {
        let mut client = self.fleet.client().await?;
        let params = json!({"name": tool, "arguments": {}, "_meta": {"progressToken": "own"}});
        let called = client.request("tools/call", params);
        let (called, others) = tokio::join!(called, self.load.goes_on(20));
        others.with_context(|| format!("others, while {tool} was called"))?;
        let error = match called {
            Ok(result) => {
                return Ok(Ok(result["content"][0]["text"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()));
            }
            Err(error) => error.downcast::<Failure>()?,
        };
        let message = error.error["message"].as_str().unwrap_or_default();
        Ok(Err((error.code().unwrap_or_default(), message.to_owned())))
    }

    /// Waits until a backend answers as it should, again.
    async fn recovers(&self, name: &str) -> Result<()> {
        until("an answer of a backend that misbehaved", || async {
            let answer = self.call(&format!("{name}__echo")).await.ok()?;
            (answer.ok()? == "echo").then_some(())
        })
        .await
        .with_context(|| name.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_backend_spoils_ends_with_an_error_and_spoils_no_other() -> Result<()> {
    let rude = Rude::start().await?;
    for (way, codes) in WAYS {
        // At once: they are different backends.
        let calls = BACKENDS.map(|(name, _)| {
            let rude = &rude;
            async move { rude.call(&format!("{name}__{way}")).await }
        });
        let called = futures_util::future::try_join_all(calls).await?;
        for (((name, _), code), called) in BACKENDS.iter().zip(codes).zip(called) {
            let is_expected = match &called {
                Ok(text) => code == 0 && text == way,
                Err((told, message)) => {
                    *told == code && message.contains(&format!("backend {name}"))
                }
            };
            ensure!(is_expected, "{name} {way}: expected {code}, got {called:?}");
            rude.recovers(name).await?;
        }
    }
    ensure!(rude.load.stop().await? > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_and_messages_without_an_end_cost_no_more_memory_than_is_said() -> Result<()> {
    let rude = Rude::start().await?;
    let pid = rude.fleet.process.pid();
    let costs = async |tool: &str, most: u64| {
        let before = held(pid)?.memory;
        let called = rude.call(tool).await?;
        let cost = held(pid)?.peak.saturating_sub(before);
        ensure!(cost <= most, "{tool}: {cost} KiB");
        Ok(called)
    };
    // The peak is that of the whole life: the larger ones come last.
    for ((name, transport), backend) in BACKENDS.iter().zip(&rude.backends) {
        if *transport == Transport::Json {
            continue;
        }
        let (begun, listed) = (Instant::now(), backend.listed());
        let called = costs(&format!("{name}__flood"), FLOOD_COSTS).await?;
        ensure!(called.as_deref() == Ok("flood"), "{name}: {called:?}");
        let listed = backend.listed() - listed;
        // Not for every time that it says that they have changed.
        let most = 2 + begun.elapsed().as_millis() as usize / RESTS;
        ensure!(
            listed <= most,
            "{name} was asked {listed} times for its tools"
        );
    }
    for (name, _) in BACKENDS {
        let called = costs(&format!("{name}__endless"), ENDLESS_COSTS).await?;
        let code = called.err().context("there was no end")?.0;
        ensure!([SILENT, BAD, GONE].contains(&code), "{name}: {code}");
        rude.recovers(name).await?;
    }
    ensure!(rude.load.stop().await? > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_denies_every_session_is_asked_twice_for_one() -> Result<()> {
    let good = Backend::start(Server::echo("good").legacy()).await?;
    let denying = Server::echo("denying").on("tools/call echo", |seen| async move {
        json_answer(404, &refused(&seen, -32001, "Session not found"))
    });
    let silent = Server::echo("silent").on("tools/call echo", |_| async {
        answer(404, "text/plain", "")
    });
    let denying = Backend::start(denying.legacy()).await?;
    let silent = Backend::start(silent.legacy()).await?;
    let document = |name: &str, backend: &Backend| {
        format!(
            "kind: Backend\nname: {name}\nhttp: {{ url: '{}' }}\n---\n",
            backend.url()
        )
    };
    let yaml =
        document("good", &good) + &document("denying", &denying) + &document("silent", &silent);
    let fleet = Fleet::start(&yaml).await?;
    fleet
        .offers(&["good__echo", "denying__echo", "silent__echo"])
        .await?;
    let load = Load::start(vec![fleet.client().await?], &["good"]);
    for (name, backend, code) in [("denying", &denying, -32001), ("silent", &silent, BAD)] {
        let mut client = fleet.client().await?;
        for turn in 0..3 {
            backend.forget();
            let called = client.call(&format!("{name}__echo"), json!({})).await;
            let failure = called
                .err()
                .context("it was let in")?
                .downcast::<Failure>()?;
            ensure!(failure.code() == Some(code), "{name}: {failure}");
            let opened = backend.seen_of("initialize").len();
            ensure!(opened <= 2, "{name}, call {turn}: {opened} sessions");
            load.goes_on(10).await?;
        }
    }
    load.stop().await.map(drop)
}
