//! What a data plane does with a control plane that misbehaves: nothing of a set
//! that did not arrive as it was sent is ever served.

use std::{sync::Arc, time::Duration};

use fleet_proto::{
    delta::{
        Delta, delta,
        known::{self, Collect},
    },
    v1::{
        Backend, Chunk, Commit, ControlMessage, GoAway, Hello, HttpBackend, NodeMessage,
        RequestHashes, Resource, Target,
        backend::Transport,
        control_message::Message as Down,
        fleet_sync_server::{FleetSync, FleetSyncServer},
        node_message::Message as Up,
        resource,
    },
    validate::{Valid, validate},
};
use mcp_dataplane::{
    DataPlane,
    settings::{Credentials, Guard, Settings, Source},
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

#[path = "stream/sets.rs"]
mod sets;

/// What does not happen by then does not happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hands every stream to the test.
struct Scripted(mpsc::Sender<Stream>);

struct Stream {
    hear: Streaming<NodeMessage>,
    say: mpsc::Sender<Result<ControlMessage, Status>>,
}

#[tonic::async_trait]
impl FleetSync for Scripted {
    type SyncStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (say, said) = mpsc::channel(64);
        let hear = request.into_inner();
        let _ = self.0.send(Stream { hear, say }).await;
        Ok(Response::new(ReceiverStream::new(said)))
    }
}

/// A control plane; returns its address and its streams.
async fn scripted() -> (String, mpsc::Receiver<Stream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, streams) = mpsc::channel(8);
    let server = Server::builder().add_service(FleetSyncServer::new(Scripted(sender)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (url, streams)
}

async fn node(urls: Vec<String>) -> DataPlane {
    mcp_dataplane::start(settings(urls)).await.unwrap()
}

fn settings(urls: Vec<String>) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        source: Source::ControlPlane {
            urls,
            credentials: Credentials::node_token("token"),
        },
        node_id: "n1".to_owned(),
        workers: 1,
        guard: Guard::Off,
        drain: Duration::ZERO,
        ..Settings::default()
    }
}

/// The next stream, and what the node says first.
async fn next(streams: &mut mpsc::Receiver<Stream>) -> (Stream, Hello) {
    let stream = timeout(PATIENCE, streams.recv()).await.expect("no stream");
    let mut stream = stream.unwrap();
    match stream.hear().await {
        Some(Up::Hello(hello)) => (stream, hello),
        other => panic!("{other:?} instead of a hello"),
    }
}

impl Stream {
    async fn say(&self, message: Down) {
        let message = Some(message);
        self.say.send(Ok(ControlMessage { message })).await.unwrap();
    }

    /// What the node says next; `None`: it has left.
    async fn hear(&mut self) -> Option<Up> {
        let heard = timeout(PATIENCE, self.hear.message())
            .await
            .expect("silence");
        heard.ok().flatten().and_then(|m| m.message)
    }

    async fn send(
        &self,
        nonce: u64,
        delta: &Delta,
        change: impl FnOnce(&mut Vec<Chunk>, &mut Commit),
    ) {
        let target = Target {
            lineage: "l".to_owned(),
            revision: nonce,
            root_hash: Vec::new(),
        };
        let mut chunks: Vec<_> = delta.chunks(nonce).collect();
        let mut commit = delta.commit(nonce, chunks.len() as u32);
        change(&mut chunks, &mut commit);
        self.say(Down::Begin(delta.begin(nonce, target))).await;
        for chunk in chunks {
            self.say(Down::Chunk(chunk)).await;
        }
        self.say(Down::Commit(commit)).await;
    }

    async fn acks(&mut self, nonce: u64) {
        match self.hear().await {
            Some(Up::Ack(ack)) => assert_eq!(ack.nonce, nonce),
            other => panic!("{other:?} instead of an ack"),
        }
    }
}

/// A set of more than one chunk.
fn set(names: &[&str]) -> Valid {
    let resources = names.iter().map(|name| {
        let http = HttpBackend {
            url: "http://127.0.0.1:1/mcp".to_owned(),
            headers: [("x-long".to_owned(), "x".repeat(200_000))].into(),
            ..HttpBackend::default()
        };
        let backend = Backend {
            name: (*name).to_owned(),
            transport: Some(Transport::Http(http)),
            ..Backend::default()
        };
        Resource {
            kind: Some(resource::Kind::Backend(backend)),
        }
    });
    validate(resources).unwrap()
}

type Mishap = fn(&mut Vec<Chunk>, &mut Commit);

/// A node that serves `old` is sent `new`, not as it should be and then as it should.
async fn survives(old: &Valid, new: &Valid, way: Delta, mishap: Mishap) {
    let (url, mut streams) = scripted().await;
    let plane = node(vec![url]).await;
    let (mut stream, hello) = next(&mut streams).await;
    assert!(hello.deltas && hello.root_hash.is_empty());
    stream.send(1, &Delta::snapshot(old), |_, _| {}).await;
    stream.acks(1).await;
    let served = plane.node().table.load_full();
    stream.send(2, &way, mishap).await;
    assert_eq!(stream.hear().await, None, "neither acked nor refused");
    let (mut stream, hello) = next(&mut streams).await;
    assert_eq!(hello.root_hash, old.root_hash().0);
    assert_eq!((hello.revision, hello.want_snapshot), (1, false));
    assert!(Arc::ptr_eq(&served, &plane.node().table.load_full()));
    stream.send(2, &way, |_, _| {}).await;
    stream.acks(2).await;
    assert_eq!(plane.node().table.load().root_hash, Some(new.root_hash()));
    plane.shutdown().await;
}

