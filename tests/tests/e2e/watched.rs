//! Subscriptions to resources of backends behind one connection: clients of both eras at backends
//! of both.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::websocket::WebSocketServer,
    client::{Client, Events, Failure},
    fleet::{Fleet, LEGACY},
    programs::{here, python},
    wait::until,
};
use serde_json::{Value, json};

const UPDATED: &str = "notifications/resources/updated";
const ONE: &str = "watched://one";
const TWO: &str = "watched://two";
const SECRET: &str = "watched://secret";

/// A fleet with a child of one era.
struct Watched {
    fleet: Fleet,
    /// What the child has read.
    seen: PathBuf,
    _dir: tempfile::TempDir,
}

impl Watched {
    async fn start(era: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let seen = dir.path().join("seen");
        let args = json!([here("servers/watched.py"), seen, era]);
        let child = json!({"command": python(), "args": args});
        let fleet = Fleet::start(&format!("kind: Backend\nname: child\nstdio: {child}\n")).await?;
        fleet.offers(&["child__touch"]).await?;
        Ok(Self {
            fleet,
            seen,
            _dir: dir,
        })
    }

    /// The messages of one method that children have read.
    fn told(&self, method: &str) -> Vec<Value> {
        let seen = std::fs::read_to_string(&self.seen).unwrap_or_default();
        let messages = seen.lines().filter_map(|l| serde_json::from_str(l).ok());
        messages
            .filter(|message: &Value| message["method"] == method)
            .collect()
    }

    async fn is_told(&self, method: &str, times: usize) -> Result<()> {
        until(&format!("{method} at the backend"), || async {
            (self.told(method).len() == times).then_some(())
        })
        .await
    }

    async fn touch(&self, uri: &str, part: &str) -> Result<()> {
        let mut client = self.fleet.client().await?;
        let arguments = json!({"uri": uri, "part": part});
        client.call("child__touch", arguments).await.map(drop)
    }

    async fn modern(&self, uris: &[&str]) -> Result<Events> {
        let mut client = Client::modern(&self.fleet.url).await?;
        listen(&mut client, uris).await
    }

    /// A client with a session, and what it is told outside of calls.
    async fn legacy(&self) -> Result<(Client, Events)> {
        let client = Client::legacy(&self.fleet.url, LEGACY).await?;
        let events = client.listen(None).await?;
        Ok((client, events))
    }
}

async fn listen(client: &mut Client, uris: &[&str]) -> Result<Events> {
    let filter = json!({"notifications": {"resourceSubscriptions": uris}});
    client.stream("subscriptions/listen", filter).await
}

async fn honoured(stream: &mut Events) -> Result<Value> {
    let first = stream.message().await?;
    Ok(first["params"]["notifications"]["resourceSubscriptions"].clone())
}

async fn subscribe(client: &mut Client, uri: &str) -> Result<Value> {
    let params = json!({"uri": uri});
    client.request("resources/subscribe", params).await
}

