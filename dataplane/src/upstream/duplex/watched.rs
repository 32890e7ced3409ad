//! Who has subscribed to which resource of a server of the legacy era: it has one connection,
//! and so one subscriber. It is told of the first that watches a resource and of the last that
//! does no longer; what it says of one goes to all.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    DuplexError, HEARD,
    link::Link,
    waiting::{Waited, Waiting, waiting},
};
use crate::{
    envelope::{self, Kind},
    room::Room,
    session::Owner,
};

/// Resources that are watched on one connection, of which one owner gets no more than it leaves
/// to others.
const MOST: usize = 10_000;
/// Longest URI that is watched, in bytes.
const LONGEST: usize = 8 << 10;
/// Resources that one which has changed may be a part of; the outer ones.
const WHOLES: usize = 128;
/// How long the server may take to answer a subscription.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the server has said to a subscription: nothing against it, or its error, a JSON text.
/// `None`: nothing yet.
type Told = Option<Result<(), Bytes>>;

/// The resources of one connection.
pub(super) struct Watched {
    all: Mutex<All>,
    /// Where the connection lives.
    runtime: Handle,
}

struct All {
    resources: HashMap<Arc<str>, Resource>,
    room: Room,
    last: u64,
    closed: bool,
}

struct Resource {
    /// Who was the first to watch it.
    owner: Owner,
    watchers: Vec<(u64, Waiting)>,
    told: watch::Receiver<Told>,
    /// Woken when the last watcher has left.
    left: Arc<Notify>,
}

/// One watcher of some resources. Dropped, it watches them no longer.
pub(super) struct Watching {
    link: Arc<Link>,
    id: u64,
    uris: Vec<Arc<str>>,
    heard: Waited,
    /// Those that the server lets be watched.
    pub(super) honoured: Vec<Arc<str>>,
    /// The server's error for one that it does not, a JSON text.
    pub(super) refusal: Option<Bytes>,
}

impl Watching {
    /// The next news; `None` when the connection is lost.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.heard.next().await
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.link.watched.leave(self.id, &self.uris);
    }
}

impl Link {
    /// Watches resources, until what it gives is dropped.
    pub(super) async fn watch(
        self: &Arc<Self>,
        uris: &[String],
        owner: Owner,
    ) -> Result<Watching, DuplexError> {
        let (to, heard) = waiting(HEARD);
        let mut watching = Watching {
            link: self.clone(),
            id: self.watched.next_id(),
            uris: Vec::new(),
            heard,
            honoured: Vec::new(),
            refusal: None,
        };
        let mut answers = Vec::new();
        for uri in uris {
            let uri = Arc::<str>::from(uri.as_str());
            // Before it is subscribed to: the first news may come with the answer.
            if let Some(told) = Watched::enter(self, &uri, owner, watching.id, &to) {
                watching.uris.push(uri);
                answers.push(told);
            }
        }
        drop(to);
        for (uri, mut told) in watching.uris.iter().zip(answers) {
            match told.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(Err(error))) => watching.refusal = Some(error.clone()),
                Ok(_) => watching.honoured.push(uri.clone()),
                Err(_) => return Err(self.lost().unwrap_or(DuplexError::Closed)),
            }
        }
        self.lost().map_or(Ok(watching), Err)
    }

    /// Keeps the server's one subscription to a resource for as long as somebody watches it.
    async fn keep_subscribed(
        self: Arc<Self>,
        uri: Arc<str>,
        told: watch::Sender<Told>,
        left: Arc<Notify>,
    ) {
        // It ends with the connection, too: nothing can be asked any more.
        while let Ok(answer) = self.ask_about("resources/subscribe", &uri).await {
            if answer.is_err() {
                // Who comes from now on has it asked anew.
                self.watched.forget(&uri);
                told.send_replace(Some(answer));
                return;
            }
            told.send_replace(Some(answer));
            while !self.watched.is_left(&uri, &told) {
                left.notified().await;
            }
            let unsubscribed = self.ask_about("resources/unsubscribe", &uri).await;
            if unsubscribed.is_err() {
                break;
            }
            if self.watched.forget_if_left(&uri) {
                return;
            }
        }
        // Those who watch it hear no more, and come again.
        self.watched.forget(&uri);
    }

    async fn ask_about(
        self: &Arc<Self>,
        method: &str,
        uri: &str,
    ) -> Result<Result<(), Bytes>, DuplexError> {
        let params = [&b"{\"uri\":"[..], &envelope::quote(uri), b"}"].concat();
        let params = String::from_utf8_lossy(&params);
        let answer = timeout(PATIENCE, self.ask(method, &params)).await;
        let answer = answer.map_err(|_| DuplexError::Garbage {
            reason: format!("no answer to {method} within {PATIENCE:?}"),
        })??;
        let message = envelope::scan(&answer).map_err(|error| DuplexError::Garbage {
            reason: error.to_string(),
        })?;
        Ok(match message.error {
            Some(error) if message.kind == Kind::Error => Err(answer.slice(error.range())),
            _ => Ok(()),
        })
    }
}

