//! A session catches up: with a gateway that has other backends than it had, and with what was
//! asked for at another data plane, which this one has taken the session over from.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future::join_all};
use tokio::{task::JoinHandle, time::timeout};

use super::{Inbound, call};
use crate::{
    auth::Principal,
    backend::Backend,
    call::{Call, Method, Reply, WorkerId},
    envelope::{self, Kind},
    error::{CallError, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND},
    node::Node,
    peer::{Place, ended},
    route::route,
    sealed,
    session::{
        Session,
        behind::{Making, Undone},
        standing::{NO_BACKEND, Pending},
    },
    stack,
    table::Gateway,
    upstream::{http::Http, message::error_code},
};

/// How long a request of a client waits for what was made elsewhere to be made here.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what is to be made waits for room at its backend before it is tried another time.
const ROOM: Duration = Duration::from_secs(10);

/// A client with a session, for what is done without a word of its own. It has no gateway: that
/// would keep its backends.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) node: Arc<Node>,
    pub(super) session: Arc<Session>,
    worker: WorkerId,
    path: String,
    principal: Arc<Principal>,
}

/// What has come of a request.
enum Outcome {
    /// Done, or refused by the backend: there is nothing more to be done about it there.
    Settled,
    /// The backend has not dealt with it: it may later.
    Failed,
    /// The backend cannot be reached, or does not answer.
    Gone,
}

impl Client {
    pub(super) fn new(inbound: &Inbound, session: &Arc<Session>) -> Self {
        Self {
            node: inbound.node.clone(),
            session: session.clone(),
            worker: inbound.worker,
            path: inbound.gateway.path.clone(),
            principal: inbound.principal.clone(),
        }
    }

    /// Its gateway as it is now, if it would still let it in.
    fn gateway(&self) -> Option<Arc<Gateway>> {
        let id = self.session.gateway();
        self.node.still_admitting(&self.path, id, &self.principal)
    }

    /// Whether its gateway would still let it in.
    pub(super) fn is_let_in(&self) -> bool {
        self.gateway().is_some()
    }

    /// Does what is to be done, where the session is served here. What was asked for elsewhere is
    /// waited for, for a while.
    pub(super) async fn catch_up(self) {
        if !matches!(self.node.peers.place(&self.session), Place::Here) {
            return;
        }
        let Some(undone) = self.session.take_up() else {
            return;
        };
        // On its own: a client that leaves meanwhile does not end it.
        let making = tokio::spawn(async move {
            let is_from_elsewhere = undone.is_from_elsewhere();
            let making = self.begin(undone).await;
            if is_from_elsewhere {
                join_all(making).await;
            }
        });
        let _ = timeout(PATIENCE, making).await;
    }

    /// Brings what the session has at backends up to date, and begins to make what stands and
    /// was not made at the backend that it is for now.
    async fn begin(&self, undone: Undone) -> Vec<JoinHandle<()>> {
        // Behind the taking, so that it is no older than what there is to be done.
        let Some(gateway) = self.gateway() else {
            self.session.put_back(&undone);
            return Vec::new();
        };
        self.session.regroup(|serial| gateway.has(serial));
        if !is_current(&self.node, &Arc::downgrade(&gateway)) {
            self.session.falls_behind();
        }
        if self.session.is_listening() && !undone.is_retry() {
            for slot in self.session.upstreams() {
                if let Some(http) = slot.live().and_then(|live| Http::of(&live)) {
                    http.listen(self.worker, &self.session, &slot);
                }
            }
        }
        if undone.requests.is_empty() {
            return Vec::new();
        }
        // Only that tells whose resources they are.
        gateway.fresh_index().await;
        let mut by_backend = BTreeMap::<_, (_, Vec<_>)>::new();
        for request in undone.requests {
            let Some(call) = self.call(request.body.clone()) else {
                continue;
            };
            if call.method == Method::SetLevel {
                if request.at.is_none() {
                    // It is the session's own.
                    let _ = stack::answer(&self.node, gateway.clone(), call).await;
                    self.session.is_made(&request.body, NO_BACKEND);
                }
                continue;
            }
            match route(&gateway, &call) {
                Ok(route) if request.at == Some(route.backend.serial) => {}
                Ok(route) => {
                    let of = by_backend.entry(route.backend.serial);
                    of.or_insert((route.backend, Vec::new())).1.push(request);
                }
                // Its backend may be there later, or have told later what it has.
                Err(_) => self.session.has_failed(),
            }
        }
        let begun = by_backend
            .into_iter()
            .filter_map(|(serial, (backend, requests))| {
                let making = Making::begin(&self.session, serial)?;
                Some(tokio::spawn(self.clone().make(backend, requests, making)))
            });
        begun.collect()
    }