async fn news(stream: &mut Events) -> Result<String> {
    let told = stream.message_of(UPDATED).await?;
    let uri = told["params"]["uri"].as_str();
    Ok(uri.context("an update without a URI")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_has_one_subscription_for_all_who_watch_a_resource() -> Result<()> {
    let watched = Watched::start("legacy").await?;
    let mut both = watched.modern(&[ONE, SECRET, TWO]).await?;
    ensure!(honoured(&mut both).await? == json!([ONE, TWO]));
    let mut one = watched.modern(&[ONE]).await?;
    ensure!(honoured(&mut one).await? == json!([ONE]));
    let (mut client, mut events) = watched.legacy().await?;
    ensure!(subscribe(&mut client, ONE).await? == json!({}));
    let of_one = |messages: Vec<Value>| {
        let mut messages = messages.into_iter();
        messages.all(|message| message["params"]["uri"] != ONE)
    };
    ensure!(watched.told("resources/subscribe").len() == 3);

    // In this order, so that who hears of the second has not heard of the first.
    watched.touch(TWO, TWO).await?;
    watched.touch(ONE, "watched://one/part").await?;
    ensure!(news(&mut both).await? == TWO);
    for stream in [&mut both, &mut one, &mut events] {
        ensure!(news(stream).await? == "watched://one/part");
    }

    drop(both);
    watched.is_told("resources/unsubscribe", 1).await?;
    ensure!(of_one(watched.told("resources/unsubscribe")));
    drop(one);
    client
        .request("resources/unsubscribe", json!({"uri": ONE}))
        .await?;
    watched.is_told("resources/unsubscribe", 2).await?;
    let mut again = watched.modern(&[ONE]).await?;
    ensure!(honoured(&mut again).await? == json!([ONE]));
    ensure!(watched.told("resources/subscribe").len() == 4);
    watched.touch(ONE, ONE).await?;
    ensure!(news(&mut again).await? == ONE);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_says_itself_what_nobody_may_watch() -> Result<()> {
    let watched = Watched::start("legacy").await?;
    let (mut client, _events) = watched.legacy().await?;
    let refused = subscribe(&mut client, SECRET).await;
    let refused = refused.err().context("it was taken")?;
    let failure = refused.downcast::<Failure>()?;
    ensure!(failure.code() == Some(-32002), "{failure}");
    ensure!(
        failure.to_string().contains("Nobody may watch this"),
        "{failure}"
    );
    // It is asked anew each time.
    ensure!(subscribe(&mut client, SECRET).await.is_err());
    ensure!(watched.told("resources/subscribe").len() == 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_has_ended_is_subscribed_to_again() -> Result<()> {
    for (era, method) in [
        ("legacy", "resources/subscribe"),
        ("modern", "subscriptions/listen"),
    ] {
        let watched = Watched::start(era).await?;
        let mut stream = watched.modern(&[ONE]).await?;
        ensure!(honoured(&mut stream).await? == json!([ONE]), "{era}");
        let (mut client, mut events) = watched.legacy().await?;
        subscribe(&mut client, TWO).await?;
        watched.is_told(method, 2).await?;
        let left = client.call("child__leave", json!({})).await;
        ensure!(left.is_err(), "{era}: {left:?}");
        watched.is_told(method, 4).await?;
        watched.touch(ONE, ONE).await?;
        watched.touch(TWO, TWO).await?;
        ensure!(news(&mut stream).await? == ONE, "{era}");
        ensure!(news(&mut events).await? == TWO, "{era}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_both_eras_watch_resources_of_a_child_of_the_new_one() -> Result<()> {
    let watched = Watched::start("modern").await?;
    let mut stream = watched.modern(&[ONE, SECRET]).await?;
    ensure!(honoured(&mut stream).await? == json!([ONE]));
    let (mut client, mut events) = watched.legacy().await?;
    ensure!(subscribe(&mut client, SECRET).await.is_err());
    ensure!(subscribe(&mut client, TWO).await? == json!({}));
    for _ in 0..2 {
        watched.touch(ONE, ONE).await?;
        watched.touch(TWO, TWO).await?;
        ensure!(news(&mut stream).await? == ONE);
        let told = events.message_of(UPDATED).await?;
        // What names the subscription is of an era that this client does not know.
        ensure!(told["params"] == json!({"_meta": {}, "uri": TWO}), "{told}");
    }
    // That of the refused one has ended already.
    let before = watched.told("notifications/cancelled").len();
    client
        .request("resources/unsubscribe", json!({"uri": TWO}))
        .await?;
    watched
        .is_told("notifications/cancelled", before + 1)
        .await?;
    drop(stream);
    watched.is_told("notifications/cancelled", before + 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_behind_a_websocket_is_watched_again_when_the_server_is_back() -> Result<()> {
    let server = WebSocketServer::start().await?;
    let url = server.url();
    let fleet = Fleet::start(&format!(
        "kind: Backend\nname: ws\nwebsocket: {{ url: '{url}' }}\n"
    ))
    .await?;
    fleet.offers(&["ws__echo"]).await?;
    let mut client = Client::modern(&fleet.url).await?;
    let mut stream = listen(&mut client, &["websocket://one"]).await?;
    ensure!(honoured(&mut stream).await? == json!(["websocket://one"]));
    ensure!(news(&mut stream).await? == "websocket://one");
    let address = server.address();
    server.kill().await;
    let server = WebSocketServer::start_at(address).await?;
    // It says so of every subscription.
    ensure!(news(&mut stream).await? == "websocket://one");
    drop(stream);
    until("the end of the subscription", || async {
        (server.seen_of("resources/unsubscribe").len() == 1).then_some(())
    })
    .await
}
