//! [`Caller`]: who has been let in, and what they may do.

use fleet_proto::{hash::Hash, key::Key, v1};

use super::Access;

/// Somebody who has shown a good token.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The token, without its value.
    pub(crate) token: v1::Token,
    pub(super) access: Access,
    /// Address and port.
    pub(crate) peer: String,
    /// Of the token.
    pub(super) hash: Hash,
}

/// A call that is beyond a token.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Denied(String);

impl Caller {
    /// The author of what they write.
    pub(crate) fn name(&self) -> &str {
        &self.token.name
    }

    /// Their token, hashed.
    pub(crate) fn token_hash(&self) -> Hash {
        self.hash
    }

    /// The projects they are limited to; empty: none, they see all.
    pub(crate) fn projects(&self) -> &[String] {
        &self.token.projects
    }

    /// Whether they are limited to some projects.
    pub(crate) fn is_limited(&self) -> bool {
        !self.projects().is_empty()
    }

    /// Whether a project exists for them.
    pub(crate) fn sees(&self, project: &str) -> bool {
        !self.is_limited() || self.projects().iter().any(|own| own == project)
    }

    /// Whether a token for these projects is within their reach.
    pub(crate) fn covers(&self, projects: &[String]) -> bool {
        !self.is_limited() || (!projects.is_empty() && projects.iter().all(|p| self.sees(p)))
    }

    /// They must have at least this role.
    pub(crate) fn needs(&self, access: Access) -> Result<(), Denied> {
        if self.access >= access {
            return Ok(());
        }
        Err(Denied(format!(
            "this needs a token with the role {access}: token `{}` has the role {}",
            self.name(),
            self.access
        )))
    }

    /// They may write these resources.
    pub(crate) fn may_touch<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a Key>,
    ) -> Result<(), Denied> {
        match keys.into_iter().find(|key| !self.sees(&key.project)) {
            None => Ok(()),
            Some(key) => Err(Denied(format!(
                "{} {} is of project {}: {}",
                key.kind,
                key.name,
                key.project,
                self.limits()
            ))),
        }
    }

    /// What would have gone beyond their projects, without naming it.
    pub(crate) fn beyond(&self, what: &str) -> Denied {
        Denied(format!("{what} other projects: {}", self.limits()))
    }

    fn limits(&self) -> String {
        format!(
            "token `{}` is for project {} only",
            self.name(),
            self.projects().join(", ")
        )
    }
}
