//! Requests of a client that stand until it says otherwise: the level of its logs, and its
//! subscriptions.
//!
//! What they have brought about is gone with the data plane that the session lives on, or with
//! the backend that a change of configuration replaces. So the other data planes are told the
//! requests, and the one that serves the session makes them again.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Owner, Session, Shared};
use crate::{
    call::Method,
    envelope::{Message, string_value},
    upstream::listening::Backoff,
};

/// Requests of one session, bytes of one, and bytes of all of a node, of which one owner gets no
/// more than it leaves to others: what is more is lost with the session's home, with the backend's
/// memory, or with the backend.
const MOST: usize = 1_000;
const LONGEST: usize = 8 << 10;
const ALL_BYTES: usize = 32 << 20;
/// What keeping one costs beside its bytes.
const AROUND: usize = 192;

/// The standing requests of a session.
#[derive(Default)]
pub(super) struct Standing {
    requests: Mutex<BTreeMap<Subject, Request>>,
    /// Why there is something to be done: of [`ELSEWHERE`], [`BEHIND`] and [`FAILED`].
    undone: AtomicU8,
    /// When what has failed is tried again.
    again: Mutex<Option<(Instant, Backoff)>>,
    /// Wakes who waits for something to be done.
    woken: Notify,
}

/// Requests were made at another data plane.
const ELSEWHERE: u8 = 1;
/// The gateway may have other backends than those that the session knows of.
const BEHIND: u8 = 2;
/// A request could not be made.
const FAILED: u8 = 4;

/// What there is to be done for a session.
pub(crate) struct Undone {
    /// The requests that stand.
    pub(crate) requests: Vec<Bytes>,
    /// Some of them were made here, and need not be made again.
    pub(crate) in_part: bool,
}

/// What a request is about: a later one of the same takes its place.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Subject {
    LogLevel,
    Resource(Box<str>),
}

/// A request as the client sent it.
struct Request {
    body: Bytes,
    shared: Arc<Shared>,
    owner: Owner,
    /// Bytes that it holds.
    size: usize,
}

/// Bytes of all requests that stand on a node, and whose they are.
#[derive(Debug, Default)]
pub(super) struct Room {
    all: usize,
    owners: HashMap<Owner, usize>,
}

impl Room {
    fn take(&mut self, owner: Owner, size: usize) -> bool {
        let own = self.owners.get(&owner).copied().unwrap_or_default();
        let fits = own + size <= ALL_BYTES.saturating_sub(self.all + size);
        if fits {
            self.all += size;
            self.owners.insert(owner, own + size);
        }
        fits
    }

