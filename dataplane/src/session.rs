//! Sessions of legacy clients.
//!
//! The session id itself carries what must survive a restart or a move to
//! another replica, sealed. Beside it a node keeps what it can make again: the
//! upstream sessions opened for it and its log level.

pub mod asked;
pub(crate) mod behind;
mod ended;
mod home;
pub mod inflight;
mod known;
pub(crate) mod lease;
mod regroup;
pub mod resume;
mod sessions;
pub(crate) mod standing;
pub mod stream;
mod streams;
pub(crate) mod waiting;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use asked::Owed;
use behind::Behind;
pub use ended::{Ended, Ending, Endings, Owner};
pub use home::Home;
use inflight::InFlight;
use lease::Leased;
pub use sessions::Sessions;
use standing::Standing;
use streams::Streams;
use waiting::Waiters;

use crate::{
    call::ProtocolVersion,
    envelope,
    room::Room,
    sealed::{self, Binding, KeyRing},
    subscriptions::legacy::Subscribed,
    upstream::{
        message::logs::{Level, Severity},
        slot::{Live, Slot},
    },
};

/// How long a session id is good for, from `initialize` on.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);
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
    /// The level last set with `logging/setLevel`.
    log_level: Level,
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
    /// What is to be done about that, and about its upstream sessions.
    behind: Behind,
    /// It has ended.
    is_over: AtomicBool,
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
    /// What requests that stand take.
    standing: Mutex<Room>,
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

    /// The level set with `logging/setLevel`.
    #[must_use]
    pub fn log_level(&self) -> Option<Severity> {
        self.log_level.get()
    }

    /// Remembers the level of `logging/setLevel`.
    pub fn set_log_level(&self, level: Severity) {
        self.log_level.set(level);
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

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Whose it is.
    pub(crate) const fn owner(&self) -> Owner {
        self.owner
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

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session {} of {}", self.name, self.principal)
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
        log_level: Level::default(),
        upstreams: Mutex::default(),
        owed: Mutex::default(),
        waiters: Mutex::default(),
        subscribed: Mutex::default(),
        streams: Mutex::default(),
        standing: Standing::default(),
        behind: Behind::default(),
        is_over: AtomicBool::new(false),
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
