//! A scripted server of the revisions with sessions that asks its clients, tells them what it
//! likes when it likes, and lets them come back for the rest of a stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{body::Body, response::Response};
use futures_util::{FutureExt, stream};
use hyper::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Script, Seen, json as answer_json};

/// The server. Its tools:
///
/// - `ask {method, params, id, aside}`: asks the client, and answers what the client has answered;
///   if `aside`, on the stream of the session;
/// - `log`: a log message of every severity from the session's level on, `warning` at first;
/// - `tell {times, size}`: log messages, then an answer;
/// - `progress`: tells of some, under the token of the call, then answers;
/// - `wait`: log message `waiting`, then nothing until the test lets it [go](Talker::go);
/// - `poll`: lets the client go, and answers when it has come back.
#[derive(Clone, Default)]
pub struct Talker(Arc<State>);

/// Severities of log messages, the least first.
pub const SEVERITIES: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

#[derive(Default)]
struct State {
    next: AtomicU64,
    /// What was sent on each stream; that of a session's GET is named after it.
    logs: Mutex<BTreeMap<String, Arc<Log>>>,
    /// Answers of clients, by the id of the question.
    answers: Mutex<BTreeMap<String, Value>>,
    /// The log levels of sessions, as places in [`SEVERITIES`].
    levels: Mutex<BTreeMap<String, usize>>,
    /// Tools that were added.
    more: Mutex<Vec<String>>,
    /// Sessions, with the resource that each has subscribed to.
    subscribed: Mutex<BTreeSet<(String, String)>>,
    came: watch::Sender<u64>,
    going: watch::Sender<bool>,
}

/// Events of one stream.
#[derive(Default)]
struct Log {
    written: Mutex<Written>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Written {
    events: Vec<String>,
    done: bool,
    /// A first connection ends behind so many events.
    cut: Option<usize>,
}

impl Log {
    fn write(&self, change: impl FnOnce(&mut Written)) {
        change(&mut self.written.lock());
        self.changed.send_modify(|n| *n += 1);
    }

    fn say(&self, name: &str, message: &Value) {
        self.write(|written| {
            let id = format!("{name}/{}", written.events.len() + 1);
            let event = format!("id: {id}\nevent: message\ndata: {message}\n\n");
            written.events.push(event);
        });
    }
}

impl Talker {
    /// The script.
    #[must_use]
    pub fn script(&self) -> Script {
        let talker = self.clone();
        Arc::new(move |seen| talker.clone().answer(seen).boxed())
    }

    /// Says something outside of calls, in every session.
    pub fn say(&self, message: &Value) {
        let logs = self.0.logs.lock();
        for (name, log) in logs.iter().filter(|(name, _)| name.starts_with("s-")) {
            log.say(name, message);
        }
    }

