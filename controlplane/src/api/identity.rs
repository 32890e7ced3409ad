//! Join tokens, and nodes that are to be let in no longer.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use fleet_proto::{hash::Hash, v1};

use super::{
    Api, ApiError,
    auth::{Access, Caller},
};
use crate::{
    clock::now_ms,
    identity::{IdentityError, ca::Ca, enrol},
    store::{AuditRow, identity::JoinTokenRow},
};

/// How long a join token is good that says nothing of it, and at most.
const LIFETIME_MS: (u64, u64) = (3_600_000, 168 * 3_600_000);
/// Random bytes of a token's id and of its secret.
const ID: usize = 8;
const SECRET: usize = 32;

impl Api {
    /// Makes a join token.
    pub(crate) async fn create_join_token(
        &self,
        caller: &Caller,
        request: v1::CreateJoinTokenRequest,
    ) -> Result<v1::CreateJoinTokenResponse, ApiError> {
        self.rules_nodes(caller)?;
        let certificate = self.certificate.as_ref().ok_or_else(|| {
            ApiError::Bad(
                "this control plane has no TLS, and nodes join over TLS only: start it with --tls-name \
                 NAME or --tls-cert and --tls-key"
                    .to_owned(),
            )
        })?;
        if !request.node_id.is_empty() {
            enrol::check_id(&request.node_id).map_err(ApiError::Bad)?;
        }
        let lifetime = match request.expires_in.map(|length| length.as_millis()) {
            None => LIFETIME_MS.0,
            Some(length) if (1..=LIFETIME_MS.1).contains(&length) => length,
            Some(_) => {
                return Err(ApiError::Bad(
                    "expires_in: must be more than 0 and at most 168h".to_owned(),
                ));
            }
        };
        let pin = if certificate.is_of_the_fleet() {
            Some(self.ca().await?.fingerprint())
        } else {
            None
        };
        let secret = URL_SAFE_NO_PAD.encode(random::<SECRET>()?);
        let now = now_ms();
        let row = JoinTokenRow {
            id: hex::encode(random::<ID>()?),
            hash: Hash::of(secret.as_bytes()),
            node_id: request.node_id,
            created_ms: now,
            created_by: caller.name().to_owned(),
            expires_ms: now + lifetime,
            used_ms: None,
            used_by: String::new(),
            revoked_ms: None,
        };
        let whose = match row.node_id.as_str() {
            "" => "for any new node".to_owned(),
            node_id => format!("for node {node_id}"),
        };
        let audit = entry(caller, "join_token.create", whose, &row.id, now);
        self.store.add_join_token(row.clone(), audit).await?;
        tracing::info!(token = row.id, by = row.created_by, "new join token");
        Ok(v1::CreateJoinTokenResponse {
            value: enrol::write(&row.id, &secret, pin),
            token: Some(wire(&row)),
        })
    }

    /// The join tokens.
    pub(crate) async fn list_join_tokens(
        &self,
        caller: &Caller,
        request: v1::ListJoinTokensRequest,
    ) -> Result<v1::ListJoinTokensResponse, ApiError> {
        self.rules_nodes(caller)?;
        let now = now_ms();
        let mut rows = self.store.join_tokens().await?;
        rows.retain(|row| request.all || row.is_good(now));
        Ok(v1::ListJoinTokensResponse {
            tokens: rows.iter().map(wire).collect(),
        })
    }

    /// Makes a join token void.
    pub(crate) async fn revoke_join_token(
        &self,
        caller: &Caller,
        request: v1::RevokeJoinTokenRequest,
    ) -> Result<v1::RevokeJoinTokenResponse, ApiError> {
        self.rules_nodes(caller)?;
        let (id, now) = (request.id, now_ms());
        let none = || ApiError::NotFound(format!("there is no good join token {id:?}"));
        // What no token is called is not asked of the database.
        if !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(none());
        }
        let audit = entry(caller, "join_token.revoke", String::new(), &id, now);
        let revoked = self.store.revoke_join_token(id.clone(), now, audit).await?;
        let row = self.store.join_token(id.clone()).await?;
        let row = row.filter(|_| revoked).ok_or_else(none)?;
        tracing::info!(token = id, by = caller.name(), "join token revoked");
        Ok(v1::RevokeJoinTokenResponse {
            token: Some(wire(&row)),
        })
    }

    /// Makes the certificates of a node void.
    pub(crate) async fn revoke_node(
        &self,
        caller: &Caller,
        request: v1::RevokeNodeRequest,
    ) -> Result<v1::RevokeNodeResponse, ApiError> {
        self.rules_nodes(caller)?;
        let (node_id, now) = (request.node_id, now_ms());
        let none = || ApiError::NotFound(format!("node {node_id:?} has never joined"));
        enrol::check_id(&node_id).map_err(|_| none())?;
        let audit = entry(caller, "node.revoke", String::new(), &node_id, now);
        let revoked = self.store.revoke_node(node_id.clone(), now, audit).await?;
        let certificates = revoked.ok_or_else(none)?;
        tracing::warn!(
            node = node_id,
            by = caller.name(),
            certificates,
            "node revoked"
        );
        // Ends its streams here; other control planes look each second.
        self.identities.refresh().await?;
        Ok(v1::RevokeNodeResponse { certificates })
    }

    /// The CA, for whoever asks.
    pub(crate) async fn trust(&self) -> Result<v1::GetTrustResponse, ApiError> {
        let ca = self.ca().await?;
        Ok(v1::GetTrustResponse {
            ca_pem: pem(ca.certificate()),
            ca_sha256: hex::encode(ca.fingerprint().0),
        })
    }

    async fn ca(&self) -> Result<&Ca, ApiError> {
        Ok(self.identities.ca().await?)
    }

    /// Nodes are of no project: they see all of them.
    #[expect(clippy::unused_self, reason = "a rule of this service")]
    fn rules_nodes(&self, caller: &Caller) -> Result<(), ApiError> {
        caller.needs(Access::Admin)?;
        if caller.is_limited() {
            return Err(caller.beyond("a data plane serves").into());
        }
        Ok(())
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Store(error) => error.into(),
            other => Self::Internal(other.to_string()),
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(IdentityError::Random)?;
    Ok(bytes)
}

/// RFC 7468.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

fn wire(row: &JoinTokenRow) -> v1::JoinToken {
    v1::JoinToken {
        id: row.id.clone(),
        node_id: row.node_id.clone(),
        created_ms: row.created_ms,
        created_by: row.created_by.clone(),
        expires_ms: row.expires_ms,
        used_ms: row.used_ms.unwrap_or(0),
        used_by: row.used_by.clone(),
        revoked_ms: row.revoked_ms.unwrap_or(0),
    }
}

fn entry(caller: &Caller, action: &str, message: String, about: &str, at_ms: u64) -> AuditRow {
    AuditRow {
        at_ms,
        author: caller.name().to_owned(),
        peer: caller.peer.clone(),
        action: action.to_owned(),
        message,
        token: about.to_owned(),
        ..AuditRow::default()
    }
}
