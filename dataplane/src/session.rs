//! Sessions of legacy clients.
//!
//! The session id itself carries what must survive a restart or a move to
//! another replica, sealed. Beside it a node keeps what it can make again: the
//! upstream sessions opened for it and its log level.

pub mod asked;
mod ended;
mod home;
pub mod inflight;
mod known;
pub(crate) mod lease;
pub mod resume;
pub(crate) mod standing;
pub mod stream;
pub(crate) mod waiting;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::sync::broadcast;

use asked::Owed;
pub use ended::{Ended, Ending, Endings, Owner};
pub use home::Home;
use inflight::InFlight;
use known::Known;
use lease::{Idle, Leased};
use standing::Standing;
use stream::Streams;
use waiting::Waiters;

use crate::{
    call::ProtocolVersion,
    envelope,
    sealed::{self, Binding, KeyRing},
    subscriptions::legacy::Subscribed,
    upstream::slot::{Live, Slot},
};

/// How long a session id is good for, from `initialize` on.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// A session not used for this long loses its upstream sessions; they are made
/// again when it comes back.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Longest `clientInfo` that is kept whole; the session id is an HTTP header.
const CLIENT_INFO_MAX: usize = 512;
/// Longest `capabilities` that are kept.
const CAPABILITIES_MAX: usize = 2048;

/// What the session id carries.
#[derive(Debug, Deserialize, Serialize)]
struct Token {
    /// Names the session.
    n: String,
    /// Its protocol version.
    p: String,
    /// `clientInfo`.
    i: Box<RawValue>,
    /// `capabilities`.
    c: Box<RawValue>,
    /// Where it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    h: Option<Home>,
}

/// A session of a legacy client.
pub struct Session {
    name: String,
    principal: String,
    gateway: String,
    owner: Owner,
    expires: u64,
    home: Option<Home>,
    /// The negotiated version.
    pub version: ProtocolVersion,
    /// JSON text of the client's `clientInfo`.
    pub client_info: Bytes,
    /// JSON text of the client's `capabilities`.
    pub capabilities: Bytes,
    /// JSON text of the level last set with `logging/setLevel`.
    log_level: Mutex<Option<Bytes>>,
    /// One upstream session for each legacy HTTP backend, by the backend's serial number.
    upstreams: Mutex<Vec<(u64, Arc<Slot>)>>,
    /// What its backends have asked the client.
    owed: Mutex<Owed>,
    /// Who in this process waits for answers of the client.
    waiters: Mutex<Waiters>,
    /// What its client is told of single resources, where it listens for that itself.
    pub(crate) subscribed: Mutex<Subscribed>,
    /// What is sent to the client as events.
    streams: Mutex<Streams>,
    /// What its client has asked for that stands.
    standing: Standing,
    last_used: AtomicU64,
    shared: Arc<Shared>,
    /// Where it is no client's, but that of one call at a time.
    leased: Option<Leased>,
}

/// What the sessions of a node share.
#[derive(Debug)]
struct Shared {
    /// That of the fleet or, as long as there is none, this node's own.
    ring: Arc<ArcSwap<KeyRing>>,
    /// Their calls that are in flight.
    calls: InFlight,
    /// Bytes of streams that are kept beyond their end.
    kept: AtomicUsize,
    /// Bytes of requests that stand.
    standing: AtomicUsize,
}

impl Session {
    /// Its upstream session at the backend of this serial number; opened on first use.
    #[must_use]
    pub fn upstream(&self, backend: u64) -> Arc<Slot> {
        let mut upstreams = self.upstreams.lock();
        if let Some((_, slot)) = upstreams.iter().find(|(id, _)| *id == backend) {
            return slot.clone();
        }
        // Backends that are gone drop their end of the slot.
        upstreams.retain(|(_, slot)| !slot.is_orphan());
        let slot = Arc::new(Slot::default());
        upstreams.push((backend, slot.clone()));
        slot
    }