    /// Says that a resource has changed, in the sessions that have subscribed to it.
    pub fn update(&self, uri: &str) {
        let params = json!({"uri": uri});
        let message = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params});
        let (logs, subscribed) = (self.0.logs.lock(), self.0.subscribed.lock());
        for (name, log) in logs.iter() {
            if subscribed.contains(&(name.clone(), uri.to_owned())) {
                log.say(name, &message);
            }
        }
    }

    /// Forgets all sessions, as a restart does; streams of theirs end.
    pub fn forget_sessions(&self) {
        self.0.subscribed.lock().clear();
        let mut logs = self.0.logs.lock();
        for log in std::mem::take(&mut *logs).into_values() {
            log.write(|written| written.done = true);
        }
    }

    /// Offers one more tool.
    pub fn adds(&self, tool: &str) {
        self.0.more.lock().push(tool.to_owned());
    }

    /// What a client has answered to the question of this id.
    #[must_use]
    pub fn answered(&self, id: &str) -> Option<Value> {
        self.0.answers.lock().get(id).cloned()
    }

    /// Lets all calls of `wait` end.
    pub fn go(&self) {
        self.0.going.send_replace(true);
    }

    async fn answer(self, seen: Seen) -> Response {
        let session = seen.header("mcp-session-id").to_owned();
        let is_known = self.0.logs.lock().contains_key(&session);
        if !is_known && seen.method() != "initialize" {
            return status(404);
        }
        match (&seen.http, seen.method()) {
            (&Method::GET, _) => self.listen(&seen, &session),
            (&Method::DELETE, _) => status(204),
            (_, "initialize") => {
                let session = format!("s-{}", self.0.next.fetch_add(1, Ordering::Relaxed));
                self.0.logs.lock().insert(session.clone(), Arc::default());
                let capabilities =
                    json!({"tools": {}, "logging": {}, "resources": {"subscribe": true}});
                let mut response = result(
                    &seen,
                    json!({
                        "protocolVersion": seen.message["params"]["protocolVersion"],
                        "capabilities": capabilities,
                        "serverInfo": {"name": "talker", "version": "0"},
                    }),
                );
                let value = session.parse().expect("a session id is visible ASCII");
                response.headers_mut().insert("mcp-session-id", value);
                response
            }
            (_, "tools/list") => {
                let mut tools = ["ask", "log", "poll", "progress", "tell", "wait"]
                    .map(str::to_owned)
                    .to_vec();
                tools.extend(self.0.more.lock().clone());
                let tool = |name| json!({"name": name, "inputSchema": {"type": "object"}});
                let tools: Vec<_> = tools.into_iter().map(tool).collect();
                result(&seen, json!({"tools": tools}))
            }
            (_, "resources/list") => result(
                &seen,
                json!({"resources": [{"uri": "talk://one", "name": "one"}]}),
            ),
            (_, "resources/templates/list") => result(&seen, json!({"resourceTemplates": []})),
            (_, method @ ("resources/subscribe" | "resources/unsubscribe")) => {
                let uri = seen.message["params"]["uri"].as_str().unwrap_or_default();
                let subject = (session, uri.to_owned());
                let mut subscribed = self.0.subscribed.lock();
                match method {
                    "resources/subscribe" => subscribed.insert(subject),
                    _ => subscribed.remove(&subject),
                };
                result(&seen, json!({}))
            }
            (_, "tools/call") => self.call(&seen),
            (_, "logging/setLevel") => {
                let level = &seen.message["params"]["level"];
                let place = SEVERITIES.iter().position(|own| level == own);
                self.0.levels.lock().extend(place.map(|at| (session, at)));
                result(&seen, json!({}))
            }
            (_, "") => {
                let id = seen.message["id"].to_string();
                self.0.answers.lock().insert(id, seen.message.clone());
                self.0.came.send_modify(|n| *n += 1);
                status(202)
            }
            _ if seen.message["id"].is_null() => status(202),
            (_, method) => result(&seen, json!({"method": method})),
        }
    }

    fn listen(&self, seen: &Seen, session: &str) -> Response {
        let last = seen.header("last-event-id");
        let (name, from) = last.rsplit_once('/').unwrap_or((session, "0"));
        let Some(log) = self.0.logs.lock().get(name).cloned() else {
            return status(404);
        };
        events(log, from.parse().unwrap_or_default(), false)
    }

    fn call(&self, seen: &Seen) -> Response {
        let name = format!("c-{}", self.0.next.fetch_add(1, Ordering::Relaxed));
        let log = Arc::new(Log::default());
        self.0.logs.lock().insert(name.clone(), log.clone());
        let (talker, seen) = (self.clone(), seen.clone());
        let out = log.clone();
        tokio::spawn(async move {
            let text = talker.run(&name, &out, &seen).await;
            let content = json!({"content": [{"type": "text", "text": text}]});
            let message = json!({"jsonrpc": "2.0", "id": seen.message["id"], "result": content});
            out.say(&name, &message);
            out.write(|written| written.done = true);
        });
        events(log, 0, true)
    }

    async fn run(&self, name: &str, out: &Log, seen: &Seen) -> String {
        let (params, session) = (&seen.message["params"], seen.header("mcp-session-id"));
        let arguments = &params["arguments"];
        let says = |level: &str, data: Value| {
            let params = json!({"level": level, "data": data});
            json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
        };
        let told = |data: Value| says("info", data);
        match params["name"].as_str().unwrap_or_default() {
            "ask" => {
                let (id, method) = (&arguments["id"], &arguments["method"]);
                let params = &arguments["params"];
                let question =
                    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
                let aside = arguments["aside"] == true;
                match self.0.logs.lock().get(session).filter(|_| aside) {
                    Some(log) => log.say(session, &question),
                    None => out.say(name, &question),
                }
                self.its_answer(&id.to_string()).await.to_string()
            }
            "log" => {
                let level = self.0.levels.lock().get(session).copied();
                for severity in &SEVERITIES[level.unwrap_or(3)..] {
                    out.say(name, &says(severity, json!("said")));
                }
                "done".to_owned()
            }
            "tell" => {
                let text = "x".repeat(arguments["size"].as_u64().unwrap_or(1) as usize);
                for number in 0..arguments["times"].as_u64().unwrap_or(1) {
                    out.say(name, &told(json!({"number": number, "text": text})));
                }
                "told".to_owned()
            }
            "progress" => {
                let token = &params["_meta"]["progressToken"];
                let params = json!({"progressToken": token, "progress": 1});
                let progress =
                    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
                out.say(name, &progress);
                "done".to_owned()
            }
            "wait" => {
                out.say(name, &told(json!("waiting")));
                let _ = self.0.going.subscribe().wait_for(|go| *go).await;
                "waited".to_owned()
            }
            _ => {
                out.write(|written| {
                    written
                        .events
                        .push(format!("id: {name}/1\nretry: 100\ndata:\n\n"));
                    written.cut = Some(1);
                });
                "polled".to_owned()
            }
        }
    }

    async fn its_answer(&self, id: &str) -> Value {
        let mut came = self.0.came.subscribe();
        loop {
            if let Some(answer) = self.answered(id) {
                return answer;
            }
            if came.changed().await.is_err() {
                return Value::Null;
            }
        }
    }
}

/// What a log holds behind `from` events, and all that follows.
fn events(log: Arc<Log>, from: usize, is_first: bool) -> Response {
    let changed = log.changed.subscribe();
    let body = stream::unfold(
        (log, changed, from),
        move |(log, mut changed, at)| async move {
            loop {
                let next = {
                    let written = log.written.lock();
                    let cut = is_first && written.cut.is_some_and(|cut| at >= cut);
                    let end = written.done && at >= written.events.len();
                    if cut || end {
                        return None;
                    }
                    written.events.get(at).cloned()
                };
                if let Some(event) = next {
                    return Some((Ok::<_, Infallible>(event), (log, changed, at + 1)));
                }
                changed.changed().await.ok()?;
            }
        },
    );
    let response = Response::builder().header("content-type", "text/event-stream");
    response
        .body(Body::from_stream(body))
        .expect("the header is well-formed")
}

fn status(status: u16) -> Response {
    let response = Response::builder().status(status).body(Body::empty());
    response.expect("a plain answer")
}

fn result(seen: &Seen, result: Value) -> Response {
    let message = json!({"jsonrpc": "2.0", "id": seen.message["id"], "result": result});
    answer_json(200, &message)
}
