//! The node's end of `FleetSync`: hello, sets, ack or nack; and again, with
//! jitter and at another address, when the stream breaks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fleet_proto::{
    delta::{Broken, Incoming, Refusal, known},
    v1::{
        Ack, Commit, ControlMessage, Heartbeat, Hello, KnownHashes, Nack, NodeMessage,
        control_message::Message as Down, fleet_sync_client::FleetSyncClient,
        node_message::Message as Up,
    },
    validate::{Problem, Valid},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{
    Held,
    apply::apply,
    link::{self, Link},
    reconnect::Reconnect,
    sets::Sets,
};
use crate::{node::Node, table::compile::Version};

/// A control plane silent for longer than this is gone: it sends heartbeats.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest time that a control plane may send a node away for.
const LONGEST_AWAY: Duration = Duration::from_secs(60);
/// Longest message: a chunk of 256 KiB, unless a single resource is larger.
const MAX_MESSAGE: usize = 64 << 20;
/// Answers under way; there is one nonce in flight.
const QUEUE: usize = 8;

/// Keeps a stream to one of the control planes. What is applied goes to `applied`.
pub(super) async fn follow(
    node: Arc<Node>,
    link: Arc<Link>,
    boot_id: String,
    (held, sets): (Option<Held>, Sets),
    applied: watch::Sender<Option<Held>>,
) {
    let mut follower = Follower {
        node,
        link: Arc::clone(&link),
        boot_id,
        held,
        sets,
        applied,
        want_snapshot: false,
        opened: None,
    };
    let mut tries = Reconnect::new(link.urls().to_vec());
    let mut said = String::new();
    while let Some(url) = tries.next() {
        let ended = Box::pin(follower.stream(&url)).await;
        follower.node.control.disconnected();
        let asked = match ended {
            Ok(asked) => {
                said.clear();
                asked.unwrap_or_default()
            }
            Err(error) => {
                let (code, message) = (error.code(), link::told(&error));
                let reason = format!("{url}: {code:?}: {message}");
                // The same failure again and again is no news.
                if said != reason {
                    let what = "no stream to the control plane; serving what there is";
                    tracing::warn!(url, ?code, reason = message, "{what}");
                    said.clone_from(&reason);
                }
                follower.node.control.not_reached(reason);
                link.ended(&error, follower.opened.is_some());
                link.patience()
            }
        };
        let lived = follower.opened.take().map(|opened| opened.elapsed());
        tokio::time::sleep(asked + tries.pause(&url, lived)).await;
    }
    tracing::error!("no control plane is named: nothing will be served; pass --control-plane");
}

/// What lasts from stream to stream.
struct Follower {
    node: Arc<Node>,
    link: Arc<Link>,
    boot_id: String,
    held: Option<Held>,
    sets: Sets,
    applied: watch::Sender<Option<Held>>,
    /// The last delta did not come out as it should.
    want_snapshot: bool,
    /// When the control plane answered on this stream.
    opened: Option<Instant>,
}

