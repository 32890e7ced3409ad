//! What there is to be done for a session without a word of its client, and when.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Session, standing::Pending};
use crate::upstream::listening::Backoff;

/// Requests were made at another data plane.
const ELSEWHERE: u8 = 1;
/// The gateway may have other backends than those that the session knows of.
const REGROUPED: u8 = 2;
/// A request could not be made.
const FAILED: u8 = 4;
/// An upstream session was opened, or a client has begun to listen.
const OPENED: u8 = 8;
const ALL: u8 = ELSEWHERE | REGROUPED | FAILED | OPENED;

/// How far behind a session is.
#[derive(Default)]
pub(super) struct Behind {
    why: AtomicU8,
    /// When what has failed is tried again.
    again: Mutex<Option<(Instant, Backoff)>>,
    /// Wakes who waits for something to be done.
    woken: Notify,
    /// Backends at which requests are being made now; whether more are to be made there then.
    making: Mutex<HashMap<u64, bool>>,
}

/// What there is to be done.
pub(crate) struct Undone {
    why: u8,
    /// The requests that stand, where they are to be looked at.
    pub(crate) requests: Vec<Pending>,
}

impl Undone {
    /// Whether requests are among them that were made at another data plane.
    pub(crate) const fn is_from_elsewhere(&self) -> bool {
        self.why & ELSEWHERE != 0
    }

    /// Whether it is only what has failed before.
    pub(crate) const fn is_retry(&self) -> bool {
        self.why == FAILED
    }
}

impl Behind {
    fn add(&self, why: u8) {
        self.why.fetch_or(why, Ordering::Release);
        self.woken.notify_one();
    }

    fn is_due(&self) -> bool {
        let again = self.again.lock();
        again.as_ref().is_none_or(|(at, _)| Instant::now() >= *at)
    }
}

impl Session {
    /// Whether there may be something to [take up](Self::take_up) now.
    pub(crate) fn is_behind(&self) -> bool {
        match self.behind.why.load(Ordering::Relaxed) {
            0 => false,
            FAILED => self.behind.is_due(),
            _ => true,
        }
    }

    /// Whether requests stand that were made at another data plane, and not here.
    pub(crate) fn stands_elsewhere(&self) -> bool {
        self.behind.why.load(Ordering::Relaxed) & ELSEWHERE != 0
    }

    pub(super) fn set_stands_elsewhere(&self, does: bool) {
        if does {
            self.behind.add(ELSEWHERE);
        } else {
            self.behind.why.fetch_and(!ELSEWHERE, Ordering::Release);
        }
    }

    /// Its gateway has, or may have, other backends than those that it knows of.
    pub(crate) fn falls_behind(&self) {
        self.behind.add(REGROUPED);
    }

    /// It has an upstream session more, or its client listens from now on.
    pub(crate) fn has_opened(&self) {
        self.behind.add(OPENED);
    }

    /// A request could not be made: it is tried again after a while, which grows.
    pub(crate) fn has_failed(&self) {
        let behind = &self.behind;
        let mut again = behind.again.lock();
        // Several that fail together fail once.
        if behind.why.fetch_or(FAILED, Ordering::Release) & FAILED == 0 {
            let mut backoff = again.take().map(|(_, last)| last).unwrap_or_default();
            *again = Some((Instant::now() + backoff.next(), backoff));
        }
        behind.woken.notify_one();
    }

    /// What there is to be done now; once.
    pub(crate) fn take_up(&self) -> Option<Undone> {
        let behind = &self.behind;
        let now = if behind.is_due() { ALL } else { ALL & !FAILED };
        let why = behind.why.fetch_and(!now, Ordering::AcqRel) & now;
        if why & (ELSEWHERE | REGROUPED) != 0 {
            // What has failed is looked at with the others, perhaps at another place.
            let mut again = behind.again.lock();
            behind.why.fetch_and(!FAILED, Ordering::AcqRel);
            *again = None;
        }
        (why != 0).then(|| Undone {
            why,
            requests: match why {
                OPENED => Vec::new(),
                _ => self.pending(),
            },
        })
    }

    /// It cannot be done yet; whoever comes next looks again.
    pub(crate) fn put_back(&self, undone: &Undone) {
        self.behind.why.fetch_or(undone.why, Ordering::Release);
    }

    /// Waits until there is something to be done.
    pub(crate) async fn until_behind(&self) {
        let behind = &self.behind;
        let has_failed = behind.why.load(Ordering::Acquire) & FAILED != 0;
        let at = has_failed.then(|| behind.again.lock().as_ref().map(|(at, _)| *at));
        let again = async {
            match at {
                Some(at) => sleep_until(at.unwrap_or_else(Instant::now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = behind.woken.notified() => {}
            () = again => {}
        }
    }
}

/// Requests of a session are being made at a backend, until this is dropped.
pub(crate) struct Making {
    session: Arc<Session>,
    backend: u64,
}

impl Making {
    /// `None`: others are being made there. It looks again then.
    pub(crate) fn begin(session: &Arc<Session>, backend: u64) -> Option<Self> {
        match session.behind.making.lock().entry(backend) {
            Entry::Occupied(mut more) => {
                more.insert(true);
                None
            }
            Entry::Vacant(none) => {
                none.insert(false);
                Some(Self {
                    session: session.clone(),
                    backend,
                })
            }
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let more = self.session.behind.making.lock().remove(&self.backend);
        if more == Some(true) {
            self.session.falls_behind();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::ProtocolVersion, sealed::KeyRing, session::Sessions};

    fn session() -> Arc<Session> {
        let sessions = Sessions::new(KeyRing::of(&[[1; 32]]));
        let version = ProtocolVersion::V2025_06_18;
        let id = sessions.create("p/a", "p", version, b"{}", b"{}").unwrap();
        sessions.find(&id, "p/a", "p").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_failed_waits_longer_each_time_and_not_for_other_backends() {
        let session = session();
        assert!(!session.is_behind() && session.take_up().is_none());
        let mut waits = Vec::new();
        for _ in 0..4 {
            let before = Instant::now();
            session.has_failed();
            session.has_failed();
            assert!(!session.is_behind() && session.take_up().is_none());
            while !session.is_behind() {
                session.until_behind().await;
            }
            waits.push(before.elapsed());
            assert!(session.take_up().is_some() && session.take_up().is_none());
        }
        assert!(waits[0] < waits[2] && waits[1] < waits[3], "{waits:?}");
        session.has_failed();
        session.falls_behind();
        assert!(session.take_up().is_some() && !session.is_behind());
    }

    #[test]
    fn requests_at_a_backend_are_made_once_at_a_time() {
        let session = session();
        let making = Making::begin(&session, 1).unwrap();
        assert!(Making::begin(&session, 2).is_some() && !session.is_behind());
        assert!(Making::begin(&session, 1).is_none() && !session.is_behind());
        drop(making);
        assert!(session.is_behind() && Making::begin(&session, 1).is_some());
    }
}