impl Watched {
    /// Nothing is watched. On the runtime on which the connection lives.
    pub(super) fn new() -> Self {
        Self {
            all: Mutex::new(All {
                resources: HashMap::new(),
                room: Room::new(MOST),
                last: 0,
                closed: false,
            }),
            runtime: Handle::current(),
        }
    }

    fn next_id(&self) -> u64 {
        let mut all = self.all.lock();
        all.last += 1;
        all.last
    }

    /// Somebody watches a resource from now on. What the server has said to that; `None`:
    /// nothing more can be watched.
    fn enter(
        link: &Arc<Link>,
        uri: &Arc<str>,
        owner: Owner,
        id: u64,
        to: &Waiting,
    ) -> Option<watch::Receiver<Told>> {
        let own = &link.watched;
        let mut all = own.all.lock();
        if let Some(resource) = all.resources.get_mut(uri) {
            resource.watchers.push((id, to.clone()));
            return Some(resource.told.clone());
        }
        if all.closed || uri.len() > LONGEST || !all.room.take(owner, 1) {
            return None;
        }
        let (telling, told) = watch::channel(None);
        let left = Arc::<Notify>::default();
        let resource = Resource {
            owner,
            watchers: vec![(id, to.clone())],
            told: told.clone(),
            left: left.clone(),
        };
        all.resources.insert(uri.clone(), resource);
        drop(all);
        let keeping = link.clone().keep_subscribed(uri.clone(), telling, left);
        own.runtime.spawn(keeping);
        Some(told)
    }

    fn leave(&self, id: u64, uris: &[Arc<str>]) {
        let mut all = self.all.lock();
        for uri in uris {
            if let Some(resource) = all.resources.get_mut(uri) {
                resource.watchers.retain(|(own, _)| *own != id);
                if resource.watchers.is_empty() {
                    resource.left.notify_one();
                }
            }
        }
    }

    /// Whether nobody watches this resource now. Who does later is told anew.
    fn is_left(&self, uri: &str, told: &watch::Sender<Told>) -> bool {
        let all = self.all.lock();
        let resource = all.resources.get(uri);
        let is_left = resource.is_none_or(|resource| resource.watchers.is_empty());
        if is_left {
            told.send_replace(None);
        }
        is_left
    }

    fn forget(&self, uri: &str) {
        self.all.lock().remove(uri);
    }

    fn forget_if_left(&self, uri: &str) -> bool {
        let mut all = self.all.lock();
        let resource = all.resources.get(uri);
        let is_left = resource.is_none_or(|resource| resource.watchers.is_empty());
        if is_left {
            all.remove(uri);
        }
        is_left
    }

    /// The connection is lost: nobody hears anything any more.
    pub(super) fn close(&self) {
        let resources = {
            let mut all = self.all.lock();
            all.closed = true;
            std::mem::take(&mut all.resources)
        };
        for resource in resources.into_values() {
            resource.left.notify_one();
        }
    }

    /// Passes `notifications/resources/updated` on to whom it concerns: who watches the resource,
    /// or one that it is a part of (2025-11-25, Resources: Subscriptions).
    pub(super) fn updated(&self, notification: &Bytes, uri: &str) {
        if uri.len() > LONGEST {
            return;
        }
        let mut concerned = Vec::new();
        let all = self.all.lock();
        for own in wholes(uri) {
            let resource = all.resources.get(own);
            let watchers = resource.into_iter().flat_map(|own| &own.watchers);
            concerned.extend(watchers.map(|(id, to)| (*id, to.clone())));
        }
        drop(all);
        concerned.sort_unstable_by_key(|(id, _)| *id);
        concerned.dedup_by_key(|(id, _)| *id);
        for (_, to) in concerned {
            // Who reads none for so long has enough to ask for again.
            to.offer(notification.clone());
        }
    }
}

impl All {
    fn remove(&mut self, uri: &str) {
        if let Some(resource) = self.resources.remove(uri) {
            self.room.give_back(resource.owner, 1);
        }
    }
}

/// A URI, and what it may be a part of.
fn wholes(uri: &str) -> impl Iterator<Item = &str> {
    let parts = uri.match_indices(['/', '?', '#']);
    let parts = parts.flat_map(|(at, _)| [&uri[..at], &uri[..=at]]);
    let parts = parts.filter(move |part| part.len() < uri.len());
    std::iter::once(uri).chain(parts.take(WHOLES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_part_of_those_above_it() {
        let of: Vec<_> = wholes("a://b/c?d").collect();
        assert_eq!(
            of,
            [
                "a://b/c?d",
                "a:",
                "a:/",
                "a:/",
                "a://",
                "a://b",
                "a://b/",
                "a://b/c",
                "a://b/c?"
            ]
        );
        assert_eq!(wholes("a://b/").collect::<Vec<_>>()[..2], ["a://b/", "a:"]);
    }
}