#[tokio::test]
async fn a_set_that_lost_or_repeated_or_reordered_a_chunk_restarts_the_stream() {
    let (old, new) = (set(&["a", "b"]), set(&["b", "c", "d", "e"]));
    let mishaps: [Mishap; 5] = [
        |chunks, _| drop(chunks.remove(1)),
        |chunks, _| chunks.insert(1, chunks[1].clone()),
        |chunks, _| chunks.swap(0, 1),
        |chunks, _| chunks.truncate(2),
        |chunks, _| chunks[1].nonce = 77,
    ];
    let cases = mishaps.into_iter().flat_map(|mishap| {
        [delta(&old, &new), Delta::snapshot(&new)].map(|way| survives(&old, &new, way, mishap))
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn a_delta_that_does_not_fit_makes_the_node_ask_for_a_snapshot() {
    let (url, mut streams) = scripted().await;
    let plane = node(vec![url]).await;
    let (mut stream, _) = next(&mut streams).await;
    let (old, new, other) = (set(&["a"]), set(&["a", "b"]), set(&["c"]));
    stream.send(1, &Delta::snapshot(&old), |_, _| {}).await;
    stream.acks(1).await;
    stream.send(2, &delta(&other, &new), |_, _| {}).await;
    assert_eq!(stream.hear().await, None);
    let (mut stream, hello) = next(&mut streams).await;
    assert!(hello.want_snapshot);
    stream.send(1, &Delta::snapshot(&new), |_, _| {}).await;
    stream.acks(1).await;

    // The wrong result of a delta, too, is not a verdict on the revision.
    let wrong: Mishap = |_, commit| commit.root_hash = vec![9; 32];
    stream.send(2, &delta(&new, &old), wrong).await;
    assert_eq!(stream.hear().await, None);
    let (mut stream, hello) = next(&mut streams).await;
    assert!(hello.want_snapshot);
    // Of a snapshot it is.
    stream.send(1, &Delta::snapshot(&old), wrong).await;
    match stream.hear().await {
        Some(Up::Nack(nack)) => assert!(nack.errors[0].message.contains("root hash")),
        other => panic!("{other:?} instead of a nack"),
    }
    assert_eq!(plane.node().table.load().root_hash, Some(new.root_hash()));
    plane.shutdown().await;
}

#[tokio::test]
async fn a_node_that_is_sent_away_comes_back_later_and_to_another_address_first() {
    let (one, mut at_one) = scripted().await;
    let (other, mut at_other) = scripted().await;
    let plane = node(vec![one, other]).await;
    let (stream, is_one) = tokio::select! {
        (stream, _) = next(&mut at_one) => (stream, true),
        (stream, _) = next(&mut at_other) => (stream, false),
    };
    let start = Instant::now();
    let retry_after_ms = 300;
    stream.say(Down::GoAway(GoAway { retry_after_ms })).await;
    let elsewhere = if is_one { &mut at_other } else { &mut at_one };
    next(elsewhere).await;
    assert!(start.elapsed() >= Duration::from_millis(retry_after_ms));
    plane.shutdown().await;
}

#[tokio::test]
async fn a_node_tells_what_it_serves_by_hashes_and_takes_the_delta_that_is_made_of_them() {
    let (url, mut streams) = scripted().await;
    let plane = node(vec![url]).await;
    let (mut stream, hello) = next(&mut streams).await;
    assert!(hello.hashes);
    // Nothing is served yet.
    let told = async |stream: &mut Stream, root| {
        stream.say(Down::RequestHashes(RequestHashes {})).await;
        let mut collect = Collect::new(root);
        loop {
            let Some(Up::KnownHashes(part)) = stream.hear().await else {
                panic!("no hashes");
            };
            assert!(part.hashes.len() <= known::ENTRIES);
            if collect.add(part).unwrap() {
                return collect.finish().unwrap();
            }
        }
    };
    told(&mut stream, Valid::empty().root_hash()).await;
    let (old, new) = (set(&["a", "b", "c"]), set(&["b", "c", "d"]));
    stream.send(1, &Delta::snapshot(&old), |_, _| {}).await;
    stream.acks(1).await;
    let known = told(&mut stream, old.root_hash()).await;
    let way = fleet_proto::delta::from_known(&known, &new);
    assert_eq!(way.counts(), (1, 1));
    stream.send(2, &way, |_, _| {}).await;
    stream.acks(2).await;
    assert_eq!(plane.node().table.load().root_hash, Some(new.root_hash()));
    plane.shutdown().await;
}
