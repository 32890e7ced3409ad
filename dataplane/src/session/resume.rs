//! [`Position`]: what the id of an event says, so that its stream can go on behind it
//! (2025-11-25, Transports: Resumability and Redelivery).

use serde::{Deserialize, Serialize};

use super::Session;
use crate::sealed;

const PURPOSE: &str = "event";

/// Names a stream of a session.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct StreamId {
    /// The same one never comes again, also after a restart.
    #[serde(rename = "i")]
    number: u64,
    /// Whether it is that of a call. The other one can be opened anew when it is over.
    #[serde(rename = "c")]
    pub of_call: bool,
}

impl StreamId {
    pub(super) fn new(of_call: bool) -> Self {
        let number = sealed::random::<8>().map_or(0, u64::from_be_bytes);
        Self { number, of_call }
    }
}

/// A place in a stream of a session.
#[derive(Debug, Deserialize, Serialize)]
pub struct Position {
    /// Names the session.
    #[serde(rename = "n")]
    session: String,
    /// The stream.
    #[serde(rename = "t")]
    pub stream: StreamId,
    /// The event; 0 stands before the first.
    #[serde(rename = "q")]
    pub event: u64,
}

impl Session {
    /// The id of an event, sealed; `None`: the system has no randomness, and the event
    /// goes without.
    #[must_use]
    pub fn event_id(&self, stream: StreamId, event: u64) -> Option<String> {
        let position = Position {
            session: self.name.clone(),
            stream,
            event,
        };
        self.seal(PURPOSE, position).ok()
    }

    /// The place that a `Last-Event-ID` names, if it is one of this session's.
    #[must_use]
    pub fn position(&self, id: &str) -> Option<Position> {
        let position: Position = self.open(PURPOSE, id)?;
        (position.session == self.name).then_some(position)
    }
}
