//! Clients of the older era while data planes are killed and started, one after the other, behind a
//! balancer without affinity: they lose the calls that a killed one held, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use fleet_tests::{
    backend::{Backend, talker::Talker},
    client::{Answer, Client, get},
    fleet::LEGACY,
    wait::until,
};
use hyper::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::peers::{Three, delete, metric, peers, post};

const CLIENTS: usize = 8;
/// Calls of all clients; more, where the data planes are not through by then.
const CALLS: usize = 1_000;
/// Each data plane is killed twice.
const KILLS: usize = 6;
/// What a call gets that was held at a data plane which is gone.
const HOME_GONE: i64 = -31010;
const RESOURCE: &str = "talk://one";

/// What all of them know of.
#[derive(Default)]
struct Course {
    /// Odd while a data plane is being killed.
    kills: AtomicUsize,
    calls: AtomicUsize,
    lost: Mutex<BTreeMap<String, usize>>,
    over: AtomicBool,
}

impl Course {
    fn now(&self) -> usize {
        self.kills.load(Ordering::SeqCst)
    }

    /// Whether a data plane was being killed at any time since.
    fn has_killed_since(&self, before: usize) -> bool {
        before % 2 == 1 || self.now() != before
    }
}

/// Why a call has no result: the only ways in which one may be lost.
enum Lost {
    /// It was held at a data plane that is gone.
    HomeGone,
    /// The data plane that the balancer had given it to is gone.
    Balancer,
    /// So is the one that it was answered by.
    Broken(String),
}

impl Lost {
    fn broken(error: &anyhow::Error) -> Self {
        Self::Broken(format!("{error:#}"))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::HomeGone => "held at its home",
            Self::Balancer => "502 of the balancer",
            Self::Broken(_) => "broken off",
        }
    }
}

/// The result of an answer; an error that is none of ours is one of the test.
fn result_of(message: &Value) -> Result<Result<Value, Lost>> {
    match &message["error"]["code"] {
        Value::Null => Ok(Ok(message["result"].clone())),
        code if *code == HOME_GONE => Ok(Err(Lost::HomeGone)),
        _ => bail!("refused: {message}"),
    }
}

fn whole(answer: Result<Answer>) -> Result<Result<Value, Lost>> {
    match answer {
        Err(error) => Ok(Err(Lost::broken(&error))),
        Ok(answer) if answer.status == StatusCode::BAD_GATEWAY => Ok(Err(Lost::Balancer)),
        Ok(answer) => match answer.response() {
            Ok(message) => result_of(&message),
            Err(_) if answer.status == StatusCode::OK => {
                Ok(Err(Lost::Broken(format!("{answer:?}"))))
            }
            Err(error) => Err(error.context(format!("{answer:?}"))),
        },
    }
}

/// One client, its number, and its subscription.
struct One {
    number: usize,
    client: Client,
    course: Arc<Course>,
}

impl One {
    /// A call that is answered at once: by the HTTP backend, or by the child that its session has.
    async fn plain(&self, turn: usize) -> Result<Result<Value, Lost>> {
        let tool = if turn.is_multiple_of(3) {
            "child__pid"
        } else {
            "talker__progress"
        };
        let params = json!({"name": tool, "arguments": {"client": self.number}});
        let message = json!({"jsonrpc": "2.0", "id": format!("p{turn}"), "method": "tools/call", "params": params});
        whole(self.client.send(&message).await)
    }

