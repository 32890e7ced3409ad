//! Clients that open streams and stop reading: what is held for them has a bound, and neither
//! other clients nor other calls of the same backend wait for them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use anyhow::{Result, ensure};
use fleet_tests::{
    backend::{
        Backend,
        raw::{Era, Raw, Script, Transport},
        server::Server,
    },
    client::{Client, Events},
    fleet::{Fleet, LEGACY},
    load::Load,
    process::held,
    wait::until,
};
use futures_util::FutureExt;
use serde_json::{Value, json};

const BACKENDS: [(&str, Transport); 4] = [
    ("events", Transport::Events),
    ("sse", Transport::Sse),
    ("ws", Transport::WebSocket),
    ("stdio", Transport::Stdio),
];

/// Bytes that a call's backend has to say before it answers, and those of a message.
const SAYS: usize = 24 << 20;
const EACH: usize = 60 << 10;

/// What may be held for a client that does not read, in KiB: 2 MiB on their way from a
/// connection that calls share; 256 KiB that wait for the client and 256 KiB that were
/// sent, and a message more of each; 512 KiB in the HTTP connections before and behind.
const HELD: u64 = 2048 + 2 * (256 + 64) + 2 * 512;
/// What the product needs besides, for what it does meanwhile.
const BESIDES: u64 = 12 << 10;

/// `pour` says much, then answers; `echo` answers.
fn script(poured: Arc<AtomicUsize>) -> Script {
    Arc::new(move |asked, out| {
        let poured = poured.clone();
        async move {
            let text = "x".repeat(EACH);
            let token: Value = serde_json::from_str(&asked.token).unwrap_or_default();
            let params = json!({"progressToken": token, "progress": 1, "message": text});
            let note =
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
            let note = note.to_string();
            let times = if asked.name == "pour" { SAYS / EACH } else { 0 };
            for _ in 0..times {
                if !out.say(note.clone()).await {
                    return;
                }
                poured.fetch_add(EACH, Relaxed);
            }
            let content = json!({"content": [{"type": "text", "text": "said"}]});
            out.say(asked.answer("result", &content.to_string())).await;
        }
        .boxed()
    })
}

/// Calls `pour`, and reads no more than that the answer is a stream.
async fn stall(client: &mut Client, name: &str) -> Result<Events> {
    let params = json!({"name": format!("{name}__pour"), "arguments": {},
        "_meta": {"progressToken": "own"}});
    let stream = client.stream("tools/call", params).await?;
    let kind = &stream.headers["content-type"];
    ensure!(kind == "text/event-stream", "{kind:?}");
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_nobody_reads_hold_no_more_than_is_said_and_hold_up_nothing() -> Result<()> {
    let good = Backend::start(Server::echo("good").legacy()).await?;
    let mut yaml = format!(
        "kind: Backend\nname: good\nhttp: {{ url: '{}' }}\n---\n",
        good.url()
    );
    let mut backends = Vec::new();
    for (name, transport) in BACKENDS {
        let poured = Arc::<AtomicUsize>::default();
        let tools = ["pour", "echo"];
        let backend = Raw::start(transport, Era::Legacy, &tools, script(poured.clone())).await?;
        yaml += &backend.document(name, "");
        backends.push((name, transport, backend, poured));
    }
    let fleet = Fleet::start(&yaml).await?;
    let tools: Vec<_> = BACKENDS.map(|(name, _)| format!("{name}__pour")).to_vec();
    let tools: Vec<_> = tools
        .iter()
        .map(String::as_str)
        .chain(["good__echo"])
        .collect();
    fleet.offers(&tools).await?;
    let load = Load::start(
        vec![fleet.client().await?, fleet.client().await?],
        &["good"],
    );
    load.goes_on(100).await?;

    let pid = fleet.process.pid();
    let before = held(pid)?.memory;
    let mut stalled = Vec::new();
    for (name, ..) in &backends {
        for mut client in [
            Client::legacy(&fleet.url, LEGACY).await?,
            Client::modern(&fleet.url).await?,
        ] {
            stalled.push(stall(&mut client, name).await?);
        }
    }
    // A connection that calls share is read to the end, whoever does not take what it brings.
    for (name, transport, _, poured) in &backends {
        if *transport != Transport::Events {
            until(&format!("the end of what {name} says"), || async {
                (poured.load(Relaxed) >= 2 * (SAYS / EACH) * EACH).then_some(())
            })
            .await?;
        }
    }
    load.goes_on(100).await?;
    for (name, ..) in &backends {
        let mut client = fleet.client().await?;
        let text = client.text(&format!("{name}__echo"), json!({})).await?;
        ensure!(text == "said", "{name}: {text}");
    }
    let grown = held(pid)?.peak.saturating_sub(before);
    let most = HELD * stalled.len() as u64 + BESIDES;
    ensure!(
        grown <= most,
        "{grown} KiB are held for {} clients",
        stalled.len()
    );
    ensure!(load.stop().await? > 0);
    Ok(())
}
