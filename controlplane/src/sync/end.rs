//! How a stream ends, and what the node is told.

use fleet_proto::v1::{ControlMessage, GoAway, control_message};
use tonic::Status;

/// When to come back: after a restart, soon.
const BACK_AFTER_SHUTDOWN_MS: u64 = 1000;
/// Two data planes with one id must not chase each other at full speed.
const BACK_AFTER_REPLACED_MS: u64 = 15_000;

/// Why a stream ended.
pub(super) enum End {
    Left,
    Broken(Status),
    Silent,
    Replaced,
    Shutdown,
    /// With what it came is good no longer.
    Void(String),
    /// The node does not keep to the protocol.
    Protocol(String),
}

impl End {
    /// For the log.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Left => "it left",
            Self::Broken(status) => status.message(),
            Self::Silent => "it was silent for too long",
            Self::Replaced => "a newer stream has the same node id",
            Self::Shutdown => "the control plane stops",
            Self::Void(what) | Self::Protocol(what) => what,
        }
    }

    /// What the node is told.
    pub(super) fn last_words(self) -> Option<Result<ControlMessage, Status>> {
        let go_away = |retry_after_ms| {
            Some(Ok(message(control_message::Message::GoAway(GoAway {
                retry_after_ms,
            }))))
        };
        match self {
            Self::Left | Self::Broken(_) => None,
            Self::Silent => Some(Err(Status::deadline_exceeded(self.reason().to_owned()))),
            Self::Replaced => go_away(BACK_AFTER_REPLACED_MS),
            Self::Shutdown => go_away(BACK_AFTER_SHUTDOWN_MS),
            Self::Void(why) => Some(Err(Status::unauthenticated(why))),
            Self::Protocol(what) => Some(Err(Status::invalid_argument(what))),
        }
    }
}

pub(super) fn message(body: control_message::Message) -> ControlMessage {
    ControlMessage {
        message: Some(body),
    }
}