    /// A call in which the client is asked: its answer goes to whatever data plane is next.
    async fn asked(&self, turn: usize) -> Result<Result<Value, Lost>> {
        let question = format!("q-{}-{turn}", self.number);
        let asked =
            json!({"message": question, "requestedSchema": {"type": "object", "properties": {}}});
        let arguments = json!({"client": self.number, "id": question, "method": "elicitation/create", "params": asked});
        let id = json!(format!("a{turn}"));
        let opened = self
            .client
            .open_call(id.clone(), "talker__ask", arguments)
            .await;
        let mut events = match opened {
            Err(error) => return Ok(Err(Lost::broken(&error))),
            Ok(events) if events.status == StatusCode::BAD_GATEWAY => {
                return Ok(Err(Lost::Balancer));
            }
            Ok(events) => events,
        };
        ensure!(events.status == StatusCode::OK, "{}", events.status);
        let said = json!({"action": "accept", "content": {"turn": turn}});
        loop {
            let message = match events.message().await {
                Ok(message) => message,
                Err(error) => return Ok(Err(Lost::broken(&error))),
            };
            if message["id"] == id {
                let result = match result_of(&message)? {
                    Ok(result) => result,
                    lost => return Ok(lost),
                };
                let text = result["content"][0]["text"].as_str().context("no text")?;
                let told: Value = serde_json::from_str(text)?;
                ensure!(told["result"] == said, "asked {question}, told {told}");
                return Ok(Ok(result));
            }
            if message["method"] != "elicitation/create" {
                continue;
            }
            ensure!(message["params"]["message"] == question, "{message}");
            let response = json!({"jsonrpc": "2.0", "id": message["id"], "result": said});
            match self.client.send(&response).await {
                Err(error) => return Ok(Err(Lost::broken(&error))),
                Ok(sent) if sent.status == StatusCode::ACCEPTED => {}
                Ok(sent) if sent.status == StatusCode::BAD_GATEWAY => {
                    return Ok(Err(Lost::Balancer));
                }
                // Where the call is lost, its question is nobody's.
                Ok(sent) if sent.status == StatusCode::BAD_REQUEST => {}
                Ok(sent) => {
                    let refused = sent.response().with_context(|| format!("{sent:?}"))?;
                    return result_of(&refused);
                }
            }
        }
    }

    /// Calls until all is done. A call may be lost only while a data plane is being killed.
    async fn run(&self) -> Result<()> {
        let mut turn = 0;
        while !self.course.over.load(Ordering::SeqCst) {
            turn += 1;
            let before = self.course.now();
            let outcome = if turn % 4 == 0 {
                self.asked(turn).await
            } else {
                self.plain(turn).await
            };
            let is_killing = self.course.has_killed_since(before);
            self.course.calls.fetch_add(1, Ordering::SeqCst);
            let outcome =
                outcome.with_context(|| format!("client {}, call {turn}", self.number))?;
            let Err(lost) = outcome else { continue };
            let name = lost.name();
            let why = if let Lost::Broken(why) = &lost {
                why
            } else {
                ""
            };
            ensure!(
                is_killing,
                "client {}, call {turn}: {name} while none was killed: {why}",
                self.number
            );
            *self.course.lost.lock().entry(name.to_owned()).or_default() += 1;
        }
        Ok(())
    }
}