impl Follower {
    /// One stream, to its end. Returns how long the control plane asks to stay away.
    async fn stream(&mut self, url: &str) -> Result<Option<Duration>, Status> {
        let (answers, sent) = mpsc::channel(QUEUE);
        let say = async |message: Up| {
            let message = NodeMessage {
                message: Some(message),
            };
            let sent = answers.send(message).await;
            sent.map_err(|_| Status::unavailable("the stream is closed"))
        };
        self.sets.start_over();
        // First: with the certificate that a node joins for it can have peers.
        let channel = self.link.connect(url).await?;
        let hello = self.hello(self.advertised(url).await);
        say(Up::Hello(hello)).await?;
        let mut down = open(&self.link, channel, url, sent).await?;
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
            self.reached(url);
            match message {
                Down::Begin(begin) => {
                    let served = self.held.as_ref().map(|held| &held.set);
                    let begun = Incoming::new(begin, served);
                    set = Some(begun.map_err(|broken| self.broken(&broken))?);
                }
                Down::Chunk(chunk) => {
                    let set = set.as_mut().ok_or_else(|| stray("a chunk"))?;
                    set.add(chunk).map_err(|broken| self.broken(&broken))?;
                }
                Down::Commit(commit) => {
                    let set = set.take().ok_or_else(|| stray("a commit"))?;
                    say(self.finish(set, commit).await?).await?;
                    self.keep();
                }
                Down::RequestHashes(_) => {
                    for part in self.known_hashes() {
                        say(Up::KnownHashes(part)).await?;
                    }
                }
                Down::SetPart(part) => {
                    let added = self.sets.add(&self.node, self.held.as_ref(), part).await;
                    let ack = added.map_err(|broken| Status::data_loss(broken.to_string()))?;
                    if let Some(ack) = ack {
                        say(Up::SetAck(ack)).await?;
                    }
                }
                Down::Heartbeat(_) => say(Up::Heartbeat(Heartbeat {})).await?,
                Down::GoAway(go) => {
                    return Ok(Some(
                        Duration::from_millis(go.retry_after_ms).min(LONGEST_AWAY),
                    ));
                }
            }
        }
    }

    /// Where peers reach this node; empty: it has no peer listener, or no certificate yet.
    async fn advertised(&self, url: &str) -> String {
        let peers = &self.node.peers;
        let local = async || link::local_address(url).await;
        match peers.advertised(local).await {
            Ok(address) => address.unwrap_or_default(),
            Err(error) => {
                tracing::error!(
                    %error,
                    "it cannot be told where other data planes reach this one, and its sessions are \
                     opened anew elsewhere: give --peer-listen and --peer-advertise, or `off`"
                );
                String::new()
            }
        }
    }

    fn hello(&self, peer_address: String) -> Hello {
        let settings = &self.node.settings;
        let held = self.held.as_ref();
        Hello {
            node_id: settings.node_id.clone(),
            boot_id: self.boot_id.clone(),
            labels: settings.labels.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lineage: held.map_or_else(String::new, |held| held.version.lineage.clone()),
            revision: held.map_or(0, |held| held.version.revision),
            root_hash: held.map_or_else(Vec::new, |held| held.set.root_hash().0.to_vec()),
            deltas: true,
            sets: self.sets.versions(),
            hashes: true,
            peer_address,
            from_disk: self.node.control.is_from_disk(),
            want_snapshot: self.want_snapshot,
            degraded: self
                .node
                .table
                .load()
                .degraded
                .iter()
                .map(Problem::to_wire)
                .collect(),
        }
    }

    /// What is served, by its hashes.
    fn known_hashes(&self) -> impl Iterator<Item = KnownHashes> {
        let set = self.held.as_ref().map(|held| held.set.clone());
        known::parts(set.unwrap_or_else(Valid::empty))
    }

    fn reached(&mut self, url: &str) {
        self.opened.get_or_insert_with(Instant::now);
        if self.node.control.reached(url) {
            tracing::info!("what was kept on disk is served no longer without a control plane");
        }
    }

    /// Nothing of the set was used: a new stream starts from what is served.
    fn broken(&mut self, broken: &Broken) -> Status {
        self.want_snapshot |= matches!(
            broken,
            Broken::Base | Broken::NotThere(_) | Broken::Root { .. }
        );
        Status::data_loss(format!(
            "a set arrived otherwise than it was sent: {broken}"
        ))
    }

    /// Applies a complete set, or refuses it whole. Returns what to answer.
    async fn finish(&mut self, set: Incoming, commit: Commit) -> Result<Up, Status> {
        let node = self.node.clone();
        // Checking and compiling a large set would hold up what else runs here.
        let finished = tokio::task::spawn_blocking(move || finish(&node, set, &commit));
        match finished.await {
            Ok(Finished::Applied(held, ack)) => {
                self.sets.served(&self.node, &held.set);
                self.held = Some(held);
                self.want_snapshot = false;
                Ok(Up::Ack(ack))
            }
            Ok(Finished::Refused(nack)) => Ok(Up::Nack(nack)),
            Ok(Finished::Broken(broken)) => Err(self.broken(&broken)),
            Err(error) => Err(Status::internal(format!("a set was not applied: {error}"))),
        }
    }

    /// What is served now is to be on disk.
    fn keep(&self) {
        self.applied.send_if_modified(|kept| {
            let is_new = |held: &Held| {
                let kept = kept.as_ref();
                kept.is_none_or(|kept| kept.version != held.version || kept.set != held.set)
            };
            let newer = self.held.clone().filter(is_new);
            let is_newer = newer.is_some();
            if is_newer {
                *kept = newer;
            }
            is_newer
        });
    }
}

async fn open(
    link: &Link,
    channel: Channel,
    url: &str,
    sent: mpsc::Receiver<NodeMessage>,
) -> Result<Streaming<ControlMessage>, Status> {
    let mut client = FleetSyncClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let request = link.authorized(url, ReceiverStream::new(sent))?;
    Ok(client.sync(request).await?.into_inner())
}

fn stray(what: &str) -> Status {
    Status::data_loss(format!("{what} came before its begin"))
}

/// What became of a complete set.
enum Finished {
    Applied(Held, Ack),
    Refused(Nack),
    Broken(Broken),
}

fn finish(node: &Arc<Node>, set: Incoming, commit: &Commit) -> Finished {
    let started = Instant::now();
    let (nonce, target) = (set.nonce(), set.target().clone());
    let set = match set.finish(commit) {
        Ok(set) => set,
        Err(Refusal::Broken(broken)) => return Finished::Broken(broken),
        Err(Refusal::Problems(problems)) => {
            for problem in &problems {
                tracing::error!(revision = target.revision, "refused: {problem}");
            }
            node.control.refused(format!(
                "revision {}: {}",
                target.revision,
                problems.first().map(Problem::to_string).unwrap_or_default()
            ));
            let errors = problems.iter().map(Problem::to_wire).collect();
            return Finished::Refused(Nack { nonce, errors });
        }
    };
    let version = Version {
        lineage: target.lineage,
        revision: target.revision,
    };
    let degraded = apply(node, version.clone(), &set);
    node.control.refused(String::new());
    let ack = Ack {
        nonce,
        revision: target.revision,
        root_hash: set.root_hash().0.to_vec(),
        apply_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        degraded: degraded.iter().map(Problem::to_wire).collect(),
    };
    Finished::Applied(Held { version, set }, ack)
}
