//! [`Failure`]: why a verb did not succeed, and the exit code that says so.

use fleet_proto::{v1, validate::Problem};
use prost::Message as _;
use tonic::{Code, Status};

/// Why a verb did not succeed. The text is for stderr.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for something that cannot be.
    #[error("error: {0}")]
    Usage(String),
    /// The configuration is invalid: every problem, each with its place.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// Somebody else wrote first.
    #[error("error: {0}")]
    Conflict(String),
    /// Nodes did not answer in time.
    #[error("error: {0}")]
    TimedOut(String),
    /// A node refused the revision, or serves it with something missing.
    #[error("error: {0}")]
    Refused(String),
    /// A token is missing, unknown, or not good enough.
    #[error("error: {0}")]
    NotAllowed(String),
    /// The control plane or the gateway cannot be reached.
    #[error("error: {0}")]
    Unreachable(String),
    /// stdout says it already; only the exit code is left to tell.
    #[error("")]
    Told,
    /// What went wrong where 1 is an answer.
    #[error(transparent)]
    Trouble(Box<Failure>),
    /// Anything else.
    #[error("error: {0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// The exit code of the process, a promise to scripts.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Told | Self::Other(_) => 1,
            Self::Usage(_) | Self::Trouble(_) => 2,
            Self::Invalid(_) => 3,
            Self::Conflict(_) => 4,
            Self::TimedOut(_) => 5,
            Self::Refused(_) => 6,
            Self::NotAllowed(_) => 7,
            Self::Unreachable(_) => 8,
        }
    }

    /// Any other failure, in words.
    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self::Other(anyhow::Error::msg(text.into()))
    }
}

/// The problems that a refused write carries in its status details.
pub(crate) fn problems_of(status: &Status) -> Vec<Problem> {
    if status.code() != Code::InvalidArgument || status.details().is_empty() {
        return Vec::new();
    }
    v1::ApplyResponse::decode(status.details())
        .map(|r| r.problems.iter().map(Problem::from_wire).collect())
        .unwrap_or_default()
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let text = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument => {
                let problems = problems_of(&status);
                if problems.is_empty() {
                    Self::Invalid(vec![format!("error: {text}")])
                } else {
                    Self::Invalid(problems.iter().map(ToString::to_string).collect())
                }
            }
            Code::Aborted => Self::Conflict(text),
            Code::Unauthenticated | Code::PermissionDenied => {
                Self::NotAllowed(format!("the control plane refused: {text}"))
            }
            Code::Unavailable => {
                Self::Unreachable(format!("the control plane cannot do it now: {text}"))
            }
            // What the client's own time limit looks like.
            Code::Cancelled | Code::DeadlineExceeded => {
                Self::Unreachable(format!("the control plane did not answer in time: {text}"))
            }
            _ => Self::other(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_become_the_promised_exit_codes() {
        let code = |c| Failure::from(Status::new(c, "x")).exit_code();
        assert_eq!(code(Code::InvalidArgument), 3);
        assert_eq!(code(Code::Aborted), 4);
        assert_eq!(code(Code::Unauthenticated), 7);
        assert_eq!(code(Code::PermissionDenied), 7);
        assert_eq!(code(Code::Unavailable), 8);
        assert_eq!(code(Code::NotFound), 1);
    }

    #[test]
    fn a_refused_write_lists_every_problem() {
        let problem = |path: &str| v1::Problem {
            path: path.to_owned(),
            message: "bad".to_owned(),
            ..Default::default()
        };
        let details = v1::ApplyResponse {
            problems: vec![problem("a"), problem("b")],
            ..Default::default()
        };
        let status = Status::with_details(
            Code::InvalidArgument,
            "2 problems",
            details.encode_to_vec().into(),
        );
        let Failure::Invalid(lines) = Failure::from(status) else {
            panic!("not invalid")
        };
        assert_eq!(lines.len(), 2);
    }
}