    /// Upstream sessions that exist now.
    #[must_use]
    pub fn upstreams(&self) -> Vec<Arc<Slot>> {
        self.upstreams
            .lock()
            .iter()
            .map(|(_, slot)| slot.clone())
            .collect()
    }

    /// Its upstream session at the backend of this serial number, where one is open.
    #[must_use]
    pub fn live(&self, backend: u64) -> Option<Arc<Live>> {
        let upstreams = self.upstreams.lock();
        let (_, slot) = upstreams.iter().find(|(id, _)| *id == backend)?;
        slot.live()
    }

    /// JSON text of the level set with `logging/setLevel`.
    #[must_use]
    pub fn log_level(&self) -> Option<Bytes> {
        self.log_level.lock().clone()
    }

    /// Remembers the level of `logging/setLevel`: a JSON text.
    pub fn set_log_level(&self, level: Bytes) {
        *self.log_level.lock() = Some(level);
    }

    /// Project and name of its gateway.
    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The id of its client's principal.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Whether it is no client's, but that of one call at a time.
    pub(crate) const fn is_leased(&self) -> bool {
        self.leased.is_some()
    }

    /// That it has ended.
    fn ending(&self) -> Ending {
        Ending::One {
            owner: self.owner,
            name: self.name.as_str().into(),
            expires: self.expires,
        }
    }

    fn is_of(&self, gateway: &str, principal: &str) -> bool {
        self.gateway == gateway && self.principal == principal
    }

    /// Seals something for its client, for as long as the session can last.
    fn seal<T: Serialize>(&self, purpose: &'static str, value: T) -> io::Result<String> {
        let left = self.expires.saturating_sub(sealed::now().as_secs());
        let binding = Binding {
            purpose,
            ..binding(&self.gateway, &self.principal)
        };
        let ring = self.shared.ring.load();
        ring.seal(value, Duration::from_secs(left), binding)
    }

    /// Opens what was sealed for its client's principal: by this session or another.
    fn open<T: DeserializeOwned>(&self, purpose: &'static str, token: &str) -> Option<T> {
        let binding = Binding {
            purpose,
            ..binding(&self.gateway, &self.principal)
        };
        let opened = self.shared.ring.load().open(token, binding)?;
        Some(opened.value)
    }
}