    /// Makes requests at a backend, one after the other.
    async fn make(self, backend: Arc<Backend>, mut requests: Vec<Pending>, _making: Making) {
        // One that gets no answer is not always the first.
        let [chance] = sealed::random().unwrap_or_default();
        let first = usize::from(chance) % requests.len().max(1);
        requests.rotate_left(first);
        let room = timeout(ROOM, backend.room_for_unasked()).await;
        if room.is_err() {
            return self.session.has_failed();
        }
        for request in &requests {
            if !self.session.still_stands(&request.body) {
                continue;
            }
            // Anew for each: one may take long, and another table be in use then.
            let (Some(gateway), Some(call)) = (self.gateway(), self.call(request.body.clone()))
            else {
                self.session.falls_behind();
                break;
            };
            let is_for = route(&gateway, &call).map(|route| route.backend.serial);
            if is_for.ok() != Some(backend.serial) {
                self.session.falls_behind();
                break;
            }
            let table = Arc::downgrade(&gateway);
            let answered = stack::answer(&self.node, gateway, call).await;
            match outcome(answered).await {
                Outcome::Settled => {}
                Outcome::Failed => {
                    self.session.has_failed();
                    continue;
                }
                Outcome::Gone => {
                    // For the others as well.
                    self.session.has_failed();
                    break;
                }
            }
            if !is_current(&self.node, &table) {
                self.session.falls_behind();
            }
            self.settled(request, backend.serial);
        }
        if self.session.is_over() {
            // What was opened behind its end has nobody else to end it.
            ended::close(&self.node, std::slice::from_ref(&self.session));
        }
    }

    /// A request was made at this backend, or refused by it.
    fn settled(&self, request: &Pending, serial: u64) {
        let session = &self.session;
        session.is_made(&request.body, serial);
        let uri = envelope::scan(&request.body).ok().and_then(|own| own.uri);
        let uri = uri.and_then(|uri| envelope::string_value(&request.body, uri));
        let Some(uri) = uri else {
            return;
        };
        // Its client may have ended it while it was being made, or have asked for it anew.
        match session.subscribed_at(&uri) {
            Some(None) => {}
            at => session.leave(self.worker, &uri, at.flatten()),
        }
    }

    fn call(&self, body: Bytes) -> Option<Call> {
        let message = envelope::scan(&body).ok()?;
        let (session, principal) = (self.session.clone(), self.principal.clone());
        (message.kind == Kind::Request)
            .then(|| call(self.worker, principal, session, body, message))
    }
}

async fn outcome(answered: Result<Reply, CallError>) -> Outcome {
    let code = match answered {
        Ok(Reply::Whole(answer)) => answer.error,
        Ok(Reply::Parts(_)) => None,
        Ok(Reply::Stream(mut messages)) => {
            let mut code = None;
            while let Some(message) = messages.next().await {
                let Ok(message) = message else {
                    return Outcome::Gone;
                };
                let scanned = envelope::scan(&message).ok();
                code = scanned.and_then(|scanned| error_code(&message, &scanned));
            }
            code
        }
        Err(CallError::Refused { code, .. }) => Some(code),
        Err(error) => {
            tracing::debug!(%error, "what a session has asked for cannot be made yet");
            return Outcome::Gone;
        }
    };
    match code {
        None | Some(INVALID_PARAMS | INVALID_REQUEST | METHOD_NOT_FOUND | RESOURCE_NOT_FOUND) => {
            Outcome::Settled
        }
        Some(_) => Outcome::Failed,
    }
}

/// Whether a gateway is that of the table in use.
pub(super) fn is_current(node: &Node, gateway: &Weak<Gateway>) -> bool {
    let table = node.table.load();
    let mut all = table.gateways();
    all.any(|own| std::ptr::eq(Arc::as_ptr(own), gateway.as_ptr()))
}
