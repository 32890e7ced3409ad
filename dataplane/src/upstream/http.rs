//! Backends over streamable HTTP, of either era.
//!
//! A call goes out in the client's own era where the backend speaks it, in the
//! other one where it does not. What a backend speaks is found out once, at the
//! first call that needs to know, and forgotten when it proves wrong.
//!
//! What most calls do not need (a connection, a probe, a session, an event stream) is
//! boxed: a call's own future is made and moved for every call, so it is kept small.

mod ask;
mod call;
mod collect;
mod era;
mod exchange;
pub(crate) mod headers;
mod level;
mod listen;
pub(crate) mod listening;
mod send;
mod session;
mod subscribed;
mod unanswered;

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Uri};
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, Semaphore};

use super::{
    Greeting,
    http1::Head,
    pool::{Origin, Pool, Received},
    slot::{Live, Slot},
};
use crate::{
    call::{Era, ProtocolVersion, WorkerId},
    error::CallError,
};
use era::{Eras, Spoken};

/// Longest answer that is read whole.
const MAX_ANSWER: usize = 64 << 20;
/// Longest message that is taken outside of calls.
const MAX_EVENT: usize = 4 << 20;
/// Sessions that are ended at a time when a backend goes, and the longest time
/// for all of them.
const ENDINGS: usize = 16;
const ENDING: Duration = Duration::from_secs(5);
/// Requests of a backend that are being answered at a time; more go unanswered.
const ANSWERS: usize = 8;

/// How a backend is reached.
pub struct HttpConfig {
    /// The backend, for messages.
    pub name: String,
    /// Serial number of the backend, never used twice in a process.
    pub serial: u64,
    /// Where it is.
    pub origin: Origin,
    /// The MCP endpoint, with scheme and authority.
    pub url: Uri,
    /// Sent with every request.
    pub headers: HeaderMap,
    /// Workers that will use it.
    pub workers: usize,
}

/// Has the catalogue of a backend renewed.
pub(crate) type Renewal = Box<dyn Fn() + Send + Sync>;

/// A backend over streamable HTTP.
#[derive(Clone)]
pub struct Http(Arc<Inner>);

/// What the clones of an [`Http`] share.
pub struct Inner {
    name: String,
    serial: u64,
    authority: String,
    /// Names the address in what clients are given, and does not show it.
    address: String,
    /// Header lines of every request.
    lines: Box<[u8]>,
    /// Path and query; a permanent redirect moves it.
    path: RwLock<Arc<str>>,
    pool: Pool,
    eras: Eras,
    /// The session of clients that have none of their own. They share it, so
    /// their request ids are replaced by unique ones.
    shared: Arc<Slot>,
    /// Where sessions of clients are open at this backend, to end them with it.
    slots: Mutex<Vec<Weak<Slot>>>,
    ids: AtomicU64,
    /// Room for answers to requests of the backend: one that floods with them
    /// gets no more than these at a time.
    answers: Arc<Semaphore>,
    /// Has the backend asked anew what it offers.
    renewal: OnceLock<Renewal>,
    /// It is served no longer; and who waits for that.
    closed: AtomicBool,
    closing: Notify,
}

/// A request that was sent: the head of its response, and the body to be read.
struct Sent {
    head: Head,
    body: Received,
}

impl Http {
    /// A backend; nothing is connected yet.
    ///
    /// # Errors
    /// The URL has no authority that fits into a header.
    pub fn new(config: HttpConfig) -> Result<Self, http::Error> {
        let authority = config.url.authority().map_or("", |a| a.as_str());
        let path = config.url.path_and_query().map_or("/", |p| p.as_str());
        Ok(Self(Arc::new(Inner {
            lines: headers::lines(&config.headers, &HeaderValue::from_str(authority)?),
            authority: authority.to_owned(),
            address: hex::encode(&Sha256::digest(config.url.to_string())[..8]),
            path: RwLock::new(path.into()),
            pool: Pool::new(config.origin, config.workers),
            name: config.name,
            serial: config.serial,
            eras: Eras::default(),
            shared: Arc::default(),
            slots: Mutex::default(),
            ids: AtomicU64::new(1),
            answers: Arc::new(Semaphore::new(ANSWERS)),
            renewal: OnceLock::new(),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
        })))
    }

    /// Does this when the backend says that its lists have changed.
    pub(crate) fn renews(&self, renewal: Renewal) {
        // A transport is opened once.
        let _ = self.0.renewal.set(renewal);
    }

