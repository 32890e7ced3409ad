//! The configuration gives a gateway other backends while its clients watch resources: they hear of
//! those that it has, without a word of their own, and of no others.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use fleet_tests::{
    backend::{
        Backend, Script, json as answer,
        server::{Server, refused},
        talker::Talker,
    },
    client::{Client, Events, Failure},
    fleet::{Fleet, LEGACY},
    listeners::Listeners,
    programs::{here, python},
    wait::{soon, until},
};
use hyper::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

const SUBSCRIBE: &str = "resources/subscribe";
const UPDATED: &str = "notifications/resources/updated";
const OLD: &str = "talk://one";
const NEW: &str = "new://one";
const CHILD: &str = "watched://one";

async fn apply(fleet: &Fleet, yaml: &str) -> Result<()> {
    let file = fleet.dir().join("changed.yaml");
    std::fs::write(&file, yaml)?;
    let file = file.to_str().context("no text")?;
    let done = fleet.mcpctl(&["apply", "-f", file, "--wait"]).await?;
    ensure!(done.status.success(), "{done:?}");
    Ok(())
}

fn http(name: &str, backend: &Backend) -> String {
    let url = backend.url();
    format!("kind: Backend\nname: {name}\nhttp: {{ url: '{url}' }}\n---\n")
}

/// A child that writes down what it reads.
struct Child {
    seen: PathBuf,
    _dir: tempfile::TempDir,
}

impl Child {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let seen = dir.path().join("seen");
        Ok(Self { seen, _dir: dir })
    }

    fn document(&self) -> String {
        let args = json!([here("servers/watched.py"), self.seen, "legacy"]);
        let child = json!({"command": python(), "args": args});
        format!("kind: Backend\nname: child\nstdio: {child}\n---\n")
    }

    fn told(&self, method: &str) -> usize {
        let seen = std::fs::read_to_string(&self.seen).unwrap_or_default();
        let messages = seen.lines().filter_map(|l| serde_json::from_str(l).ok());
        messages
            .filter(|message: &Value| message["method"] == method)
            .count()
    }
}

/// A server of the new era with one resource.
async fn new(listeners: &Arc<Listeners>) -> Result<Backend> {
    let resources = json!({"resources": [{"uri": NEW, "name": "one"}]});
    let server = Server::echo("new")
        .declares(json!({"tools": {}, "resources": {"subscribe": true}}))
        .lists("resources/list", resources)
        .lists("resources/templates/list", json!({"resourceTemplates": []}));
    Backend::start(listeners.clone().at(server).modern()).await
}

/// A client of the old era, and what it is told outside of calls.
async fn legacy(url: &str, uris: &[&str]) -> Result<(Client, Events)> {
    let mut client = Client::legacy(url, LEGACY).await?;
    let events = client.listen(None).await?;
    for uri in uris {
        client.request(SUBSCRIBE, json!({"uri": uri})).await?;
    }
    Ok((client, events))
}

async fn modern(url: &str, uris: &[&str]) -> Result<Events> {
    let filter = json!({"notifications": {"resourceSubscriptions": uris}});
    let mut client = Client::modern(url).await?;
    let mut events = client.stream("subscriptions/listen", filter).await?;
    let first = events.message().await?;
    let honoured = &first["params"]["notifications"]["resourceSubscriptions"];
    ensure!(*honoured == json!(uris), "{first}");
    Ok(events)
}

async fn hears(events: &mut Events, uri: &str) -> Result<()> {
    let told = events
        .message_of(UPDATED)
        .await
        .with_context(|| uri.to_owned())?;
    ensure!(told["params"]["uri"] == uri, "{told} instead of {uri}");
    Ok(())
}

/// Touches the resource of the child until all have heard of it: it has one subscription for all,
/// so that nobody sees when the last of them is there.
async fn touched(client: &mut Client, streams: &mut [&mut Events]) -> Result<()> {
    let touches = async {
        loop {
            client.call("child__touch", json!({"uri": CHILD})).await?;
        }
    };
    let heard = async {
        for events in streams {
            hears(events, CHILD).await?;
        }
        Ok(())
    };
    tokio::select! {
        failed = touches => failed,
        heard = heard => heard,
    }
}

