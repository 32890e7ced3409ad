//! Backends over streamable HTTP, of either era.
//!
//! A call goes out in the client's own era where the backend speaks it, in the
//! other one where it does not. What a backend speaks is found out once, at the
//! first call that needs to know, and forgotten when it proves wrong.
//!
//! What most calls do not need (a connection, a probe, a session, an event stream) is
//! boxed: a call's own future is made and moved for every call, so it is kept small.

mod ask;
mod collect;
mod era;
mod exchange;
pub(crate) mod headers;
mod level;
mod listen;
pub(crate) mod listening;
mod session;
mod subscribed;
mod unanswered;

pub(crate) use subscribed::is_about_subscription;

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{
    Greeting,
    http1::Head,
    message::outgoing,
    pool::{Ask, Origin, Pool, Received, SendError},
    slot::{Live, Slot},
};
use crate::{
    call::{Call, Era, ProtocolVersion, Reply, WorkerId},
    error::CallError,
};
use era::{Eras, Spoken};
use exchange::Exchange;
use unanswered::Unanswered;

/// Redirects followed for one request; same origin only.
const REDIRECTS: usize = 3;
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
}

/// A request that was sent: the head of its response, and the body to be read.
struct Sent {
    head: Head,
    body: Received,
}

/// A call that was sent.
struct Posted {
    sent: Sent,
    way: Way,
}

/// How a call went out.
enum Way {
    /// In the modern era.
    Stateless,
    /// In the legacy era.
    Session {
        slot: Arc<Slot>,
        live: Arc<Live>,
        /// The id it was sent with, where that is not the client's.
        id: Option<Bytes>,
        /// Cancels it, where the client does that by going away.
        unanswered: Option<Unanswered>,
    },
}

impl Way {
    fn answered(&mut self) {
        if let Self::Session {
            unanswered: Some(unanswered),
            ..
        } = self
        {
            unanswered.answered();
        }
    }
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

