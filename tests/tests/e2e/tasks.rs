//! The tasks extension: ids of tasks are the gateway's, and lead to their owner.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{
        Backend, json as answer,
        server::{Server, result},
    },
    client::{Client, Failure},
    fleet::Fleet,
    listeners::Listeners,
};
use serde_json::{Value, json};

const EXTENSION: &str = "io.modelcontextprotocol/tasks";

fn task(status: &str, kind: &str) -> Value {
    json!({"resultType": kind, "taskId": "own-7", "status": status, "ttlMs": 60000,
        "createdAt": "2026-07-28T10:00:00Z", "lastUpdatedAt": "2026-07-28T10:00:00Z"})
}

/// A server whose calls all become the task `own-7`.
fn busy(name: &str) -> Server {
    let about = |status: &'static str| {
        move |seen: fleet_tests::backend::Seen| async move {
            let own =
                seen.message["params"]["taskId"] == "own-7" && seen.header("mcp-name") == "own-7";
            let found = if own {
                task(status, "complete")
            } else {
                json!({"wrong": seen.message})
            };
            answer(200, &result(&seen, found))
        }
    };
    Server::echo(name)
        .declares(json!({"tools": {}, "extensions": {EXTENSION: {}}}))
        .on("tools/call slow", |seen| async move {
            answer(200, &result(&seen, task("working", "task")))
        })
        .on("tasks/get", about("completed"))
        .on("tasks/update", about("working"))
        .on("tasks/cancel", about("cancelled"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_found_at_its_owner_by_the_client_that_has_its_id() -> Result<()> {
    let listeners = Arc::new(Listeners::default());
    let one = Backend::start(busy("one").modern()).await?;
    let two = Backend::start(listeners.clone().at(busy("two")).modern()).await?;
    let (url_one, url_two) = (one.url(), two.url());
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: one\nhttp: {{ url: '{url_one}' }}\n---\n\
         kind: Backend\nname: two\nhttp: {{ url: '{url_two}' }}\n---\n\
         kind: Gateway\nname: a-default\npath: /mcp\n---\n\
         kind: Gateway\nname: closed\npath: /closed\nauth: staff\n---\n\
         kind: AuthPolicy\nname: staff\nbearer: {{ tokens: [the-first-token, the-second-token] }}\n"
    ))
    .await?;
    fleet.offers(&["one__slow", "two__slow"]).await?;
    let url = fleet.at("/closed");
    let mut client = Client::modern_with_token(&url, "the-first-token").await?;
    let mut other = Client::modern_with_token(&url, "the-second-token").await?;
    for client in [&mut client, &mut other] {
        client.capabilities = json!({"extensions": {EXTENSION: {}}});
    }
    let known = client.request("server/discover", json!({})).await?;
    ensure!(
        known["capabilities"]["extensions"][EXTENSION].is_object(),
        "{known}"
    );

    let made = client.call("two__slow", json!({})).await?;
    ensure!(
        made["resultType"] == "task" && made["status"] == "working",
        "{made}"
    );
    let id = made["taskId"].clone();
    ensure!(id != "own-7", "{made}");
    for (method, status) in [
        ("tasks/get", "completed"),
        ("tasks/update", "working"),
        ("tasks/cancel", "cancelled"),
    ] {
        let found = client
            .request(method, json!({"taskId": id, "inputResponses": {}}))
            .await?;
        ensure!(
            found["status"] == status && found["taskId"] == id,
            "{method}: {found}"
        );
        ensure!(one.seen_of(method).is_empty());
        ensure!(two.seen_of(method).len() == 1);
    }

    let filter = json!({"notifications": {"taskIds": [id, "made-up"]}});
    let mut stream = client.stream("subscriptions/listen", filter).await?;
    let first = stream.message().await?;
    ensure!(
        first["params"]["notifications"] == json!({"taskIds": [id]}),
        "{first}"
    );
    listeners.say(
        "notifications/tasks",
        json!({"taskId": "anothers", "status": "working"}),
    );
    listeners.say(
        "notifications/tasks",
        json!({"taskId": "own-7", "status": "completed"}),
    );
    let told = stream.message().await?;
    ensure!(
        told["params"]["taskId"] == id && told["params"]["status"] == "completed",
        "{told}"
    );

    let error = async |client: &mut Client, id: &Value| -> Result<Option<i64>> {
        let asked = client.request("tasks/get", json!({"taskId": id})).await;
        let error = asked.err().context("a task was found")?;
        Ok(error.downcast::<Failure>()?.code())
    };
    ensure!(error(&mut other, &id).await? == Some(-32602));
    ensure!(error(&mut client, &json!("own-7")).await? == Some(-32602));
    client.capabilities = json!({});
    ensure!(error(&mut client, &id).await? == Some(-32021));
    ensure!(two.seen_of("tasks/get").len() == 1);
    Ok(())
}
