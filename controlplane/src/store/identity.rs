//! Who may be a node: the CA, join tokens and certificates, as they are kept.
//!
//! Every write that changes who may is one transaction, which first takes the lock
//! of `identity_version`: of two that race, one sees what the other has done.

use std::time::Duration;

use fleet_proto::hash::Hash;
use futures_util::future::BoxFuture;
use subtle::ConstantTimeEq;

use super::{AuditRow, StoreError};

/// A certificate can be renewed for so long after its end.
pub(crate) const RENEWABLE: Duration = Duration::from_hours(30 * 24);

/// The part of a [`Store`](super::Store) about identities.
pub(crate) trait IdentityStore {
    /// The CA; `None`: there is none yet.
    fn ca(&self) -> BoxFuture<'_, Result<Option<CaRow>, StoreError>>;

    /// Keeps a CA unless there is one; gives back the one that is kept.
    fn add_ca(&self, ca: CaRow) -> BoxFuture<'_, Result<CaRow, StoreError>>;

    /// Keeps the key of the CA sealed otherwise, if it is still sealed like `was`.
    fn reseal_ca(&self, was: Vec<u8>, now: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All join tokens, newest first.
    fn join_tokens(&self) -> BoxFuture<'_, Result<Vec<JoinTokenRow>, StoreError>>;

    /// The join token of an id.
    fn join_token(&self, id: String) -> BoxFuture<'_, Result<Option<JoinTokenRow>, StoreError>>;

    /// Adds a join token and an entry of the audit log.
    fn add_join_token(
        &self,
        token: JoinTokenRow,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Revokes a join token that is good at this time, and adds an entry of the audit
    /// log. `false`, and nothing is written: it is not good, or there is none.
    fn revoke_join_token(
        &self,
        id: String,
        at_ms: u64,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Uses up a join token and keeps the certificate that it was used for.
    fn join(
        &self,
        attempt: Attempt,
        certificate: CertificateRow,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<Result<(), Turned>, StoreError>>;

    /// Keeps the next certificate of the node that holds the one of this serial
    /// number, which must be good or renewable.
    fn renew(
        &self,
        serial: String,
        certificate: CertificateRow,
    ) -> BoxFuture<'_, Result<Result<(), Turned>, StoreError>>;

    /// The certificate of a serial number.
    fn certificate(
        &self,
        serial: String,
    ) -> BoxFuture<'_, Result<Option<CertificateRow>, StoreError>>;

    /// Revokes all certificates of a node, and adds an entry of the audit log. How
    /// many of them had not expired; `None`: the node has never joined.
    fn revoke_node(
        &self,
        node_id: String,
        at_ms: u64,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<Option<u32>, StoreError>>;

    /// What was written since this number. For 0: all nodes that have joined, and
    /// all certificates that are revoked or have not expired at this time.
    fn identities_since(
        &self,
        version: u64,
        at_ms: u64,
    ) -> BoxFuture<'_, Result<IdentityNews, StoreError>>;

    /// Forgets certificates and join tokens that had expired by this time.
    fn forget_expired(&self, before_ms: u64) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// The CA of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaRow {
    /// DER.
    pub(crate) certificate: Vec<u8>,
    /// PKCS #8, sealed.
    pub(crate) private_key: Vec<u8>,
}

/// A join token, hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinTokenRow {
    pub(crate) id: String,
    /// SHA-256 of its secret.
    pub(crate) hash: Hash,
    /// Empty: any that is new.
    pub(crate) node_id: String,
    pub(crate) created_ms: u64,
    pub(crate) created_by: String,
    pub(crate) expires_ms: u64,
    pub(crate) used_ms: Option<u64>,
    /// Empty: nobody.
    pub(crate) used_by: String,
    pub(crate) revoked_ms: Option<u64>,
}

impl JoinTokenRow {
    /// Whether it can be used at this time.
    pub(crate) fn is_good(&self, at_ms: u64) -> bool {
        self.used_ms.is_none() && self.revoked_ms.is_none() && self.expires_ms > at_ms
    }
}

/// A certificate of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateRow {
    /// Hex.
    pub(crate) serial: String,
    pub(crate) node_id: String,
    pub(crate) issued_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) revoked_ms: Option<u64>,
}

/// Somebody who shows a join token.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) token_id: String,
    /// SHA-256 of the secret shown.
    pub(crate) hash: Hash,
    pub(crate) node_id: String,
    pub(crate) at_ms: u64,
}

/// Why somebody gets no certificate. For the log: callers are not told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Turned {
    #[error("there is no such token")]
    Unknown,
    #[error("its secret is another one")]
    Secret,
    #[error("it has been used")]
    Used,
    #[error("it has been revoked")]
    Revoked,
    #[error("it has expired")]
    Expired,
    #[error("it is for another node")]
    OtherNode,
    /// The one reason that is told: the token is good, and not for this.
    #[error("the node has joined before")]
    Taken,
    #[error("there is no such certificate")]
    NoCertificate,
    #[error("the certificate has expired too long ago")]
    TooOld,
}

