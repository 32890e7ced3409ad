//! The node's end of `FleetSync`: hello, sets, ack or nack; and again, with
//! jitter, when the stream breaks.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fleet_proto::{
    hash::Hash,
    key::Key,
    v1::{
        Ack, Begin, Chunk, Commit, ControlMessage, Heartbeat, Hello, Nack, NodeMessage, SyncMode,
        control_message::Message as Down, fleet_sync_client::FleetSyncClient,
        node_message::Message as Up,
    },
    validate::{Problem, validate_encoded},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::Endpoint,
};

use super::apply::apply;
use crate::{node::Node, sealed, table::compile::Version};

/// Waits between attempts: full jitter up to a bound that doubles.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// A control plane silent for longer than this is gone: it sends heartbeats.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest message: a chunk of 256 KiB, unless a single resource is larger.
const MAX_MESSAGE: usize = 64 << 20;
/// Answers under way; there is one nonce in flight.
const QUEUE: usize = 8;

/// Keeps a stream to the control plane.
pub(super) async fn follow(node: Arc<Node>, url: &str, token: &str) {
    let boot_id = uuid::Uuid::new_v4().to_string();
    let mut bound = BACKOFF.0;
    loop {
        let started = Instant::now();
        let ended = Box::pin(stream(&node, url, token, &boot_id)).await;
        if started.elapsed() > BACKOFF.1 {
            bound = BACKOFF.0;
        }
        let pause = match ended {
            Ok(Some(asked)) => asked + jitter(bound),
            Ok(None) => jitter(bound),
            Err(error) => {
                let (code, message) = (error.code(), error.message().to_owned());
                tracing::warn!(
                    url,
                    ?code,
                    message,
                    "no stream to the control plane; serving what there is"
                );
                jitter(bound)
            }
        };
        bound = (bound * 2).min(BACKOFF.1);
        tokio::time::sleep(pause).await;
    }
}

fn jitter(bound: Duration) -> Duration {
    let random = sealed::random::<4>().map_or(u32::MAX, u32::from_le_bytes);
    bound
        .mul_f64(f64::from(random) / f64::from(u32::MAX))
        .max(Duration::from_millis(10))
}

/// One stream, to its end. Returns how long the control plane asks to stay away.
async fn stream(
    node: &Arc<Node>,
    url: &str,
    token: &str,
    boot_id: &str,
) -> Result<Option<Duration>, Status> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|e| Status::invalid_argument(e.to_string()))?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let channel = endpoint
        .connect()
        .await
        .map_err(|e| Status::unavailable(format!("{e:?}")))?;
    let mut client = FleetSyncClient::new(channel).max_decoding_message_size(MAX_MESSAGE);

    let (answers, sent) = mpsc::channel(QUEUE);
    let say = async |message: Up| {
        let message = NodeMessage {
            message: Some(message),
        };
        answers
            .send(message)
            .await
            .map_err(|_| Status::unavailable("the stream is closed"))
    };
    say(Up::Hello(hello(node, boot_id))).await?;
    let mut request = Request::new(ReceiverStream::new(sent));
    request
        .metadata_mut()
        .insert("authorization", credentials(token)?);
    let mut down = client.sync(request).await?.into_inner();
    tracing::info!(url, "stream to the control plane is open");

    let mut set: Option<Incoming> = None;
    loop {
        let message = tokio::time::timeout(SILENCE, down.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the control plane is silent"))??;
        let Some(ControlMessage {
            message: Some(message),
        }) = message
        else {
            return Ok(None);
        };
        match message {
            Down::Begin(begin) => set = Some(Incoming::new(begin)),
            Down::Chunk(chunk) => match &mut set {
                Some(set) => set.add(chunk),
                None => return Err(Status::internal("a chunk came before its begin")),
            },
            Down::Commit(commit) => {
                let Some(set) = set.take() else {
                    return Err(Status::internal("a commit came before its begin"));
                };
                say(finish(node, set, &commit)).await?;
            }
            Down::Heartbeat(_) => say(Up::Heartbeat(Heartbeat {})).await?,
            Down::GoAway(go) => return Ok(Some(Duration::from_millis(go.retry_after_ms))),
        }
    }
}

fn credentials(token: &str) -> Result<MetadataValue<Ascii>, Status> {
    let wrong = |_| {
        Status::invalid_argument(
            "the node token cannot be sent: it has characters that no token has",
        )
    };
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

fn hello(node: &Node, boot_id: &str) -> Hello {
    let table = node.table.load();
    Hello {
        node_id: node.settings.node_id.clone(),
        boot_id: boot_id.to_owned(),
        labels: node.settings.labels.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        lineage: table.lineage.clone(),
        revision: table.revision,
        root_hash: table.root_hash.map(|h| h.0.to_vec()).unwrap_or_default(),
        ..Hello::default()
    }
}

/// A set that is arriving.
struct Incoming {
    begin: Begin,
    resources: BTreeMap<Key, Vec<u8>>,
    problems: Vec<Problem>,
}

impl Incoming {
    fn new(begin: Begin) -> Self {
        let mut problems = Vec::new();
        if begin.mode != SyncMode::Snapshot as i32 {
            problems.push(problem(format!(
                "sync mode {} is not known to this data plane: upgrade it",
                begin.mode
            )));
        }
        Self {
            begin,
            resources: BTreeMap::new(),
            problems,
        }
    }

    fn add(&mut self, chunk: Chunk) {
        for resource in chunk.resources {
            let key = resource.key.unwrap_or_default();
            match Key::from_wire(&key) {
                Some(key) => {
                    self.resources.insert(key, resource.body);
                }
                None => self.problems.push(problem(format!(
                    "{} {} is of a kind that this data plane does not know: upgrade it",
                    key.kind, key.name
                ))),
            }
        }
    }
}

fn problem(message: String) -> Problem {
    Problem {
        key: None,
        path: String::new(),
        message,
    }
}

/// Applies a complete set, or refuses it whole.
fn finish(node: &Arc<Node>, set: Incoming, commit: &Commit) -> Up {
    let started = Instant::now();
    let nonce = set.begin.nonce;
    let target = set.begin.target.unwrap_or_default();
    let refuse = |problems: Vec<Problem>| {
        for problem in &problems {
            tracing::error!(revision = target.revision, "refused: {problem}");
        }
        Up::Nack(Nack {
            nonce,
            errors: problems.iter().map(Problem::to_wire).collect(),
        })
    };
    if !set.problems.is_empty() {
        return refuse(set.problems);
    }
    let valid = match validate_encoded(set.resources) {
        Ok(valid) => valid,
        Err(problems) => return refuse(problems),
    };
    let root = valid.root_hash();
    if Hash::from_wire(&commit.root_hash) != Some(root) {
        let what = format!(
            "the set that arrived has root hash {root}, not that of the commit: it came incomplete"
        );
        return refuse(vec![problem(what)]);
    }
    let version = Version {
        lineage: target.lineage,
        revision: target.revision,
    };
    let degraded = apply(node, version, &valid);
    Up::Ack(Ack {
        nonce,
        revision: target.revision,
        root_hash: root.0.to_vec(),
        apply_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        degraded: degraded.iter().map(Problem::to_wire).collect(),
    })
}
