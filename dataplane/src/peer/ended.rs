//! Sessions that have ended, told from data plane to data plane: their ids would open
//! everywhere, and none may be taken up again.
//!
//! Each tells each of its peers, on a stream that the other one has opened: first all
//! that it knows of, then those that end, as text: a line `NAME EXPIRES` for a session,
//! `* EXPIRES` for all that expire by then (seconds since 1970-01-01 UTC).

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::{broadcast, watch};

use crate::{
    body::Events,
    node::Node,
    session::{Session, Sessions},
    upstream,
};

/// Longest line that a peer may send.
const LONGEST: usize = 256;
/// Names in one frame of the first part.
const TOGETHER: usize = 512;

/// What to tell a peer, until this node stops or too much waits to be told: then the peer
/// asks anew.
pub(super) fn tell(sessions: &Sessions, mut until: watch::Receiver<bool>) -> Events {
    let endings = sessions.endings();
    let all = format!("* {}\n", endings.all_until);
    let known: Vec<_> = endings
        .known
        .chunks(TOGETHER)
        .map(|names| names.iter().map(line).collect::<String>())
        .collect();
    let known = stream::iter([all].into_iter().chain(known));
    let news = stream::unfold(endings.news, async |mut news| {
        let first: (Arc<str>, u64) = news.recv().await.ok()?;
        let mut text = line(&first);
        loop {
            match news.try_recv() {
                Ok(next) => text += &line(&next),
                Err(broadcast::error::TryRecvError::Empty) => return Some((text, news)),
                // What was missed is told from the start.
                Err(_) => return None,
            }
        }
    });
    let stopped = async move {
        // The sender being gone means the same.
        let _ = until.wait_for(|stop| *stop).await;
    };
    let told = known.chain(news).map(Bytes::from);
    Box::pin(told.take_until(Box::pin(stopped)))
}

fn line((name, expires): &(Arc<str>, u64)) -> String {
    format!("{name} {expires}\n")
}

/// What a peer has told, as it arrives.
#[derive(Default)]
pub(super) struct Told {
    rest: Vec<u8>,
    names: HashMap<String, u64>,
    all_until: u64,
}

/// A peer says what no version says.
#[derive(Debug, thiserror::Error)]
#[error("it tells of ended sessions what is not understood here")]
pub(super) struct NotUnderstood;

impl Told {
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), NotUnderstood> {
        self.rest.extend_from_slice(bytes);
        let end = self.rest.iter().rposition(|byte| *byte == b'\n');
        let lines = end.map_or(0, |end| end + 1);
        for line in self.rest[..lines].split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let line = std::str::from_utf8(line).ok();
            let (name, expires) = line
                .and_then(|line| line.split_once(' '))
                .ok_or(NotUnderstood)?;
            let expires = expires.parse().map_err(|_| NotUnderstood)?;
            if name == "*" {
                self.all_until = self.all_until.max(expires);
            } else if name.len() > LONGEST {
                return Err(NotUnderstood);
            } else {
                self.names.insert(name.to_owned(), expires);
            }
        }
        self.rest.drain(..lines);
        if self.rest.len() > 2 * LONGEST {
            return Err(NotUnderstood);
        }
        Ok(())
    }

    /// Holds what has arrived whole against the sessions here.
    pub(super) fn apply(&mut self, node: &Arc<Node>) {
        let names = std::mem::take(&mut self.names);
        if !names.is_empty() || self.all_until > 0 {
            close(node, &node.sessions.ended_elsewhere(names, self.all_until));
        }
    }
}

/// Ends what sessions that are over have upstream.
pub(crate) fn close(node: &Arc<Node>, gone: &[Arc<Session>]) {
    for session in gone {
        for live in session.upstreams().iter().filter_map(|slot| slot.take()) {
            upstream::http::end_in_background(node.background_worker(), live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::ProtocolVersion, sealed::KeyRing};

    fn sessions() -> Sessions {
        Sessions::new(KeyRing::of(&[[1; 32]]))
    }

    fn create(sessions: &Sessions) -> String {
        let version = ProtocolVersion::V2025_06_18;
        sessions.create("p/a", "p", version, b"{}", b"{}").unwrap()
    }

    #[tokio::test]
    async fn what_has_ended_and_what_ends_is_told_and_found_nowhere_again() {
        let (here, there) = (sessions(), sessions());
        let ids: Vec<_> = (0..1_500).map(|_| create(&here)).collect();
        let end = |id: &String| {
            let session = here.find(id, "p/a", "p").unwrap();
            here.end(id, &session);
        };
        // One is in use there.
        assert!(there.find(&ids[0], "p/a", "p").is_some());
        ids[..1_400].iter().for_each(end);
        let (stop, stopped) = watch::channel(false);
        let mut told = tell(&here, stopped);
        ids[1_400..].iter().for_each(end);
        let mut heard = Told::default();
        while heard.names.len() < ids.len() {
            let bytes = told.next().await.unwrap();
            // However it is cut.
            for byte in bytes.chunks(7) {
                heard.add(byte).unwrap();
            }
        }
        let gone = there.ended_elsewhere(std::mem::take(&mut heard.names), heard.all_until);
        assert_eq!(gone.len(), 1, "the one in use");
        assert!(ids.iter().all(|id| there.find(id, "p/a", "p").is_none()));
        assert!(there.find(&create(&here), "p/a", "p").is_some());
        stop.send_replace(true);
        assert!(told.next().await.is_none());
    }

    #[test]
    fn what_no_peer_says_is_not_taken() {
        for odd in [
            "name\n",
            "name x\n",
            "name -1\n",
            "\u{ff} \n",
            &"n".repeat(600),
        ] {
            assert!(Told::default().add(odd.as_bytes()).is_err(), "{odd}");
        }
    }
}
