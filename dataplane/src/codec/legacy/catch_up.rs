//! A session catches up: with a gateway that has other backends than it had, and with what was
//! asked for at another data plane, which this one has taken the session over from.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{Inbound, call};
use crate::{
    auth::Principal,
    call::{Call, Reply, WorkerId},
    envelope::{self, Kind},
    error::CallError,
    node::Node,
    peer::Place,
    route::{Route, route},
    session::{Session, standing::Undone},
    stack,
    table::Gateway,
    upstream::http::Http,
};

/// How long a request waits for what stands to be made.
const PATIENCE: Duration = Duration::from_secs(2);

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

    /// Its gateway as it is now; `None`: there is none any more.
    fn gateway(&self) -> Option<Arc<Gateway>> {
        let gateway = self.node.table.load().gateway(&self.path).cloned();
        gateway.filter(|own| own.id == self.session.gateway())
    }

    /// Whether its gateway would still let it in.
    pub(super) fn is_let_in(&self) -> bool {
        let id = self.session.gateway();
        let gateway = self.node.still_admitting(&self.path, id, &self.principal);
        gateway.is_some()
    }

    /// Does what is to be done, where the session is served here. A backend that does not answer
    /// is not waited for.
    pub(super) async fn catch_up(self) {
        if !matches!(self.node.peers.place(&self.session), Place::Here) {
            return;
        }
        let Some(undone) = self.session.take_up() else {
            return;
        };
        // Behind that, so that it is no older than what there is to be done.
        let Some(gateway) = self.gateway() else {
            return;
        };
        let backends: HashSet<_> = gateway.backends.iter().map(|own| own.serial).collect();
        self.session.regroup(|serial| backends.contains(&serial));
        if self.session.is_listening() {
            for slot in self.session.upstreams() {
                if let Some(http) = slot.live().and_then(|live| Http::of(&live)) {
                    http.listen(self.worker, &self.session, &slot);
                }
            }
        }
        if !undone.requests.is_empty() {
            let making = tokio::spawn(async move { self.make_all(undone).await });
            let _ = timeout(PATIENCE, making).await;
        }
    }

    /// Makes requests that stand.
    async fn make_all(&self, undone: Undone) {
        let mut all_made = true;
        for request in &undone.requests {
            if !self.session.still_stands(request) {
                continue;
            }
            // Anew for each: one may take long, and another table be in use then.
            let Some(gateway) = self.gateway() else {
                return;
            };
            match self.make(&gateway, request, undone.in_part).await {
                // Withdrawn meanwhile, it was withdrawn before it was made.
                Ok(()) if !self.session.still_stands(request) => {
                    self.withdraw(gateway, request).await;
                }
                Ok(()) => {}
                Err(error) => {
                    all_made = false;
                    let what = "what a session has asked for cannot be made again yet";
                    tracing::debug!(%error, "{what}");
                }
            }
        }
        self.session.has_caught_up(all_made);
    }

    /// Makes one, unless it was made here before and still is, `in_part`. What the backend has
    /// against it is its last word.
    async fn make(
        &self,
        gateway: &Arc<Gateway>,
        request: &Bytes,
        in_part: bool,
    ) -> Result<(), CallError> {
        // Only that tells whose resource it is.
        gateway.fresh_index().await;
        let Some(call) = self.call(request.clone()) else {
            return Ok(());
        };
        let route = route(gateway, &call).ok();
        if in_part && self.is_made(route.as_ref(), &call) {
            return Ok(());
        }
        let backend = route.map(|route| route.backend);
        let _room = match &backend {
            Some(backend) => backend.room_for_unasked().await,
            None => None,
        };
        match stack::answer(&self.node, gateway.clone(), call).await? {
            Reply::Whole(_) | Reply::Parts(_) => {}
            Reply::Stream(mut messages) => {
                while let Some(message) = messages.next().await {
                    message?;
                }
            }
        }
        Ok(())
    }

    /// Whether what was made here before still is.
    fn is_made(&self, route: Option<&Route>, call: &Call) -> bool {
        let uri = call.message.uri;
        let uri = uri.and_then(|uri| envelope::string_value(&call.body, uri));
        match (uri, route) {
            (Some(uri), Some(route)) => self.session.is_subscribed(route.backend.serial, &uri),
            (Some(_), None) => false,
            // A level of logs is the session's own.
            (None, _) => true,
        }
    }

    /// Ends a subscription whose client has done so while it was being made.
    async fn withdraw(&self, gateway: Arc<Gateway>, request: &Bytes) {
        let uri = envelope::scan(request).ok().and_then(|message| message.uri);
        let Some(uri) = uri else {
            return;
        };
        let body = [
            &br#"{"jsonrpc":"2.0","id":0,"method":"resources/unsubscribe","params":{"uri":"#[..],
            uri.of(request),
            b"}}",
        ];
        if let Some(call) = self.call(body.concat().into()) {
            // It was told that it has ended already.
            let _ = stack::answer(&self.node, gateway, call).await;
        }
    }

    fn call(&self, body: Bytes) -> Option<Call> {
        let message = envelope::scan(&body).ok()?;
        let (session, principal) = (self.session.clone(), self.principal.clone());
        (message.kind == Kind::Request)
            .then(|| call(self.worker, principal, session, body, message))
    }
}

/// Whether a gateway is that of the table in use.
pub(super) fn is_current(node: &Node, gateway: &Arc<Gateway>) -> bool {
    let table = node.table.load();
    let current = table.gateway(&gateway.path);
    current.is_some_and(|current| Arc::ptr_eq(current, gateway))
}
