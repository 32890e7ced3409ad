//! Sessions for clients that have none, and can be asked: a backend of the legacy era is to
//! know what it may ask for, and whom it asks. One call at a time has such a session; calls of
//! clients that can be asked the same follow each other in it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::{LIFETIME, Session, Sessions, Token, inflight::CallId, raw, session};
use crate::{
    call::ProtocolVersion,
    envelope::{self, Span},
    sealed,
    upstream::message::CLIENT_INFO,
};

/// What a client can be asked for, by the names of its capabilities.
const ASKED: [&str; 3] = ["elicitation", "sampling", "roots"];
/// Sessions of one kind that wait for the next call, and for how long.
const WAITING: (usize, Duration) = (32, Duration::from_secs(120));
/// How many wait at most, of all kinds.
const WAITING_IN_ALL: usize = 1_024;
/// Longest text of one capability that a backend is told, in bytes.
const LONGEST: usize = 512;

/// Questions outside of a call's stream that may wait.
const QUESTIONS: usize = 16;

/// What only such a session has.
#[derive(Default)]
pub(super) struct Leased {
    ended: watch::Sender<bool>,
    /// The call that has it, and where to what its backend asks outside of the call's stream.
    call: Mutex<Option<(CallId, mpsc::Sender<Bytes>)>>,
}

impl Leased {
    pub(super) fn is_over(&self) -> bool {
        *self.ended.borrow()
    }

    pub(super) async fn over(&self) {
        // The sender is ours, so it cannot have gone.
        let _ = self.ended.subscribe().wait_for(|over| *over).await;
    }

    fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(super) fn ask(&self, question: Bytes) -> bool {
        let call = self.call.lock();
        call.as_ref()
            .is_some_and(|(_, to)| to.try_send(question).is_ok())
    }
}

impl Session {
    /// The call that has it, where it is leased.
    pub(crate) fn its_call(&self) -> Option<CallId> {
        let call = self.leased.as_ref()?.call.lock();
        call.as_ref().map(|(call, _)| *call)
    }
}

/// Those that no call has now.
#[derive(Default)]
pub(super) struct Idle {
    good: HashMap<Kind, Vec<(Instant, Arc<Session>)>>,
    /// Whose call has gone amiss: nobody knows what they are still busy with.
    spoilt: Vec<Arc<Session>>,
}

/// Serial number of the backend, and what clients can be asked.
type Kind = (u64, Bytes);

/// A session for one call. Dropped, it is ended; given back, it serves another one.
pub(crate) struct Lease {
    session: Option<Arc<Session>>,
    kind: Kind,
    idle: Arc<Mutex<Idle>>,
}

/// Of `capabilities` (a JSON text) those that a backend needs to ask something, always written
/// alike; `None`: there are none.
#[must_use]
pub(crate) fn can_be_asked(capabilities: &[u8]) -> Option<Bytes> {
    let whole = Span::new(0, capabilities.len());
    let has = |name: &str| {
        let mut members = envelope::members(capabilities, whole).filter_map(Result::ok);
        members.find_map(|(key, value)| (key == name).then(|| value.of(capabilities)))
    };
    let mut out = Vec::new();
    for name in ASKED {
        let Some(mut value) = has(name).filter(|value| value.starts_with(b"{")) else {
            continue;
        };
        if value.len() > LONGEST {
            value = b"{}";
        }
        out.extend_from_slice(if out.is_empty() { b"{\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
    }
    if out.is_empty() {
        return None;
    }
    out.push(b'}');
    Some(out.into())
}

impl Sessions {
    /// A session at this backend for a call whose client can be asked that much.
    #[must_use]
    pub(crate) fn lease(&self, backend: u64, capabilities: Bytes) -> Lease {
        let kind = (backend, capabilities);
        let waiting = self.idle.lock().good.get_mut(&kind).and_then(Vec::pop);
        let session = waiting.map_or_else(|| Arc::new(self.leased(&kind.1)), |(_, own)| own);
        Lease {
            session: Some(session),
            kind,
            idle: self.idle.clone(),
        }
    }

    fn leased(&self, capabilities: &Bytes) -> Session {
        let token = Token {
            n: sealed::random::<12>().map(hex::encode).unwrap_or_default(),
            p: ProtocolVersion::NEWEST_LEGACY.as_str().to_owned(),
            i: raw(CLIENT_INFO.as_bytes()),
            c: raw(capabilities),
            h: None,
        };
        let (version, shared) = (ProtocolVersion::NEWEST_LEGACY, self.shared.clone());
        let expires = sealed::now().as_secs() + LIFETIME.as_secs();
        Session {
            leased: Some(Leased::default()),
            ..session(token, version, expires, "", "", shared)
        }
    }

    /// Those that have waited for too long, or are of no use, so that their upstream sessions
    /// can be ended.
    pub(super) fn sweep_leased(&self) -> Vec<Arc<Session>> {
        let mut idle = self.idle.lock();
        let mut gone = std::mem::take(&mut idle.spoilt);
        idle.good.retain(|_, waiting| {
            waiting.retain(|(since, session)| {
                let keep = since.elapsed() < WAITING.1;
                if !keep {
                    end(session);
                    gone.push(session.clone());
                }
                keep
            });
            !waiting.is_empty()
        });
        gone
    }
}

fn end(session: &Arc<Session>) {
    if let Some(leased) = &session.leased {
        leased.end();
    }
}

impl Lease {
    /// What its backend asks outside of the stream of this call, from now on.
    pub(crate) fn questions(&self, call: CallId) -> mpsc::Receiver<Bytes> {
        let (to, questions) = mpsc::channel(QUESTIONS);
        let session = self.session.as_ref();
        if let Some(leased) = session.and_then(|session| session.leased.as_ref()) {
            *leased.call.lock() = Some((call, to));
        }
        questions
    }

    /// The session.
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    /// Its call is over, and has left nothing behind.
    pub(crate) fn give_back(mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        if let Some(leased) = &session.leased {
            *leased.call.lock() = None;
        }
        let mut idle = self.idle.lock();
        // Each text of capabilities is a kind of its own, and clients write what they like.
        let has_room = idle.good.values().map(Vec::len).sum::<usize>() < WAITING_IN_ALL;
        let waiting = idle.good.entry(self.kind.clone()).or_default();
        if waiting.len() < WAITING.0 && has_room {
            waiting.push((Instant::now(), session));
        } else {
            end(&session);
            idle.spoilt.push(session);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            end(&session);
            self.idle.lock().spoilt.push(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::KeyRing;

    #[test]
    fn a_session_that_is_given_back_serves_the_next_call_of_its_kind_only() {
        let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
        let can = |text: &str| can_be_asked(text.as_bytes()).unwrap();
        let name = |lease: &Lease| lease.session().unwrap().name().to_owned();
        let first = sessions.lease(1, can(r#"{"x":1,"roots":{},"elicitation":{"form":{}}}"#));
        let (own, beside) = (name(&first), sessions.lease(1, can(r#"{"roots":{}}"#)));
        assert_ne!(own, name(&beside));
        first.give_back();
        let same = can(r#"{"elicitation":{"form":{}}, "roots":{}}"#);
        assert_ne!(own, name(&sessions.lease(2, same.clone())));
        let again = sessions.lease(1, same.clone());
        assert_eq!(own, name(&again));
        drop(again);
        assert_ne!(own, name(&sessions.lease(1, same)));
        assert!(
            sessions
                .sweep_leased()
                .iter()
                .any(|gone| gone.name() == own)
        );
        assert_eq!(can_be_asked(br#"{"extensions":{},"roots":null}"#), None);
    }
}
