//! [`Sessions`]: those that a node has met.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::{
    CAPABILITIES_MAX, Ended, Ending, Endings, Home, LIFETIME, Session, Shared, Token, binding,
    bounded_info, ended, inflight::InFlight, known::Known, lease::Idle, raw, session, standing,
};
use crate::{
    call::ProtocolVersion,
    room::Room,
    sealed::{self, KeyRing},
};

/// A session not used for this long loses its upstream sessions; they are made
/// again when it comes back.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// The sessions that a node has met.
pub struct Sessions {
    pub(super) shared: Arc<Shared>,
    own: Mutex<KeyRing>,
    pub(super) live: Mutex<Known>,
    ended: Mutex<Ended>,
    /// What is added to them here.
    news: broadcast::Sender<Ending>,
    /// Sessions of calls whose clients have none.
    pub(super) idle: Arc<Mutex<Idle>>,
    /// This node: where those live that it opens.
    home: Option<Home>,
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
                standing: Mutex::new(Room::new(standing::ALL_BYTES)),
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
        let mut live = self.live.lock();
        let gone = live.take_if(|_, session| is_meant(session));
        // Under that lock: none is found again in between.
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
        gone.extend(self.live.lock().take_evicted());
        let is_idle = |session: &Session| {
            let last_used = session.last_used.load(Ordering::Relaxed);
            now.saturating_sub(last_used) >= IDLE.as_secs()
        };
        let over = self.live.lock().take_if(|_, session| {
            let used = !is_idle(session) || session.sweep_streams() || session.stands_elsewhere();
            session.expires <= now || !used
        });
        for session in &over {
            session.close_streams();
        }
        gone.extend(over);
        // One that has moved away is kept for its requests alone.
        let live = self.live.lock();
        let moved = live.values();
        let moved = moved.filter(|session| is_idle(session) && session.stands_elsewhere());
        let moved: Vec<_> = moved.cloned().collect();
        drop(live);
        for session in &moved {
            let subscribed = std::mem::take(&mut *session.subscribed.lock());
            drop(subscribed);
            session.unmake(|_, _| false);
        }
        gone.extend(moved);
        gone
    }

    /// Keeps a session that was opened by its id; `None`: it has ended.
    pub(super) fn keep(&self, id: &str, session: Session) -> Option<Arc<Session>> {
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
