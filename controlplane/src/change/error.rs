//! Why a write changed nothing.

use fleet_proto::{key::Key, validate::Problem};

use crate::{sets::SetsError, store::StoreError};

/// Why a write changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// The result would not fit together.
    #[error("{}", problems(.0))]
    Invalid(Vec<Problem>),
    /// Keys to be removed that do not exist.
    #[error("not found: {}", keys(.0))]
    Missing(Vec<Key>),
    /// Somebody else was faster.
    #[error(
        "revision {expected} was expected to be the newest, but revision {newest} is: \
         look at what changed, and try again"
    )]
    Conflict { expected: u64, newest: u64 },
    /// There is no revision to go back to.
    #[error("there is no revision {0}")]
    NoRevision(u64),
    /// It would change what the author may not.
    #[error("the write would change other projects than {}", .0.join(", "))]
    Beyond(Vec<String>),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The values of Secrets could not be read or kept.
    #[error(transparent)]
    Sets(SetsError),
    /// The write was cut off, by a panic or by shutdown.
    #[error("the write was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl From<SetsError> for ChangeError {
    fn from(error: SetsError) -> Self {
        match error {
            SetsError::Store(error) => Self::Store(error),
            other => Self::Sets(other),
        }
    }
}

fn problems(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        [] => "invalid".to_owned(),
    }
}

/// `Backend a, Backend b`, cut where it gets long.
fn keys(keys: &[Key]) -> String {
    const SHOWN: usize = 10;
    let mut text = keys
        .iter()
        .take(SHOWN)
        .map(Key::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more) = keys.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
