//! [`Streams`]: on what a session's client is sent events.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

use super::{Session, Shared, resume::StreamId, stream::Stream};
use crate::catalog::announce::Seen;

/// Streams of a session that are kept after their end.
pub(super) const MOST: usize = 8;
/// Bytes of all streams of a node that are kept after their end.
const ALL_BYTES: usize = 64 << 20;

/// The streams of a session.
#[derive(Default)]
pub(super) struct Streams {
    /// Those of calls.
    calls: Vec<Arc<Stream>>,
    /// That of GET, for what belongs to no call.
    general: Option<Arc<Stream>>,
    /// The lists that its reader knows of.
    seen: Option<Seen>,
}

/// Bytes of a stream that has ended, as part of [`ALL_BYTES`].
pub(super) struct Kept {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.shared.kept.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Session {
    /// A stream for a call. It can be resumed for `grace` after its reader has gone.
    #[must_use]
    pub fn call_stream(&self, grace: Duration) -> Arc<Stream> {
        let stream = Arc::new(Stream::new(StreamId::new(true), grace));
        if !grace.is_zero() {
            let mut streams = self.streams.lock();
            streams.forget_over();
            streams.calls.push(stream.clone());
        }
        stream
    }

    /// The stream of a GET that resumes none. The one before it is closed: a session has
    /// one at a time, as each message may go to one only (2025-11-25, Transports:
    /// Multiple Connections).
    #[must_use]
    pub fn general_stream(&self, grace: Duration, seen: Seen) -> Arc<Stream> {
        let stream = Arc::new(Stream::new(StreamId::new(false), grace));
        let before = {
            let mut streams = self.streams.lock();
            streams.seen = Some(seen);
            streams.general.replace(stream.clone())
        };
        if let Some(before) = before {
            before.close();
        }
        stream
    }

    /// A stream that a client wants to resume, where it is still there.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<Arc<Stream>> {
        let streams = self.streams.lock();
        let mut all = streams.calls.iter().chain(&streams.general);
        let found = all.find(|stream| stream.id == id && !stream.is_over());
        // What belongs to no call has no rest: the next such stream goes on with it.
        let found = found.filter(|stream| id.of_call || !stream.has_ended());
        found.cloned()
    }

    /// Notes which lists its client knows of from now on, and gives what it knew before.
    pub(crate) fn sees(&self, lists: Seen) -> Option<Seen> {
        self.streams.lock().seen.replace(lists)
    }

    /// Whether a client takes what belongs to no call.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        if let Some(leased) = &self.leased {
            return !leased.is_over();
        }
        let streams = self.streams.lock();
        let general = streams.general.as_ref();
        general.is_some_and(|s| !s.is_over() && !s.has_ended())
    }

    /// Resolves when no client takes what belongs to no call any more.
    pub async fn listens_no_more(&self) {
        if let Some(leased) = &self.leased {
            return leased.over().await;
        }
        loop {
            let general = self.streams.lock().general.clone();
            match general {
                Some(stream) if !stream.is_over() && !stream.has_ended() => {
                    tokio::select! {
                        () = stream.abandoned() => {}
                        () = stream.ended() => {}
                    }
                }
                _ => return,
            }
        }
    }

    /// Gives a client what belongs to no call. `false`: nobody takes it.
    pub fn unsolicited(&self, message: Bytes) -> bool {
        if let Some(leased) = &self.leased {
            return leased.ask(message);
        }
        let general = self.streams.lock().general.clone();
        general.is_some_and(|stream| stream.offer(message))
    }

    /// Notes that a stream of a call has ended. It is kept for who wants to resume it,
    /// as long as that is not too much for the session and the node.
    pub fn ended_stream(&self, stream: &Arc<Stream>) {
        let bytes = stream.bytes();
        let fits = self.shared.kept.fetch_add(bytes, Ordering::Relaxed) + bytes <= ALL_BYTES;
        let shared = self.shared.clone();
        // Given back when it is dropped, here and now where there is no room for it.
        let kept = Kept { shared, bytes };
        let fits = fits && stream.kept.set(kept).is_ok();
        let mut streams = self.streams.lock();
        if !fits {
            streams.calls.retain(|kept| !Arc::ptr_eq(kept, stream));
        }
        streams.forget_over();
    }

    /// Closes all streams: the session is over.
    pub(super) fn close_streams(&self) {
        self.is_over.store(true, Ordering::Release);
        self.forget_standing();
        *self.subscribed.lock() = Default::default();
        let streams = std::mem::take(&mut *self.streams.lock());
        for stream in streams.calls.iter().chain(&streams.general) {
            stream.close();
        }
    }

    /// Forgets streams that nobody can read any more. Returns whether a client listens.
    pub(super) fn sweep_streams(&self) -> bool {
        self.streams.lock().forget_over();
        self.is_listening()
    }
}

impl Streams {
    /// Of those that have ended, the newest stay.
    fn forget_over(&mut self) {
        self.calls.retain(|stream| !stream.is_over());
        let ended = self.calls.iter().filter(|stream| stream.has_ended());
        let mut surplus = ended.count().saturating_sub(MOST);
        self.calls.retain(|stream| {
            let goes = surplus > 0 && stream.has_ended();
            surplus -= usize::from(goes);
            !goes
        });
    }
}
