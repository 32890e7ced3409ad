//! `subscriptions/listen` of a client (2026-07-28, Subscriptions): one stream, fed by all
//! backends of the gateway.
//!
//! That lists have changed is told from the catalogues, so that who asks then gets the new
//! ones; what backends say of single resources and tasks comes on streams of this client's
//! own, one at each backend that owns any. A backend that goes away is connected to again
//! and does not end the client's stream; what does is said with the closing result.

mod filter;
pub(crate) mod legacy;
mod notice;
pub(crate) mod source;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    auth::Principal,
    call::{Call, Reply, WorkerId},
    catalog::{feed, render::Owner, versions::Listed},
    error::CallError,
    node::Node,
    session,
    table::Gateway,
};
use filter::Filter;
use source::{Source, Subjects};

/// Messages that may wait for the client.
const QUEUE: usize = 64;
/// How long the acknowledgement waits for those of the backends.
const PATIENCE: Duration = Duration::from_secs(1);
/// Changes that come within this time are told of at once.
const TOGETHER: Duration = Duration::from_millis(100);

/// One stream of a client.
struct Subscription {
    node: Arc<Node>,
    worker: WorkerId,
    principal: Arc<Principal>,
    owner: session::Owner,
    /// Path and id of the gateway.
    place: (String, String),
    /// The gateway as it was when it was last looked at.
    gateway: Weak<Gateway>,
    /// Source text of the request's id, which names the subscription.
    id: Bytes,
    /// Members of `_meta` of its own requests to backends.
    meta: String,
    filter: Filter,
    /// The lists as the client was last told of them.
    seen: [u64; 3],
    feeds: Vec<Arc<feed::Following>>,
    /// By the serial number of their backend.
    sources: BTreeMap<u64, Source>,
    from_sources: (mpsc::Sender<source::Heard>, mpsc::Receiver<source::Heard>),
    changes: watch::Receiver<()>,
    drain: watch::Receiver<bool>,
    acknowledged: bool,
    ready: VecDeque<Bytes>,
    done: bool,
}

/// Answers `subscriptions/listen`.
///
/// # Errors
/// The filter is none, or asks for what this client has not declared.
pub(crate) fn listen(
    node: &Arc<Node>,
    gateway: &Arc<Gateway>,
    call: &Call,
) -> Result<Reply, CallError> {
    let filter = Filter::of(call, &gateway.scope)?;
    let mut subscription = Subscription {
        node: node.clone(),
        worker: call.worker,
        owner: session::Owner::new(&gateway.id, &call.principal.id),
        principal: call.principal.clone(),
        place: (gateway.path.clone(), gateway.id.clone()),
        gateway: Weak::new(),
        id: Bytes::copy_from_slice(call.id()),
        meta: filter::meta(call),
        filter,
        seen: gateway.versions.get(gateway),
        feeds: Vec::new(),
        sources: BTreeMap::new(),
        from_sources: mpsc::channel(QUEUE),
        changes: node.epoch.changes(),
        drain: node.drain.subscribe(),
        acknowledged: false,
        ready: VecDeque::new(),
        done: false,
    };
    subscription.join(gateway);
    Ok(Reply::Stream(Box::pin(stream::unfold(
        subscription,
        |mut subscription| async {
            let message = subscription.next().await?;
            Some((Ok(message), subscription))
        },
    ))))
}

/// Waits until the node leaves.
async fn leaves(drain: &mut watch::Receiver<bool>) {
    // The sender is the node's, so it cannot have gone.
    let _ = drain.wait_for(|leaving| *leaving).await;
}