/// The sessions that a node has met.
pub struct Sessions {
    shared: Arc<Shared>,
    own: Mutex<KeyRing>,
    live: Mutex<Known>,
    ended: Mutex<Ended>,
    /// What is added to them here.
    news: broadcast::Sender<Ending>,
    /// Sessions of calls whose clients have none.
    idle: Arc<Mutex<Idle>>,
    /// This node: where those live that it opens.
    home: Option<Home>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session {} of {}", self.name, self.principal)
    }
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(ring: KeyRing) -> Self {
        Self {
            shared: Arc::new(Shared {
                ring: Arc::new(ArcSwap::from_pointee(ring.clone())),
                calls: InFlight::default(),
                kept: AtomicUsize::new(0),
                standing: AtomicUsize::new(0),
            }),
            own: Mutex::new(ring),
            live: Mutex::default(),
            ended: Mutex::default(),
            news: broadcast::Sender::new(ended::UNTOLD),
            idle: Arc::default(),
            home: None,
        }
    }

    /// The same on this node: sessions that it opens name it as their home.
    #[must_use]
    pub fn at(self, home: Home) -> Self {
        Self {
            home: Some(home),
            ..self
        }
    }

    /// The keys in use, now and after every change.
    #[must_use]
    pub fn keys(&self) -> Arc<ArcSwap<KeyRing>> {
        self.shared.ring.clone()
    }

    /// Opens a session and gives its id.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn create(
        &self,
        gateway: &str,
        principal: &str,
        version: ProtocolVersion,
        client_info: &[u8],
        capabilities: &[u8],
    ) -> io::Result<String> {
        let token = Token {
            n: hex::encode(sealed::random::<12>()?),
            p: version.as_str().to_owned(),
            i: raw(&bounded_info(client_info)),
            c: raw(if capabilities.len() > CAPABILITIES_MAX {
                b"{}"
            } else {
                capabilities
            }),
            h: self.home.clone(),
        };
        let id = self
            .shared
            .ring
            .load()
            .seal(&token, LIFETIME, binding(gateway, principal))?;
        let session = session(
            token,
            version,
            sealed::now().as_secs() + LIFETIME.as_secs(),
            gateway,
            principal,
            self.shared.clone(),
        );
        self.live.lock().keep(id.clone(), session);
        Ok(id)
    }

    /// The session of this id; `None`: unknown, over, ended, or another's.
    #[must_use]
    pub fn find(&self, id: &str, gateway: &str, principal: &str) -> Option<Arc<Session>> {
        let now = sealed::now().as_secs();
        if let Some(session) = self.live.lock().get(id) {
            session.last_used.store(now, Ordering::Relaxed);
            return (session.is_of(gateway, principal) && session.expires > now)
                .then(|| session.clone());
        }
        let opened = self
            .shared
            .ring
            .load()
            .open::<Token>(id, binding(gateway, principal))?;
        let version = ProtocolVersion::parse(&opened.value.p)?;
        let (shared, expires) = (self.shared.clone(), opened.expires);
        let session = session(opened.value, version, expires, gateway, principal, shared);
        self.keep(id, session)
    }

    /// Ends a session: its id is good no longer. Gives what of it was here.
    pub fn end(&self, id: &str, session: &Session) -> Option<Arc<Session>> {
        let mut ended = self.ended.lock();
        ended.add(session.ending());
        // Nobody may be there to hear it.
        let _ = self.news.send(session.ending());
        drop(ended);
        session.close_streams();
        // Another one, where it was forgotten and found again meanwhile.
        self.live
            .lock()
            .remove(id)
            .inspect(|kept| kept.close_streams())
    }

    /// What has ended, and what ends from now on.
    #[must_use]
    pub fn endings(&self) -> Endings {
        let ended = self.ended.lock();
        Endings {
            known: ended.endings().collect(),
            news: self.news.subscribe(),
        }
    }

    /// Ends sessions that were ended on other nodes. Gives those that had something here.
    #[must_use]
    pub fn ended_elsewhere(&self, told: &Ended) -> Vec<Arc<Session>> {
        let mut ended = self.ended.lock();
        told.endings().for_each(|ending| ended.add(ending));
        drop(ended);
        let gone = self
            .live
            .lock()
            .take_if(|_, session| told.contains(session.owner, &session.name, session.expires));
        for session in &gone {
            session.close_streams();
        }
        gone
    }

    /// Seals and opens with these keys from now on; this node's own only opens. Gives
    /// the sessions that have ended by that.
    #[must_use]
    pub fn turn(&self, ring: KeyRing) -> Vec<Arc<Session>> {
        let ring = ring.opening(&self.own.lock());
        self.shared.ring.store(Arc::new(ring));
        let ring = self.shared.ring.load();
        let gone = self.live.lock().take_if(|id, session| {
            let binding = binding(&session.gateway, &session.principal);
            ring.open::<Token>(id, binding).is_none()
        });
        for session in &gone {
            session.close_streams();
        }
        gone
    }

    /// Replaces this node's own keys, before [`turn`](Self::turn): what they have
    /// sealed opens no longer.
    pub fn replace_own(&self, ring: KeyRing) {
        *self.own.lock() = ring;
    }

    /// Ends the sessions of a principal at gateways of a project (empty: of all).
    /// Gives them.
    #[must_use]
    pub fn end_all(&self, project: &str, principal: &str) -> Vec<Arc<Session>> {
        let is_meant = |session: &Session| {
            let of = session.gateway.split_once('/').map(|(of, _)| of);
            session.principal == principal && (project.is_empty() || of == Some(project))
        };
        let gone = self.live.lock().take_if(|_, session| is_meant(session));
        let mut ended = self.ended.lock();
        for session in &gone {
            session.close_streams();
            ended.add(session.ending());
        }
        gone
    }

    /// Those whose clients take what belongs to no call.
    #[must_use]
    pub fn listening(&self) -> Vec<Arc<Session>> {
        let live = self.live.lock();
        live.values()
            .filter(|session| session.is_listening())
            .cloned()
            .collect()
    }

    /// Those whose clients have asked for something that stands, with their ids.
    #[must_use]
    pub(crate) fn with_standing(&self) -> Vec<(String, Arc<Session>)> {
        let live = self.live.lock();
        let standing = live.iter().filter(|(_, session)| session.has_standing());
        standing
            .map(|(id, session)| (id.clone(), session.clone()))
            .collect()
    }

    /// How many sessions have state here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.lock().len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what is idle or over and gives it, so that its upstream sessions
    /// can be ended.
    #[must_use]
    pub fn sweep(&self) -> Vec<Arc<Session>> {
        let now = sealed::now().as_secs();
        self.ended.lock().forget_expired(now);
        let mut gone = self.sweep_leased();
        let over = self.live.lock().take_if(|_, session| {
            let idle = now.saturating_sub(session.last_used.load(Ordering::Relaxed));
            let used =
                idle < IDLE.as_secs() || session.sweep_streams() || session.stands_elsewhere();
            session.expires <= now || !used
        });
        for session in &over {
            session.close_streams();
        }
        gone.extend(over);
        gone
    }

    /// Keeps a session that was opened by its id; `None`: it has ended.
    fn keep(&self, id: &str, session: Session) -> Option<Arc<Session>> {
        let mut live = self.live.lock();
        // Under that lock: who ends it now takes it out again.
        let ended = self.ended.lock();
        if ended.contains(session.owner, &session.name, session.expires) {
            return None;
        }
        drop(ended);
        Some(live.keep(id.to_owned(), session))
    }
}

