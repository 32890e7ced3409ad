//! Every feature between clients of both eras and backends of both: lists, calls, progress, what a
//! backend asks in the middle of a call, subscriptions, cancellation.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use axum::{body::Body, response::Response};
use fleet_tests::{
    backend::{
        Backend, Seen, json as answer,
        server::{Server, result},
        talker::Talker,
    },
    balancer::Balancer,
    client::{Client, Events},
    fleet::{Fleet, LEGACY},
    listeners::Listeners,
    programs::{here, python},
    wait::until,
};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::peers::Joined;

/// A fleet with a backend of each kind.
struct Matrix {
    talker: Talker,
    old: Backend,
    _new: Backend,
    listeners: Arc<Listeners>,
    /// Calls of `wait` at the new backend that nobody has hung up on.
    waiting: Arc<Mutex<Vec<mpsc::Sender<()>>>>,
    /// What the child has read; there is one at each data plane.
    seen: PathBuf,
    url: String,
    _before: Before,
}

/// What is before the backends.
enum Before {
    One {
        _fleet: Fleet,
    },
    /// Data planes behind a balancer without affinity.
    Three {
        _nodes: Box<Joined>,
        _balancer: Balancer,
    },
}

/// The names of the backends, and a resource of each.
const BACKENDS: [(&str, &str); 3] = [
    ("new", "test://one"),
    ("old", "talk://one"),
    ("child", "stdio://one"),
];

async fn matrix(replicas: bool) -> Result<Matrix> {
    let talker = Talker::default();
    let old = Backend::start(talker.script()).await?;
    let listeners = Arc::new(Listeners::default());
    let waiting = Arc::<Mutex<Vec<_>>>::default();
    let new = listeners.clone().at(modern(waiting.clone()));
    let new = Backend::start(new.modern()).await?;
    let dir = tempfile::tempdir()?.keep();
    let seen = dir.join("seen");
    let child = json!({"command": python(), "args": [here("servers/asking.py"), seen]});
    let yaml = format!(
        "kind: Backend\nname: new\nhttp: {{ url: '{}' }}\n---\n\
         kind: Backend\nname: old\nhttp: {{ url: '{}' }}\n---\n\
         kind: Backend\nname: child\nstdio: {child}\n",
        new.url(),
        old.url(),
    );
    let (url, before) = if replicas {
        let nodes = Box::new(Joined::before(&yaml).await?);
        for node in 0..3 {
            offers(&nodes.url(node)).await?;
        }
        let balancer = nodes.balancer().await?;
        (
            balancer.url.clone(),
            Before::Three {
                _nodes: nodes,
                _balancer: balancer,
            },
        )
    } else {
        let fleet = Fleet::start(&yaml).await?;
        (fleet.url.clone(), Before::One { _fleet: fleet })
    };
    offers(&url).await?;
    Ok(Matrix {
        talker,
        old,
        _new: new,
        listeners,
        waiting,
        seen,
        url,
        _before: before,
    })
}

/// Waits until the tools of all backends are there.
async fn offers(url: &str) -> Result<()> {
    until("the tools of all backends", || async {
        let client = Client::legacy(url, LEGACY).await;
        let names = client.ok()?.names("tools/list").await.ok()?;
        let all = BACKENDS.map(|(backend, _)| format!("{backend}__ask"));
        all.iter().all(|tool| names.contains(tool)).then_some(())
    })
    .await
}

/// The backend of the new era: the tools of the others.
fn modern(waiting: Arc<Mutex<Vec<mpsc::Sender<()>>>>) -> Server {
    let resources = json!({"resources": [{"uri": "test://one", "name": "one"}]});
    let text = |text: String| json!({"resultType": "complete", "content": [{"type": "text", "text": text}]});
    Server::echo("new")
        .declares(json!({"tools": {}, "resources": {"subscribe": true}}))
        .lists("resources/list", resources)
        .lists("resources/templates/list", json!({"resourceTemplates": []}))
        .tool("progress", |_| async { "done".to_owned() })
        .on("tools/call ask", move |seen| async move {
            let params = &seen.message["params"];
            let (asked, given) = (&params["arguments"], &params["inputResponses"]["q"]);
            let able = &params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
            let next = if given.is_null() {
                let request = json!({"method": asked["method"], "params": asked["params"]});
                json!({"resultType": "input_required", "requestState": able.to_string(),
                    "inputRequests": {"q": request}})
            } else {
                ensure_state(params, able);
                text(given.to_string())
            };
            answer(200, &result(&seen, next))
        })
        .on("tools/call wait", move |seen| {
            let waiting = waiting.clone();
            async move { hanging(&seen, &waiting) }
        })
}

