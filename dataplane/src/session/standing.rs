//! Requests of a client that stand until it says otherwise: the level of its logs, and its
//! subscriptions.
//!
//! What they have brought about is gone with the data plane that the session lives on, or with
//! the backend that a change of configuration replaces. So the other data planes are told the
//! requests, and the one that serves the session makes them again.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Owner, Session, Shared};
use crate::{
    call::Method,
    envelope::{Message, string_value},
};

/// Requests of one session, bytes of one, and bytes of all of a node, of which one owner gets no
/// more than it leaves to others: what is more is lost with the session's home, with the backend's
/// memory, or with the backend.
const MOST: usize = 1_000;
const LONGEST: usize = 8 << 10;
pub(super) const ALL_BYTES: usize = 32 << 20;
/// What keeping one costs beside its bytes.
const AROUND: usize = 192;

/// The standing requests of a session.
#[derive(Default)]
pub(super) struct Standing(Mutex<BTreeMap<Subject, Request>>);

/// A request that stands.
pub(crate) struct Pending {
    /// As the client has sent it.
    pub(crate) body: Bytes,
    /// The serial number of the backend that has answered it; `None`: none here.
    pub(crate) at: Option<u64>,
}

/// Stands for the serial number of a backend where a request has, or names, none.
pub(crate) const NO_BACKEND: u64 = 0;

/// What a request is about: a later one of the same takes its place.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Subject {
    LogLevel,
    Resource(Box<str>),
}

/// A request as the client sent it.
struct Request {
    body: Bytes,
    at: Option<u64>,
    shared: Arc<Shared>,
    owner: Owner,
    /// Bytes that it holds.
    size: usize,
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
    fn new(body: &[u8], at: Option<u64>, subject: &Subject, session: &Session) -> Option<Self> {
        let (shared, owner) = (&session.shared, session.owner);
        let size = AROUND + body.len() + subject.len();
        if body.len() > LONGEST || !shared.standing.lock().take(owner, size) {
            return None;
        }
        // Of a buffer of its own: that of a connection is larger.
        let (body, shared) = (Bytes::copy_from_slice(body), shared.clone());
        Some(Self {
            body,
            at,
            shared,
            owner,
            size,
        })
    }