fn binding<'a>(gateway: &'a str, principal: &'a str) -> Binding<'a> {
    Binding {
        purpose: "session",
        gateway,
        principal,
    }
}

fn session(
    token: Token,
    version: ProtocolVersion,
    expires: u64,
    gateway: &str,
    principal: &str,
    shared: Arc<Shared>,
) -> Session {
    Session {
        name: token.n,
        home: token.h,
        owner: Owner::new(gateway, principal),
        principal: principal.to_owned(),
        gateway: gateway.to_owned(),
        expires,
        version,
        client_info: text(token.i),
        capabilities: text(token.c),
        log_level: Mutex::default(),
        upstreams: Mutex::default(),
        owed: Mutex::default(),
        waiters: Mutex::default(),
        subscribed: Mutex::default(),
        streams: Mutex::default(),
        standing: Standing::default(),
        last_used: AtomicU64::new(sealed::now().as_secs()),
        shared,
        leased: None,
    }
}

fn text(raw: Box<RawValue>) -> Bytes {
    Bytes::from(String::from(Box::<str>::from(raw)))
}

/// The envelope scan has checked that it is JSON.
fn raw(json: &[u8]) -> Box<RawValue> {
    serde_json::from_slice(json)
        .unwrap_or_else(|_| RawValue::from_string("{}".to_owned()).unwrap_or_default())
}

/// Icons and descriptions do not fit into a header: a large `clientInfo` keeps
/// its name and version.
fn bounded_info(info: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
        #[serde(default)]
        version: String,
    }
    if info.len() <= CLIENT_INFO_MAX {
        return info.to_vec();
    }
    let cut = |text: &str| text.chars().take(64).collect::<String>();
    let named = serde_json::from_slice::<Named>(info).unwrap_or(Named {
        name: "unknown".to_owned(),
        version: String::new(),
    });
    let (name, version) = (
        envelope::quote(&cut(&named.name)),
        envelope::quote(&cut(&named.version)),
    );
    [
        &b"{\"name\":"[..],
        &name[..],
        &b",\"version\":"[..],
        &version[..],
        &b"}"[..],
    ]
    .concat()
}

#[cfg(test)]
mod tests;