    fn give_back(&mut self, owner: Owner, size: usize) {
        self.all -= size;
        if let Entry::Occupied(mut own) = self.owners.entry(owner) {
            *own.get_mut() -= size;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

impl Subject {
    fn len(&self) -> usize {
        match self {
            Self::LogLevel => 0,
            Self::Resource(uri) => uri.len(),
        }
    }
}

impl Request {
    fn new(body: &[u8], subject: &Subject, session: &Session) -> Option<Self> {
        let (shared, owner) = (&session.shared, session.owner);
        let size = AROUND + body.len() + subject.len();
        if body.len() > LONGEST || !shared.standing.lock().take(owner, size) {
            return None;
        }
        // Of a buffer of its own: that of a connection is larger.
        let (body, shared) = (Bytes::copy_from_slice(body), shared.clone());
        Some(Self {
            body,
            shared,
            owner,
            size,
        })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut room = self.shared.standing.lock();
        room.give_back(self.owner, self.size);
    }
}

/// Whether a request of this method is one that stands, or ends one that does.
pub(crate) const fn is_standing(method: Method) -> bool {
    matches!(method, Method::SetLevel) || method.is_about_subscription()
}

impl Session {
    /// Keeps a request that was answered well; here, or `elsewhere`.
    pub(crate) fn stands(&self, method: Method, body: &[u8], message: &Message, elsewhere: bool) {
        let uri = message.uri.and_then(|uri| string_value(body, uri));
        let subject = match (method, &uri) {
            (Method::SetLevel, _) => Subject::LogLevel,
            (Method::Subscribe | Method::Unsubscribe, Some(uri)) => {
                Subject::Resource((**uri).into())
            }
            _ => return,
        };
        let standing = &self.standing;
        let mut requests = standing.requests.lock();
        // A newer one of the same gives its bytes back first.
        let known = requests.remove(&subject).is_some();
        if method != Method::Unsubscribe
            && (known || requests.len() < MOST)
            && let Some(request) = Request::new(body, &subject, self)
        {
            requests.insert(subject, request);
        }
        if elsewhere && !requests.is_empty() {
            standing.undone.fetch_or(ELSEWHERE, Ordering::Release);
        } else {
            standing.undone.fetch_and(!ELSEWHERE, Ordering::Release);
        }
        drop(requests);
        if let (Method::Unsubscribe, Some(uri)) = (method, uri) {
            self.unsubscribe(&uri);
        }
    }

    /// Whether requests stand that were made at another data plane, and not here.
    pub(crate) fn stands_elsewhere(&self) -> bool {
        self.standing.undone.load(Ordering::Relaxed) & ELSEWHERE != 0
    }

    /// Whether there may be something to [take up](Self::take_up).
    pub(crate) fn is_behind(&self) -> bool {
        self.standing.undone.load(Ordering::Relaxed) != 0
    }

    /// Its gateway has, or may have, other backends than those that it knows of.
    pub(crate) fn falls_behind(&self) {
        self.standing.undone.fetch_or(BEHIND, Ordering::Release);
        self.standing.woken.notify_one();
    }

    /// What there is to be done; once.
    pub(crate) fn take_up(&self) -> Option<Undone> {
        let standing = &self.standing;
        if standing.undone.load(Ordering::Acquire) == FAILED {
            let again = standing.again.lock();
            if again.as_ref().is_some_and(|(at, _)| Instant::now() < *at) {
                return None;
            }
        }
        let undone = standing.undone.swap(0, Ordering::AcqRel);
        (undone != 0).then(|| Undone {
            requests: self.standing(),
            in_part: undone & ELSEWHERE == 0,
        })
    }

    /// Whether all that was taken up could be done. If not, it is tried again after a while.
    pub(crate) fn has_caught_up(&self, with_all: bool) {
        let standing = &self.standing;
        let mut again = standing.again.lock();
        if with_all {
            *again = None;
            return;
        }
        let mut backoff = again.take().map(|(_, last)| last).unwrap_or_default();
        *again = Some((Instant::now() + backoff.next(), backoff));
        standing.undone.fetch_or(FAILED, Ordering::Release);
        standing.woken.notify_one();
    }

    /// Waits until there is something to be done.
    pub(crate) async fn until_behind(&self) {
        let standing = &self.standing;
        let at = match standing.undone.load(Ordering::Acquire) {
            FAILED => standing.again.lock().as_ref().map(|(at, _)| *at),
            _ => None,
        };
        let again = async {
            match at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = standing.woken.notified() => {}
            () = again => {}
        }
    }

    /// Whether its client is subscribed to anything.
    pub(super) fn has_subscriptions(&self) -> bool {
        let requests = self.standing.requests.lock();
        requests
            .keys()
            .any(|own| matches!(own, Subject::Resource(_)))
    }

    /// Whether any were made here.
    pub(super) fn has_standing(&self) -> bool {
        !self.stands_elsewhere() && !self.standing.requests.lock().is_empty()
    }

    /// The resources that its client is subscribed to.
    pub(crate) fn subscriptions(&self) -> Vec<Box<str>> {
        let requests = self.standing.requests.lock();
        let resources = requests.keys().filter_map(|subject| match subject {
            Subject::Resource(uri) => Some(uri.clone()),
            Subject::LogLevel => None,
        });
        resources.collect()
    }

    /// Whether this very one of them is not withdrawn yet.
    pub(crate) fn still_stands(&self, request: &Bytes) -> bool {
        let requests = self.standing.requests.lock();
        requests
            .values()
            .any(|own| own.body.as_ptr() == request.as_ptr())
    }

    /// The requests that stand.
    pub(crate) fn standing(&self) -> Vec<Bytes> {
        let requests = self.standing.requests.lock();
        requests
            .values()
            .map(|request| request.body.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::ProtocolVersion, envelope, sealed::KeyRing, session::Sessions};

    fn say(session: &Session, method: Method, params: &str, elsewhere: bool) {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{params}}}"#);
        let message = envelope::scan(body.as_bytes()).unwrap();
        session.stands(method, body.as_bytes(), &message, elsewhere);
    }

    #[test]
    fn the_last_word_on_each_subject_stands_within_bounds() {
        let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
        let version = ProtocolVersion::V2025_06_18;
        let id = sessions.create("p/a", "p", version, b"{}", b"{}").unwrap();
        let session = sessions.find(&id, "p/a", "p").unwrap();
        say(&session, Method::SetLevel, r#"{"level":"info"}"#, false);
        say(&session, Method::SetLevel, r#"{"level":"error"}"#, false);
        say(&session, Method::Subscribe, r#"{"uri":"a://1"}"#, false);
        say(&session, Method::Subscribe, r#"{"uri":"a:\/\/1"}"#, false);
        let standing = session.standing();
        assert_eq!(standing.len(), 2, "{standing:?}");
        assert!(standing[0].ends_with(br#"{"level":"error"}}"#));
        assert!(session.take_up().is_none(), "they were made here");
        session.falls_behind();
        let undone = session.take_up().unwrap();
        assert!(undone.in_part && undone.requests.len() == 2);

        say(&session, Method::Unsubscribe, r#"{"uri":"a://1"}"#, true);
        assert_eq!(session.standing().len(), 1);
        for n in 0..2 * MOST {
            let params = format!(r#"{{"uri":"b://{n}"}}"#);
            say(&session, Method::Subscribe, &params, true);
        }
        let long = format!(r#"{{"uri":"{}"}}"#, "c".repeat(LONGEST));
        say(&session, Method::Subscribe, &long, true);
        session.falls_behind();
        let undone = session.take_up().unwrap();
        assert!(!undone.in_part && undone.requests.len() == MOST);
        assert!(session.take_up().is_none(), "they are made once");
        let bodies: usize = session.standing().iter().map(Bytes::len).sum();
        let shared = session.shared.clone();
        assert!(shared.standing.lock().all > bodies);
        sessions.end(&id, &session);
        drop(session);
        let room = shared.standing.lock();
        assert!(room.all == 0 && room.owners.is_empty());
    }

    #[test]
    fn one_owner_leaves_room_to_others() {
        let (mut room, size) = (Room::default(), 8 << 10);
        let owners = ["a", "b", "c"].map(|name| Owner::new("p/a", name));
        let mut fill = |owner| {
            (0..ALL_BYTES / size)
                .filter(|_| room.take(owner, size))
                .count()
        };
        let taken = owners.map(&mut fill);
        assert!(
            taken[0] > taken[1] && taken[1] > taken[2] && taken[2] > 100,
            "{taken:?}"
        );
        assert!(room.all <= ALL_BYTES);
    }
}