    /// Whether this is the body of this very one, and not of another that says the same.
    fn is(&self, request: &Bytes) -> bool {
        self.body.as_ptr() == request.as_ptr()
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
    /// Keeps a request that was answered well: `at` a backend here, or at another data plane.
    pub(crate) fn stands(&self, method: Method, body: &[u8], message: &Message, at: Option<u64>) {
        let uri = message.uri.and_then(|uri| string_value(body, uri));
        let subject = match (method, uri) {
            (Method::SetLevel, _) => Subject::LogLevel,
            (Method::Subscribe | Method::Unsubscribe, Some(uri)) => {
                Subject::Resource((*uri).into())
            }
            _ => return,
        };
        let mut requests = self.standing.0.lock();
        // A newer one of the same gives its bytes back first.
        let known = requests.remove(&subject).is_some();
        if method != Method::Unsubscribe
            && (known || requests.len() < MOST)
            && let Some(request) = Request::new(body, at, &subject, self)
        {
            requests.insert(subject, request);
        }
        match at {
            _ if requests.is_empty() => self.set_stands_elsewhere(false),
            None => self.set_stands_elsewhere(true),
            Some(_) => {}
        }
    }

    /// This very request was made at this backend.
    pub(crate) fn is_made(&self, request: &Bytes, at: u64) {
        let mut requests = self.standing.0.lock();
        if let Some(own) = requests.values_mut().find(|own| own.is(request)) {
            own.at = Some(at);
        }
    }

    /// Whether its client is subscribed to anything.
    pub(super) fn has_subscriptions(&self) -> bool {
        let requests = self.standing.0.lock();
        requests
            .keys()
            .any(|own| matches!(own, Subject::Resource(_)))
    }

    /// Whether any were made here.
    pub(super) fn has_standing(&self) -> bool {
        !self.stands_elsewhere() && !self.standing.0.lock().is_empty()
    }

    /// The resources that its client is subscribed to.
    pub(crate) fn subscriptions(&self) -> Vec<Box<str>> {
        let requests = self.standing.0.lock();
        let resources = requests.keys().filter_map(|subject| match subject {
            Subject::Resource(uri) => Some(uri.clone()),
            Subject::LogLevel => None,
        });
        resources.collect()
    }

    /// Whether this very one of them is not withdrawn yet.
    pub(crate) fn still_stands(&self, request: &Bytes) -> bool {
        let requests = self.standing.0.lock();
        requests.values().any(|own| own.is(request))
    }

    /// The serial number of the backend at which its client's subscription to this resource was
    /// made, if any. `None`: it has none.
    pub(crate) fn subscribed_at(&self, uri: &str) -> Option<Option<u64>> {
        let subject = Subject::Resource(uri.into());
        let requests = self.standing.0.lock();
        requests.get(&subject).map(|own| own.at)
    }

    /// What was made at a backend is made no longer, unless this is so of backend and resource.
    pub(super) fn unmake(&self, still: impl Fn(u64, &str) -> bool) {
        for (subject, request) in self.standing.0.lock().iter_mut() {
            if let Subject::Resource(uri) = subject {
                request.at = request.at.filter(|at| still(*at, uri));
            }
        }
    }

    /// The requests that stand.
    pub(crate) fn pending(&self) -> Vec<Pending> {
        let requests = self.standing.0.lock();
        let pending = |own: &Request| Pending {
            body: own.body.clone(),
            at: own.at,
        };
        requests.values().map(pending).collect()
    }

    /// Forgets them: the session is over.
    pub(super) fn forget_standing(&self) {
        let gone = std::mem::take(&mut *self.standing.0.lock());
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::ProtocolVersion, envelope, sealed::KeyRing, session::Sessions};

    fn say(session: &Session, method: Method, params: &str, at: Option<u64>) {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{params}}}"#);
        let message = envelope::scan(body.as_bytes()).unwrap();
        session.stands(method, body.as_bytes(), &message, at);
    }

    #[test]
    fn the_last_word_on_each_subject_stands_within_bounds() {
        let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
        let version = ProtocolVersion::V2025_06_18;
        let id = sessions.create("p/a", "p", version, b"{}", b"{}").unwrap();
        let session = sessions.find(&id, "p/a", "p").unwrap();
        say(&session, Method::SetLevel, r#"{"level":"info"}"#, Some(0));
        say(&session, Method::SetLevel, r#"{"level":"error"}"#, Some(0));
        say(&session, Method::Subscribe, r#"{"uri":"a://1"}"#, Some(1));
        say(&session, Method::Subscribe, r#"{"uri":"a:\/\/1"}"#, Some(2));
        let pending = session.pending();
        assert_eq!(pending.len(), 2);
        assert!(pending[0].body.ends_with(br#"{"level":"error"}}"#));
        assert_eq!(pending[1].at, Some(2));
        assert!(session.take_up().is_none(), "they were made here");
        session.is_made(&pending[1].body, 3);
        session.is_made(&Bytes::copy_from_slice(&pending[0].body), 3);
        let at: Vec<_> = session.pending().iter().map(|own| own.at).collect();
        assert_eq!(at, [Some(0), Some(3)]);
        assert_eq!(session.subscribed_at("a://1"), Some(Some(3)));
        assert_eq!(session.subscribed_at("a://2"), None);
        session.unmake(|at, uri| at == 3 && uri == "a://1");
        assert_eq!(session.subscribed_at("a://1"), Some(Some(3)));
        session.unmake(|_, _| false);
        assert_eq!(session.subscribed_at("a://1"), Some(None));

        say(&session, Method::Unsubscribe, r#"{"uri":"a://1"}"#, None);
        assert_eq!(session.pending().len(), 1);
        for n in 0..2 * MOST {
            let params = format!(r#"{{"uri":"b://{n}"}}"#);
            say(&session, Method::Subscribe, &params, None);
        }
        let long = format!(r#"{{"uri":"{}"}}"#, "c".repeat(LONGEST));
        say(&session, Method::Subscribe, &long, None);
        let undone = session.take_up().unwrap();
        assert!(undone.is_from_elsewhere() && undone.requests.len() == MOST);
        assert!(session.take_up().is_none(), "they are made once");
        let bodies: usize = session.pending().iter().map(|own| own.body.len()).sum();
        let shared = session.shared.clone();
        assert!(shared.standing.lock().taken() > bodies);
        sessions.end(&id, &session);
        drop(session);
        let room = shared.standing.lock();
        assert_eq!(room.taken(), 0);
    }
}