async fn is_subscribed_to(backend: &Backend, times: usize) -> Result<()> {
    until(&format!("{times} subscriptions"), || async {
        (backend.seen_of(SUBSCRIBE).len() == times).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_watched_at_a_backend_is_watched_at_the_one_in_its_place() -> Result<()> {
    let (talkers, listeners) = (
        [(); 2].map(|()| Talker::default()),
        [(); 2].map(|()| Arc::<Listeners>::default()),
    );
    let old = [
        Backend::start(talkers[0].script()).await?,
        Backend::start(talkers[1].script()).await?,
    ];
    let more = Backend::start(Server::echo("more").legacy()).await?;
    let new = [new(&listeners[0]).await?, new(&listeners[1]).await?];
    let children = [Child::new()?, Child::new()?];
    let document = |o: usize, n: usize, c: usize| {
        // So many that nobody knows at once whose a resource is.
        let more = (0..40).map(|n| {
            let url = more.at(&format!("/{n}"));
            format!("kind: Backend\nname: more-{n}\nhttp: {{ url: '{url}' }}\n---\n")
        });
        let all = more.chain([http("old", &old[o]), http("new", &new[n])]);
        all.collect::<String>() + &children[c].document()
    };
    let fleet = Fleet::start(&document(0, 0, 0)).await?;
    fleet
        .offers(&["old__log", "new__echo", "child__touch"])
        .await?;
    let all = [OLD, NEW, CHILD];
    let (_listens, mut events) = legacy(&fleet.url, &all).await?;
    let mut speaks = fleet.client().await?;
    for uri in all {
        speaks.request(SUBSCRIBE, json!({"uri": uri})).await?;
    }
    let mut stream = modern(&fleet.url, &all).await?;

    apply(&fleet, &document(1, 0, 0)).await?;
    // Who listens is subscribed without a word, and who does not when it says something.
    is_subscribed_to(&old[1], 2).await?;
    speaks.request("ping", json!({})).await?;
    is_subscribed_to(&old[1], 3).await?;
    talkers[1].update(OLD);
    hears(&mut events, OLD).await?;
    hears(&mut stream, OLD).await?;
    ensure!(listeners[0].open() > 0 && children[0].told(SUBSCRIBE) == 1);

    apply(&fleet, &document(1, 1, 0)).await?;
    until("who listens", || async {
        let asked = listeners[1].filters();
        let asked = asked.iter().map(|filter| &filter["resourceSubscriptions"]);
        (asked.filter(|uris| **uris == json!([NEW])).count() == 2).then_some(())
    })
    .await?;
    listeners[1].say(UPDATED, json!({"uri": NEW}));
    hears(&mut events, NEW).await?;
    hears(&mut stream, NEW).await?;

    apply(&fleet, &document(1, 1, 1)).await?;
    touched(&mut speaks, &mut [&mut events, &mut stream]).await?;
    // Nothing was said again to those that have stayed.
    ensure!(old[1].seen_of(SUBSCRIBE).len() == 3);
    ensure!(children[1].told(SUBSCRIBE) == 1 && children[0].told(SUBSCRIBE) == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_heard_of_a_backend_that_a_gateway_has_no_longer() -> Result<()> {
    let talker = Talker::default();
    let (old, child) = (Backend::start(talker.script()).await?, Child::new()?);
    let more = Backend::start(Server::echo("more").legacy()).await?;
    let document = |own: &str| {
        http("old", &old)
            + &http("more", &more)
            + &child.document()
            + "kind: Gateway\nname: all\npath: /all\nbackends: ['*']\n---\n"
            + &format!("kind: Gateway\nname: default\npath: /mcp\nbackends: [{own}]\n")
    };
    let both = document("child, more, old");
    let fleet = Fleet::start(&both).await?;
    fleet.offers(&["old__log", "child__touch"]).await?;
    let (mut client, mut events) = legacy(&fleet.at("/mcp"), &[OLD, CHILD]).await?;
    let mut stream = modern(&fleet.at("/mcp"), &[OLD, CHILD]).await?;
    let (_other, mut others) = legacy(&fleet.at("/all"), &[OLD]).await?;
    talker.update(OLD);
    for events in [&mut events, &mut stream, &mut others] {
        hears(events, OLD).await?;
    }

    apply(&fleet, &document("child, more")).await?;
    talker.update(OLD);
    hears(&mut others, OLD).await?;
    client.call("child__touch", json!({"uri": CHILD})).await?;
    hears(&mut events, CHILD).await?;
    hears(&mut stream, CHILD).await?;

    // It is there again, and is heard again.
    old.forget();
    apply(&fleet, &both).await?;
    until("both streams at what is back", || async {
        let seen = old.seen();
        let listens = seen.iter().filter(|seen| seen.http == Method::GET);
        // Only for the stream, which has begun a new one; the session has stayed subscribed.
        (listens.count() >= 2 && old.seen_of(SUBSCRIBE).len() == 1).then_some(())
    })
    .await?;
    talker.update(OLD);
    hears(&mut stream, OLD).await?;
    // What it has said before may come again to who listens anew.
    let params = json!({"level": "info", "data": "back"});
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
    talker.say(&log);
    ensure!(events.message_of("notifications/message").await? == log);
    ensure!(old.seen_of(SUBSCRIBE).len() == 1);

    // The same for one whose connection all share: it has stayed, nothing of it is left here.
    apply(&fleet, &document("more, old")).await?;
    apply(&fleet, &both).await?;
    touched(&mut client, &mut [&mut events, &mut stream]).await?;

    // A gateway that is elsewhere now says nothing more here.
    apply(&fleet, &both.replace("path: /mcp", "path: /moved")).await?;
    soon("the end of the stream", events.ends()).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_not_there_yet_is_subscribed_to_when_it_is() -> Result<()> {
    let talkers = [(); 2].map(|()| Talker::default());
    let first = Backend::start(talkers[0].script()).await?;
    let second = Backend::start(talkers[1].script()).await?;
    let document = http("old", &second);
    let address = second.address().to_owned();
    drop(second);
    let fleet = Fleet::start(&http("old", &first)).await?;
    fleet.offers(&["old__log"]).await?;
    let (_client, mut events) = legacy(&fleet.url, &[OLD]).await?;
    apply(&fleet, &document).await?;
    let second = Backend::start_at(&address, talkers[1].script()).await?;
    is_subscribed_to(&second, 1).await?;
    talkers[1].update(OLD);
    hears(&mut events, OLD).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_being_made_when_its_backend_is_replaced_is_made_again() -> Result<()>
{
    let talkers = [(); 2].map(|()| Talker::default());
    let (open, opened) = watch::channel(false);
    let script = talkers[0].script();
    let held: Script = Arc::new(move |seen| {
        let (script, mut opened) = (script.clone(), opened.clone());
        Box::pin(async move {
            if seen.method() == SUBSCRIBE {
                let _ = opened.wait_for(|open| *open).await;
            }
            script(seen).await
        })
    });
    let (first, second) = (
        Backend::start(held).await?,
        Backend::start(talkers[1].script()).await?,
    );
    let fleet = Fleet::start(&http("old", &first)).await?;
    fleet.offers(&["old__log"]).await?;
    let (mut client, mut events) = legacy(&fleet.url, &[]).await?;
    let params = json!({"uri": OLD});
    let subscribing = tokio::spawn(async move { client.request(SUBSCRIBE, params).await });
    is_subscribed_to(&first, 1).await?;
    apply(&fleet, &http("old", &second)).await?;
    open.send_replace(true);
    subscribing.await??;
    is_subscribed_to(&second, 1).await?;
    talkers[1].update(OLD);
    hears(&mut events, OLD).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_away_and_has_forgotten_all_is_heard_by_who_still_wants_it() -> Result<()> {
    let talker = Talker::default();
    let old = Backend::start(talker.script()).await?;
    let others = Backend::start(Server::echo("others").legacy()).await?;
    let document = |own: &str| {
        http("old", &old)
            + &http("one", &others)
            + &http("two", &others)
            + &format!("kind: Gateway\nname: default\npath: /mcp\nbackends: [{own}]\n")
    };
    let fleet = Fleet::start(&document("old, one, two")).await?;
    fleet.offers(&["old__log", "one__echo"]).await?;
    let (_stays, mut events) = legacy(&fleet.url, &[OLD]).await?;
    let (mut leaves, _ends) = legacy(&fleet.url, &[OLD]).await?;
    apply(&fleet, &document("one, two")).await?;
    let unsubscribed = leaves.request("resources/unsubscribe", json!({"uri": OLD}));
    let failure = unsubscribed.await.err().context("nobody is there")?;
    ensure!(failure.downcast::<Failure>()?.code() == Some(-32002));
    until("its end at the backend", || async {
        (old.seen_of("resources/unsubscribe").len() == 1).then_some(())
    })
    .await?;
    talker.forget_sessions();
    old.forget();
    apply(&fleet, &document("old, one, two")).await?;
    is_subscribed_to(&old, 1).await?;
    talker.update(OLD);
    hears(&mut events, OLD).await?;
    leaves.request("ping", json!({})).await?;
    ensure!(old.seen_of(SUBSCRIBE).len() == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_refuses_what_it_is_asked_for_is_not_asked_on_and_on() -> Result<()> {
    let talker = Talker::default();
    let old = Backend::start(talker.script()).await?;
    let refusing = Server::echo("old").on(SUBSCRIBE, |seen| async move {
        // Which could also be meant for the session.
        answer(404, &refused(&seen, -32601, "Method not found"))
    });
    let refusing = Backend::start(refusing.legacy()).await?;
    let fleet = Fleet::start(&http("old", &old)).await?;
    fleet.offers(&["old__log"]).await?;
    let (mut client, _events) = legacy(&fleet.url, &[OLD]).await?;
    apply(&fleet, &http("old", &refusing)).await?;
    until("what the backend is asked for", || async {
        (refusing.seen_of(SUBSCRIBE).len() >= 2).then_some(())
    })
    .await?;
    for _ in 0..200 {
        client.call("old__echo", json!({})).await?;
    }
    let asked = refusing.seen_of(SUBSCRIBE).len();
    // That of the proxy itself, that which was refused, and the one opened for that.
    let opened = refusing.seen_of("initialize").len();
    ensure!(
        asked == 2 && opened <= 3,
        "{asked} requests, {opened} sessions"
    );
    Ok(())
}