    /// Sends a call and gives its answer.
    ///
    /// # Errors
    /// See [`CallError`].
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice, and a call is large"
    )]
    pub fn call(&self, call: Call) -> impl Future<Output = Result<Reply, CallError>> + Send {
        async move {
            let mut again = true;
            loop {
                let era = match self.known(call.version)? {
                    Some(era) => era,
                    None => Box::pin(self.probe(call.worker)).await?,
                };
                let posted = match era {
                    Era::Modern => self.post_modern(&call).await?,
                    Era::Legacy => match self.post_legacy(&call).await {
                        // It has just turned out not to speak that era: ask again.
                        Err(session::Failed::NotSpoken) => continue,
                        Err(session::Failed::Call(error)) => return Err(error),
                        Ok(posted) => posted,
                    },
                };
                let Posted { sent, mut way } = posted;
                let Head {
                    status, is_stream, ..
                } = sent.head;
                let refused = matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND);
                let reply = if is_stream && !(refused && era == Era::Legacy) {
                    let exchange = Exchange::new(self, call, way);
                    Box::pin(exchange.events(sent)).await
                } else {
                    let body = if is_stream {
                        Box::pin(self.collect_any(sent)).await?
                    } else {
                        self.collect(sent).await?
                    };
                    way.answered();
                    if again && refused && self.is_lost(&way, status, &body) {
                        again = false;
                        continue;
                    }
                    let exchange = Exchange::new(self, call, way);
                    exchange.whole(status, body).map(Reply::Whole)
                };
                if era == Era::Modern {
                    self.learn(refused, &reply);
                }
                return reply;
            }
        }
    }

    /// Whether a refusal says that the session is gone, and another one will do.
    fn is_lost(&self, way: &Way, status: StatusCode, refusal: &[u8]) -> bool {
        let Way::Session { slot, live, .. } = way else {
            return false;
        };
        if !session::is_lost(status, refusal) {
            return false;
        }
        // Without a session nothing was lost, but the server may speak another era by
        // now: the next call's `initialize` will tell.
        slot.forget(live);
        live.id.is_some()
    }

    /// What an answer tells of the era that the backend speaks.
    fn learn(&self, refused: bool, reply: &Result<Reply, CallError>) {
        match reply {
            Ok(Reply::Whole(answer)) if era::is_modern_error(answer.error) => {
                self.0.eras.trust();
            }
            // Perhaps it was replaced by one of the other era.
            _ if refused => self.0.eras.doubt(),
            Ok(_) => self.0.eras.trust(),
            Err(_) => {}
        }
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

    /// Ends the sessions that are open at the backend.
    pub async fn close(&self, worker: WorkerId) {
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

    async fn post_modern(&self, call: &Call) -> Result<Posted, CallError> {
        let body = outgoing(call, Era::Modern, None)?;
        let lines = |out: &mut Vec<u8>| headers::modern(out, call);
        let sent = self.post(call.worker, lines, body).await?;
        Ok(Posted {
            sent,
            way: Way::Stateless,
        })
    }

    /// Sends a call in the session of its client, which is opened where there is none.
    async fn post_legacy(&self, call: &Call) -> Result<Posted, session::Failed> {
        let (slot, id) = match &call.session {
            Some(session) if !session.is_leased() => (session.upstream(self.0.serial), None),
            Some(session) => (
                session.upstream(self.0.serial),
                Some(Bytes::from(self.next_id().to_string())),
            ),
            None => (
                Arc::clone(&self.0.shared),
                Some(Bytes::from(self.next_id().to_string())),
            ),
        };
        let body = outgoing(call, Era::Legacy, id.as_deref())?;
        let live = match slot.live() {
            Some(live) => live,
            None => Box::pin(self.open(call.worker, &slot, call.session.as_ref())).await?,
        };
        if call.message.log_level.is_some() && call.version.era() == Era::Modern && live.logs {
            Box::pin(self.logs_for(call, &live)).await;
        }
        let lines = |out: &mut Vec<u8>| headers::legacy(out, &live);
        let unanswered = match &id {
            Some(id) if call.version.era() == Era::Modern => {
                Some(Unanswered::new(self, call.worker, &live, id))
            }
            _ => None,
        };
        let sent = self.post(call.worker, lines, body).await?;
        Ok(Posted {
            sent,
            way: Way::Session {
                slot,
                live,
                id,
                unanswered,
            },
        })
    }

    /// Posts a message with the header lines that `lines` adds to those of every request;
    /// redirects within the origin are followed.
    async fn post(
        &self,
        worker: WorkerId,
        lines: impl Fn(&mut Vec<u8>) + Sync,
        body: Bytes,
    ) -> Result<Sent, CallError> {
        let path = self.0.path.read().clone();
        let sent = self
            .send(worker, "POST", &path, &lines, body.clone())
            .await?;
        if is_redirect(&sent) {
            return Box::pin(self.follow(worker, sent, &lines, body)).await;
        }
        Ok(sent)
    }

    /// Follows redirects within the origin.
    async fn follow(
        &self,
        worker: WorkerId,
        mut sent: Sent,
        lines: &(dyn Fn(&mut Vec<u8>) + Sync),
        body: Bytes,
    ) -> Result<Sent, CallError> {
        let mut moved = true;
        for _ in 0..REDIRECTS {
            moved &= sent.head.status == StatusCode::PERMANENT_REDIRECT;
            let location = sent.head.get("location");
            let to = location.and_then(|l| self.same_origin(std::str::from_utf8(l).ok()?));
            let path = to.ok_or_else(|| {
                self.bad_answer("it redirects to another origin, which is never followed: set `url` to the final address")
            })?;
            sent = self
                .send(worker, "POST", &path, lines, body.clone())
                .await?;
            if !is_redirect(&sent) {
                if moved {
                    *self.0.path.write() = path;
                }
                return Ok(sent);
            }
        }
        Err(self.bad_answer("it redirects in circles"))
    }

    async fn send(
        &self,
        worker: WorkerId,
        verb: &'static str,
        path: &str,
        lines: impl Fn(&mut Vec<u8>) + Sync,
        body: Bytes,
    ) -> Result<Sent, CallError> {
        let lines = |out: &mut Vec<u8>| {
            out.extend_from_slice(&self.0.lines);
            lines(out);
        };
        let ask = Ask {
            verb,
            path,
            lines: &lines,
            body,
        };
        match self.0.pool.send(worker, &ask).await {
            Ok((head, body)) => Ok(Sent { head, body }),
            Err(SendError::Broken(error)) => Err(self.unread(error)),
            Err(error @ SendError::Connect { .. }) => {
                let reason = "it cannot be reached";
                Err(CallError::unavailable(
                    &self.0.name,
                    reason,
                    error.to_string(),
                ))
            }
        }
    }

    /// The path of a redirect that stays within the origin.
    fn same_origin(&self, location: &str) -> Option<Arc<str>> {
        let uri: Uri = location.parse().ok()?;
        let same = match uri.authority() {
            // `//host/path` names another host.
            None => location.starts_with('/') && !location.starts_with("//"),
            Some(authority) => {
                let tls = uri.scheme_str() == Some("https");
                authority.as_str() == self.0.authority && tls == self.0.pool.is_tls()
            }
        };
        same.then(|| uri.path_and_query().map(|path| path.as_str().into()))
            .flatten()
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

/// Only those that keep method and body can be followed.
fn is_redirect(sent: &Sent) -> bool {
    matches!(
        sent.head.status,
        StatusCode::PERMANENT_REDIRECT | StatusCode::TEMPORARY_REDIRECT
    )
}

/// Ends an upstream session in the background; the client does not wait for it.
pub fn end_in_background(worker: WorkerId, live: Arc<Live>) {
    if let Some(http) = Http::of(&live) {
        tokio::spawn(async move { http.end(worker, &live).await });
    }
}

#[cfg(test)]
mod tests;
