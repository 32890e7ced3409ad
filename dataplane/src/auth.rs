//! Who the client is: HTTP credentials to a [`Principal`].

pub mod bearer;
pub mod revoked;

use std::sync::{Arc, LazyLock};

use http::{HeaderMap, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};

use revoked::{Revoked, Verdict};

/// Who a client is, as far as the gateway's AuthPolicy tells. Data planes tell each other,
/// with the requests that they relay.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Principal {
    /// Stable and free of secrets: `anonymous`, or `bearer:` and the first 16
    /// hex digits of the token's SHA-256.
    pub id: String,
}

static ANONYMOUS: LazyLock<Arc<Principal>> = LazyLock::new(|| {
    Arc::new(Principal {
        id: "anonymous".to_owned(),
    })
});

/// What a gateway asks of its clients.
#[derive(Debug)]
pub enum Auth {
    /// Nothing.
    Open,
    /// A bearer token (RFC 6750).
    Bearer(bearer::Tokens),
    /// It cannot be told whether a client may enter, so none may.
    Broken,
}

/// Why a client may not enter.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    /// No credentials: 401.
    Missing,
    /// Wrong credentials: 401.
    Invalid,
    /// The policy, or what is revoked, cannot be evaluated on this node: 503.
    Unavailable,
}

impl Auth {
    /// The principal of clients that need not say who they are.
    #[must_use]
    pub fn anonymous() -> Arc<Principal> {
        ANONYMOUS.clone()
    }

    /// Whether a principal that was let in once would still be.
    #[must_use]
    pub fn still_admits(&self, principal: &Principal, project: &str, revoked: &Revoked) -> bool {
        match self {
            Self::Open => *principal == **ANONYMOUS,
            Self::Broken => false,
            Self::Bearer(tokens) => tokens
                .hash_of(principal)
                .is_some_and(|hash| revoked.verdict(project, hash) == Verdict::Good),
        }
    }

    /// Who sends these headers to a gateway of this project.
    ///
    /// # Errors
    /// The client may not enter.
    pub fn admit(
        &self,
        headers: &HeaderMap,
        project: &str,
        revoked: &Revoked,
    ) -> Result<Arc<Principal>, Denied> {
        match self {
            Self::Open => Ok(Self::anonymous()),
            Self::Broken => Err(Denied::Unavailable),
            Self::Bearer(tokens) => {
                let mut values = headers.get_all(AUTHORIZATION).iter();
                let value = values.next().ok_or(Denied::Missing)?;
                // Two of them: which one counts is a matter of taste, so neither does.
                if values.next().is_some() {
                    return Err(Denied::Invalid);
                }
                let token = bearer::token(value.as_bytes()).ok_or(Denied::Invalid)?;
                let (principal, hash) = tokens.found(token);
                let principal = principal.ok_or(Denied::Invalid)?;
                match revoked.verdict(project, &hash) {
                    Verdict::Good => Ok(principal),
                    Verdict::Revoked => Err(Denied::Invalid),
                    Verdict::Unknown => Err(Denied::Unavailable),
                }
            }
        }
    }
}
