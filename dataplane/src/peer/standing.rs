//! Requests of sessions that stand ([`crate::session::standing`]), told to other data
//! planes before their client has the answer: one of them may have to make them again.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use http::{HeaderMap, HeaderValue, Method as Verb};
use tokio::time::timeout;

use super::{
    Peer,
    pool::Ask,
    relay::{GATEWAY, PRINCIPAL, TARGET},
};
use crate::{
    auth::Principal, node::Node, session::Session, table::Gateway,
    upstream::http::headers::SESSION_ID,
};

/// What the path of such a request begins with; the gateway's follows.
pub(super) const PATH: &str = "/standing";
/// How long the client waits for peers that do not answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Requests that are told to a new peer at a time.
const TOGETHER: usize = 16;

/// Tells all peers of a request of the session of this id.
pub(crate) async fn tell(
    node: &Node,
    gateway: &Gateway,
    id: &HeaderValue,
    session: &Session,
    request: Bytes,
) {
    let peers = node.peers.live();
    let told = peers.iter().filter_map(|peer| {
        let ask = ask(peer, gateway, id.clone(), session, request.clone())?;
        Some(async move { send(node, peer, &ask).await })
    });
    // Who has not heard takes the session up without them.
    let _ = timeout(PATIENCE, join_all(told)).await;
}

/// Tells a peer that can be reached from now on of all that stands.
pub(super) async fn tell_all(node: Arc<Node>, peer: Arc<Peer>) {
    for (id, session) in node.sessions.with_standing() {
        let table = node.table.load_full();
        let gateway = table.gateways().find(|g| g.id == session.gateway());
        let (Some(gateway), Ok(id)) = (gateway, HeaderValue::from_str(&id)) else {
            continue;
        };
        let (node, peer, session) = (&node, &peer, &*session);
        let id = &id;
        stream::iter(session.pending())
            .for_each_concurrent(TOGETHER, |request| async move {
                // What was withdrawn meanwhile has been told already.
                if session.still_stands(&request.body)
                    && let Some(ask) = ask(peer, gateway, id.clone(), session, request.body)
                {
                    send(node, peer, &ask).await;
                }
            })
            .await;
        if peer.has_left() {
            return;
        }
    }
}

async fn send(node: &Node, peer: &Peer, ask: &Ask) {
    let sent = node.peers.send(peer, node.background_worker(), ask).await;
    if let Err(error) = sent {
        tracing::debug!(peer = peer.home.node, %error, "a standing request was not told");
    }
}

fn ask(
    peer: &Peer,
    gateway: &Gateway,
    id: HeaderValue,
    session: &Session,
    body: Bytes,
) -> Option<Ask> {
    let id_of = session.principal().to_owned();
    let principal = serde_json::to_vec(&Principal { id: id_of }).ok()?;
    let principal = URL_SAFE_NO_PAD.encode(principal);
    let headers = HeaderMap::from_iter([
        (SESSION_ID, id),
        (TARGET, HeaderValue::from_str(&peer.home.boot).ok()?),
        (GATEWAY, HeaderValue::from_str(&gateway.id).ok()?),
        (PRINCIPAL, HeaderValue::from_str(&principal).ok()?),
    ]);
    Some(Ask {
        verb: Verb::POST,
        path: format!("{PATH}{}", gateway.path),
        headers,
        body,
    })
}
