//! [`Feed`]: hears of changes in what a backend offers, as long as a client listens.
//!
//! One stream for all clients of a backend, on which it announces its changes; the lists of one
//! that offers none are asked for anew when they have grown old.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{DEFAULT_TTL, versions::Listed};
use crate::{
    backend::Backend,
    call::WorkerId,
    envelope,
    node::Node,
    session::Owner,
    upstream::{
        listening::{Backoff, Listening, Wanted},
        message::{CLIENT_INFO, modern_meta},
    },
};

/// Between two announcements that are heard: a backend that floods with them waits.
const PACE: Duration = Duration::from_millis(100);
/// What a backend is asked to announce.
const ALL: &str =
    r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}"#;

/// The feed of one backend.
#[derive(Default)]
pub(crate) struct Feed(Mutex<Weak<Following>>);

/// Keeps a feed open.
pub(crate) struct Following(AbortHandle);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens the feed of a backend, or joins those who have.
pub(crate) fn follow(node: &Node, backend: &Arc<Backend>) -> Arc<Following> {
    let mut following = backend.catalog.feed.0.lock();
    if let Some(open) = following.upgrade() {
        return open;
    }
    let (weak, worker) = (Arc::downgrade(backend), node.background_worker());
    let room = node.feeds.clone();
    let task = node.background.spawn(async move {
        tokio::join!(renew(weak.clone()), hear(weak, worker, room));
    });
    let open = Arc::new(Following(task.abort_handle()));
    *following = Arc::downgrade(&open);
    open
}

/// Looks after lists that nobody asks for while all wait to be told.
async fn renew(backend: Weak<Backend>) {
    while let Some(backend) = backend.upgrade() {
        backend.catalog.touch();
        drop(backend);
        sleep(DEFAULT_TTL).await;
    }
}

async fn hear(backend: Weak<Backend>, worker: WorkerId, room: Arc<Semaphore>) {
    let mut backoff = Backoff::default();
    let mut again = false;
    loop {
        let opened = Instant::now();
        {
            let Some(upstream) = backend.upgrade().map(|b| b.upstream.clone()) else {
                return;
            };
            let Ok(_room) = room.acquire().await else {
                return;
            };
            let wanted = Wanted {
                meta: &modern_meta(CLIENT_INFO),
                filter: ALL,
                uris: &[],
                owner: Owner::default(),
            };
            match upstream.subscribe(worker, wanted).await {
                Ok(Some(stream)) => heard(&backend, stream, again).await,
                // It announces nothing; what it speaks may change.
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "a backend's changes are not heard of"),
            }
        }
        again = true;
        backoff.was_open_for(opened.elapsed());
        sleep(backoff.next()).await;
    }
}

/// One stream to its end.
async fn heard(backend: &Weak<Backend>, mut stream: Listening, again: bool) {
    while let Some(message) = stream.next().await {
        let Ok(scanned) = envelope::scan(&message) else {
            continue;
        };
        let Some(backend) = backend.upgrade() else {
            return;
        };
        let method = scanned.method.map_or(&b""[..], |m| m.of(&message));
        match Listed::of(method) {
            Some(kind) => backend.catalog.announced(kind),
            // What has changed while nobody heard of it.
            None if again && method == b"notifications/subscriptions/acknowledged" => {
                backend.catalog.want();
            }
            None => continue,
        }
        drop(backend);
        sleep(PACE).await;
    }
}
