//! One stream to one node.
//!
//! At most one set is in flight. While it is, newer revisions are not queued:
//! the answer to it makes the stream look at what is newest then, and sends what
//! differs from what the node has acked.

use std::{sync::Arc, time::Duration};

use fleet_proto::{
    hash::Hash,
    v1::{
        Ack, ControlMessage, Heartbeat, Nack, NodeMessage, SetPart, Target, control_message,
        node_message,
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use tokio_stream::{Stream as Messages, StreamExt};
use tonic::Status;

use self::asked::Asked;
use super::{
    end::{End, message},
    hello::{self, Serves},
    node::{Registry, Session},
    sets::Feed,
};
use crate::{
    identity::credential::Credential,
    peers,
    publish::{Base, Published, Publisher, Snapshot},
    sets::Shown,
};

const HEARTBEAT: Duration = Duration::from_secs(15);
/// A node that has answered no heartbeat for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a node may take to accept the last message.
const LAST_WORDS: Duration = Duration::from_secs(5);

mod asked;
#[cfg(test)]
mod tests;

/// What a node sends.
pub(super) trait Inbound:
    Messages<Item = Result<NodeMessage, Status>> + Unpin + Send
{
}
impl<T: Messages<Item = Result<NodeMessage, Status>> + Unpin + Send> Inbound for T {}

type Sender = mpsc::Sender<Result<ControlMessage, Status>>;

/// Serves a stream until either side ends it.
pub(super) async fn serve(
    mut inbound: impl Inbound,
    credential: Credential,
    outbound: Sender,
    publisher: Arc<Publisher>,
    (sets, peers): (Arc<Shown>, watch::Receiver<Arc<peers::Shown>>),
    nodes: Arc<Registry>,
    shutdown: watch::Receiver<bool>,
) {
    let hello = hello::first(&mut inbound).await;
    let admitted = hello.and_then(|mut hello| {
        credential.speaks_for(&hello.node_id)?;
        if !credential.is_certificate() {
            // Peers know each other by their certificates.
            hello.peer_address.clear();
        }
        Ok(hello)
    });
    let hello = match admitted {
        Ok(hello) => hello,
        Err(status) => {
            tracing::warn!(error = status.message(), "a data plane was turned away");
            // The client may have left already.
            let _ = outbound.send(Err(status)).await;
            return;
        }
    };
    let published = publisher.subscribe();
    let lineage = Arc::clone(&publisher.newest().lineage);
    let (session, replaced) = nodes.connect(&hello, &lineage);
    tracing::info!(
        node = hello.node_id,
        boot = hello.boot_id,
        version = hello.version,
        revision = hello.revision,
        from_disk = hello.from_disk,
        "data plane connected"
    );
    let served = Hash::from_wire(&hello.root_hash).filter(|_| hello.deltas && !hello.want_snapshot);
    let base = served.and_then(|root| publisher.known(root));
    let asked = match served.filter(|_| base.is_none() && hello.hashes) {
        Some(root) => Asked::Wanted(root),
        None => Asked::No,
    };
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick of an interval is immediate.
    heartbeat.reset();
    let stream = Stream {
        serves: Serves::of(&hello, &lineage),
        base,
        asked,
        deltas: hello.deltas,
        version: hello.version.clone(),
        pinned: false,
        feed: Feed::new(sets, peers, &hello),
        inbound,
        credential,
        outbound: outbound.clone(),
        publisher,
        published,
        session,
        replaced,
        shutdown,
        heartbeat,
        heard: Instant::now(),
        nonce: 0,
        in_flight: None,
    };
    let end = stream.run().await;
    tracing::info!(
        node = hello.node_id,
        reason = end.reason(),
        "data plane disconnected"
    );
    if let Some(last) = end.last_words() {
        let _ = timeout(LAST_WORDS, outbound.send(last)).await;
    }
}

/// A set that the node has not answered yet.
struct InFlight {
    nonce: u64,
    snapshot: Arc<Snapshot>,
}

struct Stream<I> {
    inbound: I,
    /// With what it has come.
    credential: Credential,
    outbound: Sender,
    publisher: Arc<Publisher>,
    published: watch::Receiver<Published>,
    feed: Feed,
    session: Session,
    replaced: oneshot::Receiver<()>,
    shutdown: watch::Receiver<bool>,
    heartbeat: Interval,
    heard: Instant,
    serves: Serves,
    /// What the node serves, where a delta to it can be made and applied.
    base: Option<Base>,
    asked: Asked,
    /// The node can apply deltas.
    deltas: bool,
    /// Of its program.
    version: String,
    /// It had nothing, and was given an older revision because the newest was refused.
    pinned: bool,
    nonce: u64,
    in_flight: Option<InFlight>,
}

impl<I: Inbound> Stream<I> {
    async fn run(mut self) -> End {
        let end = self.drive().await;
        // A verdict that had arrived already was read before: nothing is lost here.
        end.err().unwrap_or(End::Left)
    }

    async fn drive(&mut self) -> Result<(), End> {
        if let Some(target) = self.target()
            && self.serves.is(&target)
        {
            // It has what it should have: O(1), no lists.
            self.publisher.acked(&target);
            self.send(control_message::Message::Heartbeat(Heartbeat {}))
                .await?;
        }
        loop {
            self.published.mark_unchanged();
            self.feed.mark_unchanged();
            let target = self.target();
            // After the target: it is shown after the values that it names.
            if let Some(parts) = self.lacking(target.as_ref()) {
                for part in parts.iter() {
                    let part = control_message::Message::SetPart(part.clone());
                    self.send(part).await?;
                }
                continue;
            }
            if self.in_flight.is_none()
                && let Some(target) = target
                && !self.serves.is(&target)
            {
                match self.asked {
                    Asked::Wanted(root) => self.ask(root).await?,
                    _ => self.push(target).await?,
                }
                continue;
            }
            self.wait(false).await?;
        }
    }

    /// The parts of a set that the node lacks, for what it serves and is to serve.
    fn lacking(&mut self, target: Option<&Arc<Snapshot>>) -> Option<Arc<[SetPart]>> {
        let newest = self.publisher.newest();
        let in_flight = self.in_flight.as_ref().map(|in_flight| &in_flight.snapshot);
        let base = self.base.as_ref().and_then(Base::revision);
        let revisions = [Some(&newest), target, base, in_flight];
        self.feed.next(revisions.into_iter().flatten())
    }

    fn target(&self) -> Option<Arc<Snapshot>> {
        let something = !matches!(self.serves, Serves::Nothing);
        let published = self.published.borrow();
        let held_back = self.pinned && published.holds_back(&self.version);
        self.session
            .pin(held_back.then(|| published.newest.root_hash()));
        if held_back {
            return None;
        }
        published
            .target(something, |root| self.session.has_refused(root))
            .cloned()
    }

    /// Sends a set, as the node can best use it.
    async fn push(&mut self, snapshot: Arc<Snapshot>) -> Result<(), End> {
        self.nonce += 1;
        let nonce = self.nonce;
        let delta = self.publisher.delta(self.base.as_ref(), &snapshot);
        let (put, removed) = delta.counts();
        tracing::debug!(
            node = self.session.node_id(),
            revision = snapshot.revision,
            snapshot = delta.is_snapshot(),
            put,
            removed,
            "sending a set"
        );
        let target = Target {
            lineage: snapshot.lineage.to_string(),
            revision: snapshot.revision,
            root_hash: snapshot.root_hash().0.to_vec(),
        };
        self.in_flight = Some(InFlight { nonce, snapshot });
        let begin = delta.begin(nonce, target);
        self.send(control_message::Message::Begin(begin)).await?;
        let mut sent = 0;
        for chunk in delta.chunks(nonce) {
            self.send(control_message::Message::Chunk(chunk)).await?;
            sent += 1;
        }
        let commit = delta.commit(nonce, sent);
        self.send(control_message::Message::Commit(commit)).await
    }

    /// Sends a message, reading what comes in meanwhile.
    async fn send(&mut self, body: control_message::Message) -> Result<(), End> {
        while !self.wait(true).await? {}
        let sent = self.outbound.try_send(Ok(message(body)));
        sent.map_err(|_| End::Left)
    }

    /// Deals with the next thing that happens. With `room`, that may be that there
    /// is room for a message (`true`).
    async fn wait(&mut self, room: bool) -> Result<bool, End> {
        #[expect(clippy::large_enum_variant, reason = "there is one, and for a moment")]
        enum Event {
            Received(Option<Result<NodeMessage, Status>>),
            Beat,
            Changed,
        }
        let event = tokio::select! {
            biased;
            _ = &mut self.replaced => return Err(End::Replaced),
            _ = self.shutdown.wait_for(|down| *down) => return Err(End::Shutdown),
            why = self.credential.void() => return Err(End::Void(why)),
            received = self.inbound.next() => Event::Received(received),
            permit = self.outbound.reserve(), if room => {
                return permit.map(|_| true).map_err(|_| End::Left);
            }
            () = self.outbound.closed() => return Err(End::Left),
            _ = self.heartbeat.tick() => Event::Beat,
            changed = self.published.changed(), if !room => {
                changed.map_err(|_| End::Shutdown)?;
                Event::Changed
            }
            () = self.feed.changed(), if !room => Event::Changed,
        };
        match event {
            Event::Received(received) => self.receive(received)?,
            Event::Beat => self.beat()?,
            Event::Changed => {}
        }
        Ok(false)
    }

    fn beat(&self) -> Result<(), End> {
        if self.heard.elapsed() > SILENCE {
            return Err(End::Silent);
        }
        // A full channel is no reason to wait: something is on its way already.
        let beat = control_message::Message::Heartbeat(Heartbeat {});
        let _ = self.outbound.try_send(Ok(message(beat)));
        Ok(())
    }

    fn receive(&mut self, received: Option<Result<NodeMessage, Status>>) -> Result<(), End> {
        let received = received.ok_or(End::Left)?.map_err(End::Broken)?;
        self.heard = Instant::now();
        self.session.heard();
        match received.message {
            Some(node_message::Message::Ack(ack)) => self.acked(ack),
            Some(node_message::Message::Nack(nack)) => {
                self.nacked(nack);
                Ok(())
            }
            Some(node_message::Message::Heartbeat(_)) => Ok(()),
            Some(node_message::Message::Hello(_)) => {
                Err(End::Protocol("a second hello on one stream".to_owned()))
            }
            Some(node_message::Message::KnownHashes(part)) => self.told(part),
            Some(node_message::Message::SetAck(ack)) => {
                self.session.set_acked(ack);
                Ok(())
            }
            None => Err(End::Protocol(
                "a message of a kind that is not known here".to_owned(),
            )),
        }
    }

    fn acked(&mut self, ack: Ack) -> Result<(), End> {
        let Some(InFlight { snapshot, .. }) = self.in_flight.take_if(|f| f.nonce == ack.nonce)
        else {
            return Err(End::Protocol(format!(
                "an ack of nonce {}, which is not in flight",
                ack.nonce
            )));
        };
        let root_hash = snapshot.root_hash();
        if ack.revision != snapshot.revision || ack.root_hash != root_hash.0 {
            return Err(End::Protocol(format!(
                "an ack of revision {} with a root hash that revision {} does not have",
                ack.revision, snapshot.revision
            )));
        }
        for problem in &ack.degraded {
            tracing::warn!(
                node = self.session.node_id(), revision = ack.revision, path = problem.path,
                key = ?problem.key, reason = problem.message, "degraded on a node"
            );
        }
        let newest = self.published.borrow().newest.revision;
        self.pinned = matches!(self.serves, Serves::Nothing) && snapshot.revision < newest;
        self.serves = Serves::Ours {
            revision: snapshot.revision,
            root_hash,
        };
        self.base = self.deltas.then(|| Base::Set(Arc::clone(&snapshot)));
        // Publish first: who sees the node synced also finds the revision acked.
        self.publisher.acked(&snapshot);
        self.session.acked(&snapshot, ack.apply_us, ack.degraded);
        Ok(())
    }

    fn nacked(&mut self, nack: Nack) {
        let Some(InFlight { snapshot, .. }) = self.in_flight.take_if(|f| f.nonce == nack.nonce)
        else {
            tracing::warn!(
                node = self.session.node_id(),
                nonce = nack.nonce,
                "a nack of what is not in flight"
            );
            return;
        };
        let first = nack.errors.first();
        tracing::warn!(
            node = self.session.node_id(),
            revision = snapshot.revision,
            problems = nack.errors.len(),
            first = first.map_or("", |problem| &problem.message),
            "a node refused a revision"
        );
        self.session.nacked(&snapshot, nack.errors);
        self.publisher.refused(snapshot.revision, &self.version);
    }
}
