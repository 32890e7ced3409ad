//! Sessions that have ended, told from data plane to data plane: their ids would open
//! everywhere, and none may be taken up again.
//!
//! Each tells each of its peers, on a stream that the other one has opened: first all
//! that it knows of, then those that end, as text: a line `NAME EXPIRES OWNER` for a
//! session, `* EXPIRES OWNER` for all of an owner that expire by then, `* EXPIRES` for
//! everybody's (seconds since 1970-01-01 UTC).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::{broadcast, watch};

use crate::{
    body::Events,
    node::Node,
    session::{Ended, Ending, Session, Sessions},
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
    let known: Vec<_> = endings
        .known
        .chunks(TOGETHER)
        .map(|endings| endings.iter().map(line).collect::<String>())
        .collect();
    let news = stream::unfold(endings.news, async |mut news| {
        let first = news.recv().await.ok()?;
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
    let told = stream::iter(known).chain(news).map(Bytes::from);
    Box::pin(told.take_until(Box::pin(stopped)))
}

fn line(ending: &Ending) -> String {
    match ending {
        Ending::One {
            owner,
            name,
            expires,
        } => format!("{name} {expires} {owner}\n"),
        Ending::Until {
            owner: Some(owner),
            expires,
        } => format!("* {expires} {owner}\n"),
        Ending::Until {
            owner: None,
            expires,
        } => format!("* {expires}\n"),
    }
}

fn read(line: &[u8]) -> Option<Ending> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (name, expires) = (words.next()?, words.next()?.parse().ok()?);
    let owner = words.next().map(str::parse).transpose().ok()?;
    let ending = match (name, owner) {
        ("*", owner) => Ending::Until { owner, expires },
        (name, Some(owner)) if name.len() <= LONGEST => Ending::One {
            owner,
            name: name.into(),
            expires,
        },
        _ => return None,
    };
    words.next().is_none().then_some(ending)
}

/// What a peer has told, as it arrives.
#[derive(Default)]
pub(super) struct Told {
    rest: Vec<u8>,
    ended: Ended,
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
            if !line.is_empty() {
                self.ended.add(read(line).ok_or(NotUnderstood)?);
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
        let ended = std::mem::take(&mut self.ended);
        if !ended.is_empty() {
            close(node, &node.sessions.ended_elsewhere(&ended));
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
        while heard.ended.endings().count() <= ids.len() {
            let bytes = told.next().await.unwrap();
            // However it is cut.
            for byte in bytes.chunks(7) {
                heard.add(byte).unwrap();
            }
        }
        let gone = there.ended_elsewhere(&heard.ended);
        assert_eq!(gone.len(), 1, "the one in use");
        assert!(ids.iter().all(|id| there.find(id, "p/a", "p").is_none()));
        assert!(there.find(&create(&here), "p/a", "p").is_some());
        stop.send_replace(true);
        assert!(told.next().await.is_none());
    }

    #[test]
    fn what_is_told_is_understood_as_it_was_meant() {
        let of = |owner: &str| format!("{owner:0>32}").parse().unwrap();
        let (owner, expires) = (of("a1"), 17);
        for ending in [
            Ending::One {
                owner,
                name: "0123456789ab".into(),
                expires,
            },
            Ending::Until {
                owner: Some(owner),
                expires,
            },
            Ending::Until {
                owner: None,
                expires,
            },
        ] {
            assert_eq!(read(line(&ending).trim().as_bytes()), Some(ending));
        }
    }

    #[test]
    fn what_no_peer_says_is_not_taken() {
        for odd in [
            "name\n",
            "name x\n",
            "name 1\n",
            "name 1 a\n",
            "* 1 00000000000000000000000000000000 x\n",
            "name -1 00000000000000000000000000000000\n",
            "\u{ff} \n",
            &"n".repeat(600),
        ] {
            assert!(Told::default().add(odd.as_bytes()).is_err(), "{odd}");
        }
    }
}
