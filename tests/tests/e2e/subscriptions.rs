//! `subscriptions/listen` of 2026-07-28: one stream at the gateway, fed by all of its backends.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{Backend, server::Server},
    client::{Client, Events},
    fleet::Fleet,
    listeners::Listeners,
    wait::until,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

const ID: &str = "io.modelcontextprotocol/subscriptionId";

/// A backend that offers resources and can be listened to.
async fn watched(name: &str, uris: &[&str]) -> Result<(Backend, Arc<Listeners>)> {
    let listeners = Arc::new(Listeners::default());
    let listed: Vec<_> = uris
        .iter()
        .map(|uri| json!({"uri": uri, "name": uri}))
        .collect();
    let listed = json!({"resources": listed});
    let server = Server::echo(name)
        .declares(json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}}))
        .lists("resources/list", listed)
        .lists("resources/templates/list", json!({"resourceTemplates": []}));
    let server = listeners.clone().at(server);
    Ok((Backend::start(server.modern()).await?, listeners))
}

fn backend(name: &str, url: &str) -> String {
    format!("kind: Backend\nname: {name}\nhttp: {{ url: '{url}' }}\n---\n")
}

async fn listen(client: &mut Client, filter: Value) -> Result<Events> {
    client
        .stream("subscriptions/listen", json!({"notifications": filter}))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_brings_what_every_owner_says_and_nothing_else() -> Result<()> {
    let (one, of_one) = watched("one", &["test://one"]).await?;
    let (two, of_two) = watched("two", &["test://two", "test://other"]).await?;
    let yaml = backend("one", &one.url()) + &backend("two", &two.url());
    let fleet = Fleet::start(&yaml).await?;
    fleet.offers(&["one__echo", "two__echo"]).await?;
    let mut client = Client::modern(&fleet.url).await?;
    let uris = json!(["test://one", "test://two", "test://nobodys"]);
    let mut stream = listen(&mut client, json!({"resourceSubscriptions": uris})).await?;

    let first = stream.message().await?;
    ensure!(
        first["method"] == "notifications/subscriptions/acknowledged",
        "{first}"
    );
    let id = first["params"]["_meta"][ID].clone();
    ensure!(id.is_number(), "{first}");
    let honoured = &first["params"]["notifications"];
    ensure!(
        *honoured == json!({"resourceSubscriptions": ["test://one", "test://two"]}),
        "{first}"
    );

    for (listeners, own) in [(&of_one, "test://one"), (&of_two, "test://two")] {
        let asked = listeners.filters();
        ensure!(
            asked == [json!({"resourceSubscriptions": [own]})],
            "{asked:?}"
        );
        listeners.say("notifications/tools/list_changed", json!({}));
        listeners.say(
            "notifications/resources/updated",
            json!({"uri": own, "x": 1.10}),
        );
        let told = stream.message().await?;
        ensure!(
            told["method"] == "notifications/resources/updated",
            "{told}"
        );
        ensure!(told["params"]["uri"] == own, "{told}");
        ensure!(told["params"]["_meta"][ID] == id, "{told}");
    }
    drop(stream);
    until("the end of the streams at the backends", || async {
        (of_one.open() + of_two.open() == 0).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_of_a_change_finds_it_in_the_list() -> Result<()> {
    let tools = Arc::new(Mutex::new(vec!["first".to_owned()]));
    let listeners = Arc::new(Listeners::default());
    let offered = tools.clone();
    let server =
        Server::echo("one")
            .declares(json!({"tools": {}}))
            .listing("tools/list", move || {
                let tools = offered.lock().clone();
                let tools: Vec<_> = tools
                    .iter()
                    .map(|name| json!({"name": name, "inputSchema": {"type": "object"}}))
                    .collect();
                json!({"tools": tools})
            });
    let one = Backend::start(listeners.clone().at(server).modern()).await?;
    let two = Backend::start(Server::echo("two").legacy()).await?;
    let yaml = backend("one", &one.url()) + &backend("two", &two.url());
    let fleet = Fleet::start(&yaml).await?;
    fleet.offers(&["one__first", "two__echo"]).await?;
    let mut client = Client::modern(&fleet.url).await?;
    let mut lists = listen(&mut client, json!({"toolsListChanged": true})).await?;
    let mut none = listen(&mut client, json!({"promptsListChanged": true})).await?;
    lists
        .message_of("notifications/subscriptions/acknowledged")
        .await?;
    none.message_of("notifications/subscriptions/acknowledged")
        .await?;

    for round in 0..3 {
        until("the proxy at the backend", || async {
            (listeners.open() > 0).then_some(())
        })
        .await?;
        let name = format!("new-{round}");
        tools.lock().push(name.clone());
        listeners.say("notifications/tools/list_changed", json!({}));
        // What the renewal behind a broken stream has found may be told of once more.
        let mut names = Vec::new();
        while !names.contains(&format!("one__{name}")) {
            lists.message_of("notifications/tools/list_changed").await?;
            names = client.names("tools/list").await?;
        }
        // A backend that goes away does not end the stream; it is listened to again.
        listeners.hang_up();
    }

    fleet.stop().await?;
    for stream in [&mut lists, &mut none] {
        let mut last = None;
        while let Some(event) = stream.next().await? {
            let message = event.message();
            ensure!(
                message["method"] != "notifications/prompts/list_changed",
                "{message}"
            );
            last = Some(message);
        }
        let last = last.context("the stream ended without its result")?;
        ensure!(last["result"]["resultType"] == "complete", "{last}");
        ensure!(last["result"]["_meta"][ID] == last["id"], "{last}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_lives_through_changes_until_its_gateway_goes() -> Result<()> {
    let (one, _) = watched("one", &[]).await?;
    let two = Backend::start(Server::echo("two").modern()).await?;
    let gateway = "kind: Gateway\nname: side\npath: /side\n---\n";
    let fleet = Fleet::start(&(gateway.to_owned() + &backend("one", &one.url()))).await?;
    until("the tool at the gateway", || async {
        let names = Client::modern(&fleet.at("/side"))
            .await
            .ok()?
            .names("tools/list")
            .await
            .ok()?;
        names.contains(&"one__echo".to_owned()).then_some(())
    })
    .await?;
    let mut client = Client::modern(&fleet.at("/side")).await?;
    let mut stream = listen(&mut client, json!({"toolsListChanged": true})).await?;
    stream
        .message_of("notifications/subscriptions/acknowledged")
        .await?;
    let apply = async |text: String| {
        let file = fleet.dir().join("change.yaml");
        std::fs::write(&file, text)?;
        let file = file.to_string_lossy().into_owned();
        let done = fleet.mcpctl(&["apply", "-f", &file, "--wait"]).await?;
        ensure!(done.status.success(), "{done:?}");
        Ok(())
    };
    apply(backend("two", &two.url())).await?;
    stream
        .message_of("notifications/tools/list_changed")
        .await?;
    let names = client.names("tools/list").await?;
    ensure!(names.contains(&"two__echo".to_owned()), "{names:?}");
    apply("kind: Gateway\nname: side\npath: /elsewhere\n".to_owned()).await?;
    while let Some(event) = stream.next().await? {
        let message = event.message();
        if message["result"].is_object() {
            ensure!(
                stream.next().await?.is_none(),
                "something behind the result"
            );
            return Ok(());
        }
    }
    anyhow::bail!("the stream ended without its result")
}
