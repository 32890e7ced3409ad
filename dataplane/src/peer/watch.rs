//! Watches one peer: a stream on which it tells what sessions have ended is open as long
//! as it lives. That it breaks off, and no other one can be opened, is how the node
//! learns that the peer is gone, before any client has to wait for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method as Verb};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Peer, Task,
    ended::{NotUnderstood, Told},
    pool::Ask,
    relay::{ANSWERED, NOT_HERE, OUTCOME, TARGET},
    serve::ENDED,
    standing,
};
use crate::{node::Node, sealed};

/// Between two attempts: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What is told within this time is taken up together: each time all sessions are looked at.
const GATHER: Duration = Duration::from_millis(50);

/// Watches a peer until dropped.
pub(super) async fn watch(node: Arc<Node>, peer: Arc<Peer>) {
    let mut pause = PAUSE;
    loop {
        match listen(&node, &peer).await {
            // At once: this is how a peer leaves.
            Ok(()) => pause = PAUSE,
            Err(Unheard::Gone(why)) => {
                peer.leave(&why);
                sleep(jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(Unheard::Refused) => {
                sleep(jittered(LONGEST_PAUSE)).await;
            }
        }
    }
}

/// Why a peer tells nothing.
enum Unheard {
    /// It cannot be reached.
    Gone(String),
    /// It does not want to: to it this node is no peer, perhaps not yet.
    Refused,
}

/// Hears what ends, until the peer says no more.
async fn listen(node: &Arc<Node>, peer: &Arc<Peer>) -> Result<(), Unheard> {
    let target = HeaderValue::from_str(&peer.home.boot);
    let target = target.map_err(|error| Unheard::Gone(error.to_string()))?;
    let ask = Ask {
        verb: Verb::GET,
        path: ENDED.to_owned(),
        headers: HeaderMap::from_iter([(TARGET, target)]),
        body: Bytes::new(),
    };
    let sent = node.peers.send(peer, node.background_worker(), &ask).await;
    let (answer, _under_way) = sent.map_err(|error| Unheard::Gone(error.to_string()))?;
    match answer.headers().get(OUTCOME) {
        Some(outcome) if outcome == ANSWERED => {}
        Some(outcome) if outcome == NOT_HERE => {
            return Err(Unheard::Gone("another start of it is there".to_owned()));
        }
        _ => return Err(Unheard::Refused),
    }
    node.peers.is_back(peer);
    let telling = standing::tell_all(node.clone(), peer.clone());
    // As long as it is heard.
    let _telling = Task(node.background.spawn(telling).abort_handle());
    let mut body = answer.into_body();
    let mut told = Told::default();
    loop {
        let left = peer.left.notified();
        tokio::pin!(left);
        left.as_mut().enable();
        if peer.has_left() {
            // A request has not reached it: whether this stream means anything is to be seen.
            return Ok(());
        }
        let first = tokio::select! {
            frame = body.frame() => frame,
            () = left => continue,
        };
        let more = gather(first, &mut body, &mut told).await;
        told.apply(node);
        match more {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                tracing::error!(peer = peer.home.node, %error, "a peer is not heard");
                return Err(Unheard::Refused);
            }
        }
    }
}

/// Takes what comes within a moment of this first frame; whether there is more to come.
async fn gather(
    mut frame: Option<hyper::Result<Frame<Bytes>>>,
    body: &mut Incoming,
    told: &mut Told,
) -> Result<bool, NotUnderstood> {
    let until = Instant::now() + GATHER;
    loop {
        let Some(Ok(part)) = frame else {
            return Ok(false);
        };
        told.add(&part.into_data().unwrap_or_default())?;
        match timeout_at(until, body.frame()).await {
            Ok(next) => frame = next,
            Err(_) => return Ok(true),
        }
    }
}

/// Not all peers at once.
fn jittered(pause: Duration) -> Duration {
    let random = sealed::random::<1>().map_or(128, |[byte]| byte);
    pause.mul_f64(0.75 + f64::from(random) / 512.0)
}
