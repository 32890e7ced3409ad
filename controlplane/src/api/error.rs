//! Why a request was not carried out: folded once, for both doors.

use fleet_proto::validate::Problem;
use tonic::Code;

use super::auth::{Denied, Refused, TokenError};
use crate::{change::ChangeError, sets::SetsError, store::StoreError};

/// Why a request was not carried out. Each is one gRPC code and one HTTP status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request makes no sense.
    #[error("{0}")]
    Bad(String),
    /// What would result from it does not fit together.
    #[error("nothing was changed: {}", first(.0))]
    Invalid(Vec<Problem>),
    /// The caller has no good token.
    #[error(transparent)]
    Unauthenticated(#[from] Refused),
    /// The caller may not do that.
    #[error("{0}")]
    Denied(String),
    /// There is no such thing, or not for this caller.
    #[error("{0}")]
    NotFound(String),
    /// There is one already.
    #[error("{0}")]
    Exists(String),
    /// Somebody else was faster.
    #[error("{0}")]
    Conflict(String),
    /// The database is out of reach: nothing is wrong with the request.
    #[error("{0}")]
    Unavailable(String),
    /// Our own fault.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// The gRPC code.
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Bad(_) | Self::Invalid(_) => Code::InvalidArgument,
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::Denied(_) => Code::PermissionDenied,
            Self::NotFound(_) => Code::NotFound,
            Self::Exists(_) => Code::AlreadyExists,
            Self::Conflict(_) => Code::Aborted,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Internal(_) => Code::Internal,
        }
    }
}

fn first(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        [] => "invalid".to_owned(),
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Invalid(problems) => Self::Invalid(problems),
            ChangeError::Missing(_) | ChangeError::NoRevision(_) => {
                Self::NotFound(error.to_string())
            }
            ChangeError::Conflict { .. } => Self::Conflict(error.to_string()),
            ChangeError::Beyond(_) => Self::Denied(error.to_string()),
            ChangeError::Store(error) => error.into(),
            ChangeError::Sets(error) => error.into(),
            ChangeError::Interrupted(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<SetsError> for ApiError {
    fn from(error: SetsError) -> Self {
        match error {
            SetsError::Store(error) => error.into(),
            SetsError::Keys(_) => Self::Conflict(error.to_string()),
            SetsError::Vault { .. } | SetsError::Random => {
                tracing::error!(%error, "a request failed in the vault");
                Self::Internal(format!("nothing was changed: {error}"))
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a request failed in the store");
        // It may name what the caller must not see.
        if matches!(error, StoreError::Damaged { .. }) {
            return Self::Internal(
                "the database is damaged: the log of the control plane says where; restore it from a \
                 backup"
                    .to_owned(),
            );
        }
        // A commit in doubt says so itself: something may have been changed.
        if error.is_passing() {
            Self::Unavailable(error.to_string())
        } else if out_of_reach(&error) {
            Self::Unavailable(format!(
                "the database is out of reach, nothing was changed: try again later: {error}"
            ))
        } else {
            Self::Internal(error.to_string())
        }
    }
}

fn out_of_reach(error: &StoreError) -> bool {
    use sqlx::Error;
    let StoreError::Database { source, .. } = error else {
        return false;
    };
    match source {
        Error::Io(_)
        | Error::Tls(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed => true,
        // Connection exceptions, and a server that goes down (PostgreSQL, appendix A).
        Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("08") || code.starts_with("57P")),
        _ => false,
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied.to_string())
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => error.into(),
            TokenError::Random(_) => Self::Internal(error.to_string()),
        }
    }
}