/// The state comes back as it was given.
fn ensure_state(params: &Value, able: &Value) {
    let state = params["requestState"].as_str().unwrap_or_default();
    assert_eq!(state, able.to_string(), "{params}");
}

/// An answer that never comes, and tells when nobody waits for it.
fn hanging(_: &Seen, waiting: &Mutex<Vec<mpsc::Sender<()>>>) -> Response {
    let (to, from) = mpsc::channel::<()>(1);
    waiting.lock().push(to);
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message",
        "params": {"level": "info", "data": "waiting"}});
    let first = format!("event: message\ndata: {log}\n\n");
    let events = stream::unfold((Some(first), from), |(first, mut from)| async {
        match first {
            Some(first) => Some((Ok::<_, std::convert::Infallible>(first), (None, from))),
            None => {
                from.recv().await;
                None
            }
        }
    });
    let response = Response::builder().header("content-type", "text/event-stream");
    response
        .body(Body::from_stream(events))
        .expect("a plain answer")
}

fn able() -> Value {
    json!({"elicitation": {"form": {}}, "sampling": {}, "roots": {}})
}

/// What backends ask, and what the client says.
fn questions() -> [(&'static str, Value, Value); 3] {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    let content = json!({"type": "text", "text": "1.10"});
    [
        (
            "elicitation/create",
            json!({"message": "Who?", "requestedSchema": schema}),
            json!({"action": "accept", "content": {"name": "me"}}),
        ),
        (
            "sampling/createMessage",
            json!({"messages": [{"role": "user", "content": content}], "maxTokens": 5}),
            json!({"role": "assistant", "content": content, "model": "none"}),
        ),
        (
            "roots/list",
            json!({}),
            json!({"roots": [{"uri": "file:///tmp"}]}),
        ),
    ]
}

fn text_of(result: &Value) -> Result<Value> {
    let text = result["content"][0]["text"].as_str();
    Ok(serde_json::from_str(
        text.with_context(|| format!("no text: {result}"))?,
    )?)
}

impl Matrix {
    /// The requests of one method that a backend of the older era has seen.
    fn told(&self, backend: &str, method: &str) -> usize {
        if backend == "child" {
            let seen = std::fs::read_to_string(&self.seen).unwrap_or_default();
            let messages = seen
                .lines()
                .filter_map(|l| serde_json::from_str::<Value>(l).ok());
            return messages.filter(|m| m["method"] == method).count();
        }
        self.old.seen_of(method).len()
    }

    /// Says at a backend that its resource has changed.
    fn update(&self, backend: &str, uri: &str) {
        let params = json!({"uri": uri});
        match backend {
            "new" => self
                .listeners
                .say("notifications/resources/updated", params),
            "old" => self.talker.update(uri),
            // It says so by itself.
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_new_era_has_everything_of_backends_of_both() -> Result<()> {
    modern_has_everything(&matrix(false).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_new_era_has_everything_of_backends_of_both_on_any_data_plane() -> Result<()>
{
    modern_has_everything(&matrix(true).await?).await
}

async fn modern_has_everything(matrix: &Matrix) -> Result<()> {
    let mut client = Client::modern(&matrix.url).await?;
    client.capabilities = able();
    let uris = client.names("resources/list").await?;
    for (backend, uri) in BACKENDS {
        ensure!(uris.iter().any(|own| own == uri), "{backend}: {uris:?}");
        let tool = |name: &str| format!("{backend}__{name}");
        for (method, params, said) in questions() {
            let arguments =
                json!({"id": format!("m-{method}"), "method": method, "params": params});
            let asked = client.call(&tool("ask"), arguments.clone()).await?;
            ensure!(
                asked["resultType"] == "input_required",
                "{backend}: {asked}"
            );
            let requests = asked["inputRequests"].as_object().context("no requests")?;
            let (name, request) = requests.iter().next().context("no request")?;
            ensure!(
                requests.len() == 1 && *request == json!({"method": method, "params": params}),
                "{backend}: {asked}"
            );
            let retry = json!({"name": tool("ask"), "arguments": arguments,
                "requestState": asked["requestState"], "inputResponses": {name: said}});
            let done = client.request("tools/call", retry.clone()).await?;
            ensure!(done["resultType"] == "complete", "{backend}: {done}");
            let told = text_of(&done)?;
            ensure!(told == said || told["result"] == said, "{backend}: {done}");
            let again = client.request("tools/call", retry).await;
            ensure!(
                backend == "new" || again.is_err(),
                "{backend}: it goes on twice"
            );
        }
        is_told_progress(&mut client, backend).await?;

        let call = json!({"name": tool("wait"), "arguments": {}});
        let call = matrix.begin(&mut client, backend, call).await?;
        drop(call);
        matrix
            .cancelled(backend)
            .await
            .with_context(|| format!("{backend}: cancelled"))?;
        let filter = json!({"notifications": {"resourceSubscriptions": [uri]}});
        let mut stream = client.stream("subscriptions/listen", filter).await?;
        let first = stream.message().await?;
        let honoured = &first["params"]["notifications"]["resourceSubscriptions"];
        ensure!(*honoured == json!([uri]), "{backend}: {first}");
        matrix.update(backend, uri);
        let told = stream.message_of("notifications/resources/updated").await?;
        ensure!(told["params"]["uri"] == uri, "{backend}: {told}");
    }
    Ok(())
}

impl Matrix {
    /// Begins a call of `wait`, and waits until the backend has it.
    async fn begin(&self, client: &mut Client, backend: &str, call: Value) -> Result<Open> {
        let before = match backend {
            "new" => self.waiting.lock().len(),
            _ => self.told(backend, "tools/call"),
        };
        let url = self.url.clone();
        let (headers, body) = client.prepared("tools/call", call);
        let open =
            tokio::spawn(
                async move { Events::open(&url, hyper::Method::POST, &headers, body).await },
            );
        until("the call at its backend", || async {
            let now = match backend {
                "new" => self.waiting.lock().len(),
                _ => self.told(backend, "tools/call"),
            };
            (now > before).then_some(())
        })
        .await?;
        Ok(Open(open))
    }

    /// Waits until the backend knows that its call is not wanted any more.
    async fn cancelled(&self, backend: &str) -> Result<()> {
        until("the cancellation at the backend", || async {
            match backend {
                "new" => self.waiting.lock().iter().all(mpsc::Sender::is_closed),
                _ => self.told(backend, "notifications/cancelled") > 0,
            }
            .then_some(())
        })
        .await
    }
}

async fn is_told_progress(client: &mut Client, backend: &str) -> Result<()> {
    let params = json!({"name": format!("{backend}__progress"), "arguments": {}});
    let answer = client
        .post("tools/call", Some(params), Some(json!("token")))
        .await?;
    let messages = answer.messages()?;
    ensure!(
        messages[0]["params"]["progressToken"] == "token",
        "{backend}: {answer:?}"
    );
    Ok(())
}

/// A request under way. Dropped, its connection is closed.
struct Open(tokio::task::JoinHandle<Result<Events>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_session_has_everything_of_backends_of_both_eras() -> Result<()> {
    legacy_has_everything(&matrix(false).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_session_has_everything_of_backends_of_both_eras_on_any_data_plane()
-> Result<()> {
    legacy_has_everything(&matrix(true).await?).await
}

async fn legacy_has_everything(matrix: &Matrix) -> Result<()> {
    let mut client = Client::legacy_that_can(&matrix.url, LEGACY, able()).await?;
    let uris = client.names("resources/list").await?;
    let mut listening = client.listen(None).await?;
    for (backend, uri) in BACKENDS {
        ensure!(uris.iter().any(|own| own == uri), "{backend}: {uris:?}");
        let tool = |name: &str| format!("{backend}__{name}");
        for (method, params, said) in questions() {
            let arguments =
                json!({"id": format!("l-{method}"), "method": method, "params": params});
            let id = json!(format!("{backend}-{method}"));
            let mut stream = client
                .open_call(id.clone(), &tool("ask"), arguments)
                .await?;
            let question = stream.message().await?;
            ensure!(question["method"] == method, "{backend}: {question}");
            ensure!(question["params"] == params, "{backend}: {question}");
            let response = json!({"jsonrpc": "2.0", "id": question["id"], "result": said});
            let sent = client.send(&response).await?;
            ensure!(sent.status == 202, "{backend}: {sent:?}");
            let done = stream.message().await?;
            ensure!(done["id"] == id, "{backend}: {done}");
            let told = text_of(&done["result"])?;
            ensure!(told == said || told["result"] == said, "{backend}: {done}");
            let again = client.send(&response).await?;
            ensure!(
                backend == "old" || again.status == 400,
                "{backend}: {again:?}"
            );
        }
        is_told_progress(&mut client, backend).await?;

        client
            .request("resources/subscribe", json!({"uri": uri}))
            .await?;
        until("the subscription at the backend", || async {
            match backend {
                "new" => self_listens(&matrix.listeners, uri),
                _ => matrix.told(backend, "resources/subscribe") > 0,
            }
            .then_some(())
        })
        .await?;
        matrix.update(backend, uri);
        let told = listening
            .message_of("notifications/resources/updated")
            .await?;
        ensure!(told["params"]["uri"] == uri, "{backend}: {told}");
        client
            .request("resources/unsubscribe", json!({"uri": uri}))
            .await
            .ok();

        let call = json!({"name": tool("wait"), "arguments": {}});
        let id = client.next_id();
        let _call = matrix.begin(&mut client, backend, call).await?;
        let params = json!({"requestId": id, "reason": "enough"});
        let enough =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
        ensure!(client.send(&enough).await?.status == 202);
        matrix
            .cancelled(backend)
            .await
            .with_context(|| format!("{backend}: cancelled"))?;
    }
    Ok(())
}

fn self_listens(listeners: &Listeners, uri: &str) -> bool {
    let wanted = json!([uri]);
    let filters = listeners.filters();
    filters
        .iter()
        .any(|filter| filter["resourceSubscriptions"] == wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_works_for_somebody_else_as_well_asks_nobody() -> Result<()> {
    let matrix = matrix(false).await?;
    let mut other = Client::legacy(&matrix.url, LEGACY).await?;
    let waits = tokio::spawn(async move { other.call("child__wait", json!({})).await });
    until("the call of a client that cannot be asked", || async {
        (matrix.told("child", "tools/call") == 1).then_some(())
    })
    .await?;
    let mut client = Client::legacy_that_can(&matrix.url, LEGACY, able()).await?;
    let arguments = json!({"method": "elicitation/create", "params": {"message": "Who?"}});
    let done = client.call("child__ask", arguments).await?;
    let told = text_of(&done)?;
    ensure!(told["code"] == -32603, "{told}");
    waits.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_in_a_mode_that_it_has_not_declared() -> Result<()> {
    let matrix = matrix(false).await?;
    let url = json!({"mode": "url", "message": "Log in", "elicitationId": "e",
        "url": "https://example.com/login"});
    for (turn, declared) in [json!({}), json!({"form": {}})].into_iter().enumerate() {
        let able = json!({"elicitation": declared});
        let mut new = Client::modern(&matrix.url).await?;
        new.capabilities = able.clone();
        let old = Client::legacy_that_can(&matrix.url, LEGACY, able).await?;
        for (era, mut client) in [("new", new), ("old", old)] {
            for (backend, _) in BACKENDS.iter().filter(|(backend, _)| *backend != era) {
                let arguments = json!({"id": format!("{turn}-{era}-{backend}"),
                    "method": "elicitation/create", "params": url});
                let asked = client.call(&format!("{backend}__ask"), arguments).await;
                if *backend == "new" {
                    // There is no answer that says so to a backend of this era.
                    let refused = asked.err().context("it was asked")?;
                    ensure!(refused.to_string().contains("-31005"), "{refused}");
                    continue;
                }
                let told = text_of(&asked?)?;
                let code = told["error"]["code"].as_i64().or(told["code"].as_i64());
                ensure!(code == Some(-32602), "{era} at {backend}: {told}");
            }
        }
    }
    Ok(())
}