impl Subscription {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.acknowledged {
            self.acknowledged = true;
            return Some(self.acknowledgement().await);
        }
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            if self.done {
                return None;
            }
            tokio::select! {
                heard = self.from_sources.1.recv() => {
                    let (backend, message) = heard?;
                    if self.is_still_of(backend) {
                        return Some(message);
                    }
                }
                () = leaves(&mut self.drain) => self.close(),
                _ = self.changes.changed() => {
                    sleep(TOGETHER).await;
                    self.changes.mark_unchanged();
                    self.look();
                }
            }
        }
    }

    /// Whether what a backend has said is for this client, by the table in use now.
    fn is_still_of(&mut self, backend: u64) -> bool {
        let table = self.node.table.load();
        let gateway = table.gateway(&self.place.0);
        let is_known = gateway.is_some_and(|own| Arc::as_ptr(own) == self.gateway.as_ptr());
        drop(table);
        if !is_known {
            self.look();
        }
        self.sources.contains_key(&backend)
    }

    /// What is honoured: what the backends have said to within a moment. One that has
    /// said nothing yet is asked again until it does.
    async fn acknowledgement(&mut self) -> Bytes {
        let until = Instant::now() + PATIENCE;
        for source in self.sources.values_mut() {
            let _ = timeout_at(until, source.honoured.wait_for(Option::is_some)).await;
        }
        let honours = |uri: &str| {
            let of = |source: &&Source| source.subjects.uris.iter().any(|own| own == uri);
            self.sources
                .values()
                .find(of)
                .is_some_and(|source| source.honours(uri))
        };
        let has_task = |token: &str| {
            let mut subjects = self.sources.values().flat_map(|s| &s.subjects.tasks);
            subjects.any(|(_, own)| own == token)
        };
        let honoured = self.filter.honoured(honours, has_task);
        notice::acknowledged(&self.id, &honoured)
    }

    /// Something has changed: perhaps what this client listens to.
    fn look(&mut self) {
        let (path, id) = &self.place;
        let Some(gateway) = self.node.still_admitting(path, id, &self.principal) else {
            return self.close();
        };
        self.join(&gateway);
        let now = gateway.versions.get(&gateway);
        for kind in Listed::ALL {
            if self.filter.wants(kind) && self.seen[kind as usize] != now[kind as usize] {
                self.ready.push_back(notice::list_changed(&self.id, kind));
            }
        }
        self.seen = now;
    }

    /// Opens what this gateway needs and closes what it needs no longer.
    fn join(&mut self, gateway: &Arc<Gateway>) {
        if self.filter.wants_lists() && !std::ptr::eq(self.gateway.as_ptr(), Arc::as_ptr(gateway)) {
            // The old ones last until the new ones are there: a feed that goes on is not cut.
            let backends = gateway.backends.iter();
            self.feeds = backends.map(|b| feed::follow(&self.node, b)).collect();
        }
        self.gateway = Arc::downgrade(gateway);
        let mut wanted = self.owners(gateway);
        self.sources
            .retain(|serial, source| wanted.get(serial) == Some(&*source.subjects));
        wanted.retain(|serial, _| !self.sources.contains_key(serial));
        for (serial, subjects) in wanted {
            let backend = gateway.backends.iter().find(|b| b.serial == serial);
            let Some(backend) = backend else {
                continue;
            };
            let out = source::Out {
                id: Some(self.id.clone()),
                meta: self.meta.clone(),
                to: self.from_sources.0.clone(),
                backend: serial,
                owner: self.owner,
            };
            let source = Source::open(backend.upstream.clone(), self.worker, subjects, out, None);
            self.sources.insert(serial, source);
        }
    }

    /// Which backend is to be asked about what.
    fn owners(&self, gateway: &Gateway) -> BTreeMap<u64, Subjects> {
        let mut owners = BTreeMap::<u64, Subjects>::new();
        if self.filter.resource_subscriptions.is_empty() && self.filter.tasks.is_empty() {
            return owners;
        }
        let index = gateway.index();
        for uri in &self.filter.resource_subscriptions {
            let owner = match (gateway.backends.as_slice(), index.owner(uri)) {
                ([only], _) => only,
                (all, Some(Owner::One(place))) => &all[place],
                (_, None | Some(Owner::Clash)) => continue,
            };
            owners
                .entry(owner.serial)
                .or_default()
                .uris
                .push(uri.clone());
        }
        for task in &self.filter.tasks {
            if let Some(owner) = gateway.backends.iter().find(|b| b.name() == task.backend) {
                let subject = (task.own.clone(), task.token.clone());
                owners.entry(owner.serial).or_default().tasks.push(subject);
            }
        }
        owners
    }

    /// Ends the stream in order (2026-07-28, Subscriptions: Graceful Closure).
    fn close(&mut self) {
        self.ready.push_back(notice::closed(&self.id));
        self.sources.clear();
        self.feeds.clear();
        self.done = true;
    }
}