impl Attempt {
    /// Whether the token that is kept lets the node in. `joined`: it has ever been.
    pub(crate) fn judge(&self, token: Option<&JoinTokenRow>, joined: bool) -> Result<(), Turned> {
        let token = token.ok_or(Turned::Unknown)?;
        if !bool::from(token.hash.0.ct_eq(&self.hash.0)) {
            return Err(Turned::Secret);
        }
        if token.used_ms.is_some() {
            return Err(Turned::Used);
        }
        if token.revoked_ms.is_some() {
            return Err(Turned::Revoked);
        }
        if token.expires_ms <= self.at_ms {
            return Err(Turned::Expired);
        }
        match token.node_id.as_str() {
            "" if joined => Err(Turned::Taken),
            "" => Ok(()),
            bound if bound == self.node_id => Ok(()),
            _ => Err(Turned::OtherNode),
        }
    }
}

/// Whether `next` may follow the certificate that is kept.
pub(crate) fn may_renew(
    kept: Option<&CertificateRow>,
    next: &CertificateRow,
) -> Result<(), Turned> {
    let kept = kept.ok_or(Turned::NoCertificate)?;
    if kept.revoked_ms.is_some() {
        return Err(Turned::Revoked);
    }
    let end = kept.expires_ms + RENEWABLE.as_millis() as u64;
    if end <= next.issued_ms {
        return Err(Turned::TooOld);
    }
    if kept.node_id != next.node_id {
        return Err(Turned::OtherNode);
    }
    Ok(())
}

/// What has changed about who may be a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdentityNews {
    /// The number to go on from.
    pub(crate) version: u64,
    /// Nodes that have joined.
    pub(crate) joined: Vec<String>,
    pub(crate) certificates: Vec<CertificateRow>,
}

/// The statements. Both databases take `$1` for a parameter.
pub(super) mod sql {
    pub(in crate::store) const CA: &str = "SELECT certificate, private_key FROM ca";
    pub(in crate::store) const ADD_CA: &str =
        "INSERT INTO ca VALUES (1, $1, $2) ON CONFLICT DO NOTHING";
    pub(in crate::store) const RESEAL_CA: &str =
        "UPDATE ca SET private_key = $2 WHERE private_key = $1";
    pub(in crate::store) const TOKENS: &str =
        "SELECT * FROM join_tokens ORDER BY created_ms DESC, id";
    pub(in crate::store) const TOKEN: &str = "SELECT * FROM join_tokens WHERE id = $1";
    pub(in crate::store) const ADD_TOKEN: &str =
        "INSERT INTO join_tokens VALUES ($1, $2, $3, $4, $5, $6, NULL, '', NULL)";
    pub(in crate::store) const REVOKE_TOKEN: &str =
        "UPDATE join_tokens SET revoked_ms = $2 WHERE id = $1 AND revoked_ms IS NULL
             AND used_ms IS NULL AND expires_ms > $2";
    pub(in crate::store) const USE_TOKEN: &str =
        "UPDATE join_tokens SET used_ms = $2, used_by = $3 WHERE id = $1";
    pub(in crate::store) const NEXT_VERSION: &str =
        "UPDATE identity_version SET version = version + 1 RETURNING version";
    pub(in crate::store) const VERSION: &str = "SELECT version FROM identity_version";
    pub(in crate::store) const JOINED: &str = "SELECT 1 FROM identities WHERE node_id = $1";
    pub(in crate::store) const JOIN: &str =
        "INSERT INTO identities VALUES ($1, $2, $3) ON CONFLICT (node_id)
             DO UPDATE SET joined_ms = excluded.joined_ms, changed = excluded.changed";
    pub(in crate::store) const CERTIFICATE: &str = "SELECT * FROM certificates WHERE serial = $1";
    pub(in crate::store) const ADD_CERTIFICATE: &str =
        "INSERT INTO certificates VALUES ($1, $2, $3, $4, NULL, $5)";
    pub(in crate::store) const GOOD: &str = "SELECT COUNT(*) FROM certificates WHERE node_id = $1 AND revoked_ms IS NULL AND expires_ms > $2";
    pub(in crate::store) const REVOKE_NODE: &str = "UPDATE certificates SET revoked_ms = $2, changed = $3 WHERE node_id = $1 AND revoked_ms IS NULL";
    pub(in crate::store) const JOINED_SINCE: &str =
        "SELECT node_id FROM identities WHERE changed > $1";
    pub(in crate::store) const CERTIFICATES_SINCE: &str = "SELECT * FROM certificates WHERE changed > $1 AND ($1 > 0 OR revoked_ms IS NOT NULL OR expires_ms > $2)";
    pub(in crate::store) const FORGET_CERTIFICATES: &str =
        "DELETE FROM certificates WHERE expires_ms < $1";
    pub(in crate::store) const FORGET_TOKENS: &str =
        "DELETE FROM join_tokens WHERE expires_ms < $1";
}
