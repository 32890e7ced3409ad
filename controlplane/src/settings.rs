//! What a control plane is told at start.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use crate::{
    api::auth::Role,
    listen::tls::TlsSource,
    vault::{StoreKey, StoreKeyError},
};

mod database;

pub use database::{Database, Postgres};

/// Shortest token an operator may choose.
const SHORTEST_TOKEN: usize = 16;
/// The shortest and the longest life of a node's certificate.
const LIFETIMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(30 * 24));

/// Listeners, database and tokens of a control plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the gRPC API and of the sync stream; port 0 takes a free one.
    pub grpc_listen: SocketAddr,
    /// Address of the REST API; port 0 takes a free one. `None`: there is none, for
    /// a process that embeds a control plane.
    pub rest_listen: Option<SocketAddr>,
    /// A SQLite file, whose folder must exist, or a Postgres.
    pub database: Database,
    /// What is secret in the database is sealed under it. `None`: a file beside the
    /// database, which the first start makes; a Postgres needs one.
    pub store_key: Option<StoreKey>,
    /// TLS of both listeners; `None`: there is none, and data planes cannot join.
    pub tls: Option<TlsSource>,
    /// How long the certificate of a data plane is good.
    pub node_certificate_lifetime: Duration,
    /// Allows a listener beyond loopback although tokens travel unencrypted.
    pub insecure: bool,
    /// Admin token to use instead of a generated one.
    pub admin_token: Option<String>,
    /// Node token to use instead of a generated one.
    pub node_token: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grpc_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8182)),
            rest_listen: None,
            database: Database::Sqlite(PathBuf::from("./mcp-fleet.db")),
            store_key: None,
            tls: None,
            node_certificate_lifetime: Duration::from_hours(24),
            insecure: false,
            admin_token: None,
            node_token: None,
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Tokens would cross the network unencrypted.
    #[error(
        "the listener {0} is reachable from other machines and would take tokens unencrypted: \
         give --tls-name NAME or --tls-cert and --tls-key, listen on a loopback address, or allow it with \
         --insecure (behind a TLS proxy or on a private network)"
    )]
    NotLoopback(SocketAddr),
    /// No certificate can be made for it.
    #[error("--tls-name {0:?}: it is neither a DNS name nor an IP address")]
    TlsName(String),
    /// Too short to be renewed in time, or too long to be of use.
    #[error("--node-certificate-lifetime {0:?}: it must be between 1s and 30 days")]
    CertificateLifetime(Duration),
    /// A token that is too easy to guess or cannot be sent.
    #[error(
        "the {role} token given {what}: use at least {SHORTEST_TOKEN} visible ASCII characters without spaces"
    )]
    Token {
        /// `admin` or `node`.
        role: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A text that names no database.
    #[error(
        "the database given {what}: use a path, or postgres://USER@HOST/DATABASE \
         (--database, MCP_FLEET_DATABASE)"
    )]
    Database {
        /// What is wrong with it.
        what: String,
    },
    /// One token for both roles: every node could change the configuration.
    #[error("the admin token and the node token given are the same: choose two different ones")]
    SameToken,
    /// A database that is shared has no key of its own.
    #[error(transparent)]
    StoreKey(#[from] StoreKeyError),
}

impl Settings {
    /// Checks what can be checked before anything is opened.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let mut listeners = [Some(self.grpc_listen), self.rest_listen]
            .into_iter()
            .flatten();
        if let Some(open) = listeners.find(|address| !address.ip().is_loopback())
            && !self.insecure
            && self.tls.is_none()
        {
            return Err(SettingsError::NotLoopback(open));
        }
        if matches!(self.database, Database::Postgres(_)) && self.store_key.is_none() {
            return Err(StoreKeyError::None.into());
        }
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        let lifetime = self.node_certificate_lifetime;
        if !(LIFETIMES.0..=LIFETIMES.1).contains(&lifetime) {
            return Err(SettingsError::CertificateLifetime(lifetime));
        }
        for role in Role::ALL {
            if let Some(token) = self.token(role) {
                let what = if token.len() < SHORTEST_TOKEN {
                    "is too short"
                } else if !token.bytes().all(|b| b.is_ascii_graphic()) {
                    "holds characters that no header can carry"
                } else {
                    continue;
                };
                return Err(SettingsError::Token {
                    role: role.as_str(),
                    what,
                });
            }
        }
        if self.admin_token.is_some() && self.admin_token == self.node_token {
            return Err(SettingsError::SameToken);
        }
        Ok(())
    }

    /// The token given for a role.
    pub(crate) fn token(&self, role: Role) -> Option<&str> {
        match role {
            Role::Admin => self.admin_token.as_deref(),
            Role::Node => self.node_token.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_beyond_loopback_must_be_allowed() {
        let mut settings = Settings {
            grpc_listen: "0.0.0.0:8182".parse().unwrap(),
            ..Settings::default()
        };
        let error = settings.check().unwrap_err().to_string();
        assert!(
            error.contains("0.0.0.0:8182") && error.contains("--insecure"),
            "{error}"
        );
        settings.insecure = true;
        settings.check().unwrap();
        let rest = Settings {
            rest_listen: Some("[::]:8181".parse().unwrap()),
            ..Settings::default()
        };
        let error = rest.check().unwrap_err().to_string();
        assert!(error.contains("[::]:8181"), "{error}");
        Settings {
            grpc_listen: "[::1]:1".parse().unwrap(),
            ..Settings::default()
        }
        .check()
        .unwrap();
    }

    #[test]
    fn weak_or_equal_tokens_are_refused() {
        let with = |admin: &str, node: &str| {
            let admin_token = Some(admin.to_owned());
            Settings {
                admin_token,
                node_token: Some(node.to_owned()),
                ..Settings::default()
            }
            .check()
        };
        let good = "0123456789abcdef";
        assert!(matches!(
            with("short", good),
            Err(SettingsError::Token { role: "admin", .. })
        ));
        assert!(matches!(
            with(good, "with a space in the middle"),
            Err(SettingsError::Token { role: "node", .. })
        ));
        assert!(matches!(with(good, good), Err(SettingsError::SameToken)));
        with(good, "fedcba9876543210").unwrap();
    }
}