    /// The backend of an upstream session, if it is still there.
    #[must_use]
    pub fn of(live: &Live) -> Option<Self> {
        live.backend.upgrade().map(Self)
    }

    /// What the backend says of itself.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn greet(&self, worker: WorkerId) -> Result<Greeting, CallError> {
        loop {
            let era = match self.known(ProtocolVersion::V2026_07_28)? {
                Some(era) => era,
                None => self.probe(worker).await?,
            };
            match era {
                Era::Modern => return self.discover(worker).await,
                Era::Legacy => {
                    let slot = &self.0.shared;
                    match self.open(worker, slot, None).await {
                        Ok(live) => {
                            return Ok(Greeting {
                                era: Era::Legacy,
                                result: live.result.clone(),
                            });
                        }
                        Err(session::Failed::NotSpoken) => {}
                        Err(session::Failed::Call(error)) => return Err(error),
                    }
                }
            }
        }
    }

    /// Whether the backend is known to speak this era.
    pub(super) fn speaks(&self, era: Era) -> bool {
        let eras = &self.0.eras;
        let spoken = match era {
            Era::Modern => eras.modern(),
            Era::Legacy => eras.legacy(),
        };
        spoken == Spoken::Yes
    }

    /// Whether sessions may be open at the backend.
    pub(super) fn has_sessions(&self) -> bool {
        !self.0.slots.lock().is_empty()
    }

    /// Whether it is served no longer.
    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Waits until it is served no longer.
    pub(super) async fn until_closed(&self) {
        let closing = self.0.closing.notified();
        tokio::pin!(closing);
        // Before it is looked at: what is told in between is heard.
        closing.as_mut().enable();
        if !self.is_closed() {
            closing.await;
        }
    }

    /// Ends the sessions that are open at the backend.
    pub async fn close(&self, worker: WorkerId) {
        self.0.closed.store(true, Ordering::Release);
        self.0.closing.notify_waiters();
        let slots = std::mem::take(&mut *self.0.slots.lock());
        let open = slots
            .iter()
            .filter_map(Weak::upgrade)
            .filter_map(|slot| slot.take());
        let open: Vec<_> = open.collect();
        let ending =
            stream::iter(&open).for_each_concurrent(ENDINGS, |live| self.end(worker, live));
        // A backend that does not answer is not waited for.
        let _ = tokio::time::timeout(ENDING, ending).await;
    }

    /// Closes kept connections that are of no use any more. Called by each worker from
    /// time to time.
    pub fn sweep(&self, worker: WorkerId) {
        self.0.pool.sweep(worker);
    }

    /// Remembers a slot whose session is open.
    fn remember(&self, slot: &Arc<Slot>) {
        let mut slots = self.0.slots.lock();
        // Those of clients that are gone leave when the list would grow.
        if slots.len() == slots.capacity() {
            slots.retain(|slot| slot.strong_count() > 0);
        }
        slots.push(Arc::downgrade(slot));
    }

    fn next_id(&self) -> u64 {
        self.0.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn bad_answer(&self, reason: impl Into<String>) -> CallError {
        CallError::BadAnswer {
            backend: self.0.name.clone(),
            reason: reason.into(),
        }
    }

    /// Which era a call of a client of this version goes out in; `None`: a probe must tell.
    fn known(&self, client: ProtocolVersion) -> Result<Option<Era>, CallError> {
        let eras = &self.0.eras;
        match (client.era(), eras.modern(), eras.legacy()) {
            (Era::Modern, Spoken::Yes, _) | (Era::Legacy, Spoken::Yes, Spoken::No) => {
                Ok(Some(Era::Modern))
            }
            // Opening a session shows whether it is spoken.
            (Era::Legacy, _, Spoken::Yes | Spoken::Unknown)
            | (Era::Modern, Spoken::No, Spoken::Yes | Spoken::Unknown) => Ok(Some(Era::Legacy)),
            (_, Spoken::Unknown, _) => Ok(None),
            (_, Spoken::No, Spoken::No) => {
                eras.forget();
                Err(self.bad_answer("it accepts neither `initialize` nor a 2026-07-28 request: is this the MCP endpoint?"))
            }
        }
    }
}

/// Ends an upstream session in the background; the client does not wait for it.
pub fn end_in_background(worker: WorkerId, live: Arc<Live>) {
    if let Some(http) = Http::of(&live) {
        tokio::spawn(async move { http.end(worker, &live).await });
    }
}

#[cfg(test)]
mod tests;
