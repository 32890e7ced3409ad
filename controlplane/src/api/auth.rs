//! Who may call, and what: tokens of the API, and node tokens for the stream.
//!
//! Tokens are 256 random bits; only their SHA-256 is kept. Each role of the control
//! plane itself has one base token, given in the settings or generated at the first
//! start, and may have one that `mcpctl up` makes anew at each of its starts. All
//! others are made by `CreateToken` (`api/tokens.rs`), with a role, projects and an
//! expiry of their own.

use std::fmt;

use fleet_proto::v1::TokenRole;

mod caller;
mod guard;
mod known;

pub(crate) use caller::{Caller, Denied};
pub(crate) use guard::Guarded;
pub(crate) use known::{Refused, TokenError, Tokens, generate, wire};

/// Which door a base token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The API, all of it.
    Admin,
    /// The stream: receives configuration.
    Node,
}

impl Role {
    pub(crate) const ALL: [Self; 2] = [Self::Admin, Self::Node];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a token of the API may do; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// Reads.
    Viewer,
    /// Writes configuration.
    Editor,
    /// Makes and revokes tokens.
    Admin,
}

impl Access {
    const ALL: [Self; 3] = [Self::Viewer, Self::Editor, Self::Admin];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|access| access.as_str() == text)
    }

    /// `None`: not said, or not known.
    pub(crate) const fn from_wire(role: TokenRole) -> Option<Self> {
        match role {
            TokenRole::Unspecified => None,
            TokenRole::Viewer => Some(Self::Viewer),
            TokenRole::Editor => Some(Self::Editor),
            TokenRole::Admin => Some(Self::Admin),
        }
    }

    pub(crate) const fn to_wire(self) -> TokenRole {
        match self {
            Self::Viewer => TokenRole::Viewer,
            Self::Editor => TokenRole::Editor,
            Self::Admin => TokenRole::Admin,
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