/// Keeps the stream of a session open until all is over, and counts what comes of its subscription.
async fn listens(client: Arc<One>, updates: Arc<AtomicUsize>) -> Result<()> {
    let mut last: Option<String> = None;
    loop {
        let before = client.course.now();
        let opened = client.client.listen(last.as_deref()).await;
        let is_killing = client.course.has_killed_since(before);
        let mut events = match opened {
            Ok(events) if events.status == StatusCode::OK => events,
            Ok(events) if is_killing && events.status == StatusCode::BAD_GATEWAY => continue,
            Err(_) if is_killing => continue,
            Ok(events) => bail!("the stream: {}", events.status),
            Err(error) => return Err(error.context("the stream")),
        };
        loop {
            let event = match events.next().await {
                Ok(Some(event)) => event,
                // One that brings nothing for so long is no stream any more.
                Err(error) if error.to_string().contains("in vain") => return Err(error),
                Ok(None) | Err(_) => break,
            };
            last = event.id.clone().or(last);
            if event.message()["method"] == "notifications/resources/updated" {
                updates.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// Kills one after the other, and starts it again when the others have noticed.
async fn kills(three: &mut Three, balancer: &str, course: &Course) -> Result<()> {
    for kill in 0..KILLS {
        let node = kill % 3;
        let enough = course.calls.load(Ordering::SeqCst) + CALLS / (KILLS + 1);
        until("calls in between", || async {
            (course.calls.load(Ordering::SeqCst) >= enough).then_some(())
        })
        .await?;
        course.kills.fetch_add(1, Ordering::SeqCst);
        three.nodes[node].process.kill().await?;
        // A call may still be given to it, until the others and the balancer have learned of the
        // ends of their connections: the balancer has, when it has gone round twice.
        for other in [(node + 1) % 3, (node + 2) % 3] {
            peers(&three.nodes[other], 1).await?;
        }
        for _ in 0..2 {
            get(balancer).await?;
        }
        course.kills.fetch_add(1, Ordering::SeqCst);
        three.restart(node).await?;
        for each in &three.nodes {
            peers(each, 2).await?;
        }
        // The balancer gives it nothing for a while. It must have found it again before another one
        // is killed, or it has none left.
        until("requests that come to the new one", || async {
            let relayed = metric(&three.nodes[node], "mcp_fleet_relayed_total ").await?;
            (relayed > 0).then_some(())
        })
        .await?;
    }
    until("all calls", || async {
        (course.calls.load(Ordering::SeqCst) >= CALLS).then_some(())
    })
    .await
}

/// The sessions of each client in which it has called the HTTP backend.
fn sessions(backend: &Backend) -> BTreeMap<u64, BTreeSet<String>> {
    let mut of = BTreeMap::<_, BTreeSet<_>>::new();
    for seen in backend.seen_of("tools/call") {
        let client = seen.message["params"]["arguments"]["client"].as_u64();
        of.entry(client.unwrap_or(u64::MAX))
            .or_default()
            .insert(seen.header("mcp-session-id").to_owned());
    }
    of
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_lose_the_calls_that_a_killed_data_plane_held_and_nothing_else() -> Result<()> {
    let talker = Talker::default();
    let backend = Backend::start(talker.script()).await?;
    let yaml = format!(
        "---\nkind: Backend\nname: talker\nhttp: {{ url: '{}' }}\n",
        backend.url()
    );
    let mut three = Three::with(&yaml).await?;
    let balancer = three.balancer().await?;
    let course = Arc::new(Course::default());
    let (mut clients, mut updates) = (Vec::new(), Vec::new());
    let (mut calling, mut listening) = (JoinSet::new(), JoinSet::new());
    for number in 0..CLIENTS {
        let able = json!({"elicitation": {"form": {}}});
        let mut client = Client::legacy_that_can(&balancer.url, LEGACY, able).await?;
        client
            .request("resources/subscribe", json!({"uri": RESOURCE}))
            .await?;
        let one = Arc::new(One {
            number,
            client,
            course: course.clone(),
        });
        let heard = Arc::new(AtomicUsize::new(0));
        listening.spawn(listens(one.clone(), heard.clone()));
        clients.push(one);
        updates.push(heard);
    }
    for one in &clients {
        let one = one.clone();
        calling.spawn(async move { one.run().await });
    }
    // As long as all live, a client has one session at the backend.
    until("a round of calls", || async {
        (course.calls.load(Ordering::SeqCst) >= 100).then_some(())
    })
    .await?;
    is_one_for_each(&backend)?;

    let killed = kills(&mut three, &balancer.url, &course).await;
    course.over.store(true, Ordering::SeqCst);
    while let Some(run) = calling.join_next().await {
        run??;
    }
    killed?;
    let lost = course.lost.lock().clone();
    println!(
        "{} calls, lost: {lost:?}",
        course.calls.load(Ordering::SeqCst)
    );
    ensure!(
        listening.try_join_next().is_none(),
        "a stream could not be opened again"
    );

    // All homes are back: again one session for each, in which it is told what it has subscribed to.
    backend.forget();
    for turn in 1..=8 {
        for one in &clients {
            let outcome = if turn % 4 == 0 {
                one.asked(turn).await?
            } else {
                one.plain(turn).await?
            };
            outcome.map_err(|lost| anyhow!("{}", lost.name()))?;
        }
    }
    is_one_for_each(&backend)?;
    let heard = || -> Vec<_> { updates.iter().map(|n| n.load(Ordering::SeqCst)).collect() };
    let all_hear = |what| {
        let (heard, before, talker) = (&heard, heard(), &talker);
        until(what, move || {
            talker.update(RESOURCE);
            let all = heard()
                .iter()
                .zip(&before)
                .all(|(now, before)| now > before);
            async move { all.then_some(()) }
        })
    };
    all_hear("the update at all clients").await?;
    // Nor does it matter that the backend forgets them.
    talker.forget_sessions();
    all_hear("the update at all clients after a restart of the backend").await?;

    // A session that is ended at one is over at all.
    let ended = &clients[0].client;
    let gone = delete(&balancer.url, ended).await?;
    ensure!(gone == StatusCode::NO_CONTENT, "{gone}");
    for node in 0..3 {
        until("404 of each", || async {
            let list = post(&three.url(node), ended, "tools/list", json!({})).await;
            (list.ok()?.status == StatusCode::NOT_FOUND).then_some(())
        })
        .await?;
    }
    Ok(())
}

fn is_one_for_each(backend: &Backend) -> Result<()> {
    let sessions = sessions(backend);
    ensure!(
        sessions.len() == CLIENTS && sessions.values().all(|of| of.len() == 1),
        "{sessions:?}"
    );
    Ok(())
}
