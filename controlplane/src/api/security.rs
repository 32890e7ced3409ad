//! Revocations and session keys: what must stop working at once.

use fleet_proto::{hash::Hash, v1};

use super::{
    Api, ApiError, LONGEST_MESSAGE,
    auth::{Access, Caller},
};
use crate::{
    clock::now_ms,
    store::{AuditRow, sets::RevocationRow},
};

/// What a hash begins with.
const HASHED: &str = "sha256:";
/// Shortest token there is: that of an AuthPolicy.
const SHORTEST: usize = 8;

impl Api {
    /// Refuses a client's bearer token.
    pub(crate) async fn revoke(
        &self,
        caller: &Caller,
        request: v1::RevokeRequest,
    ) -> Result<v1::RevokeResponse, ApiError> {
        caller.needs(Access::Admin)?;
        within(caller, &request.project)?;
        let bearer = hash_of(&request.bearer)?;
        if request.message.len() > LONGEST_MESSAGE {
            return Err(ApiError::Bad(format!(
                "the message is {} bytes long: at most {LONGEST_MESSAGE} are kept",
                request.message.len()
            )));
        }
        let now = now_ms();
        let until_ms = match request.expires_in.map(|length| length.as_millis()) {
            None => 0,
            Some(0) => {
                return Err(ApiError::Bad(
                    "expires_in: is 0: leave it out for a revocation that stays".to_owned(),
                ));
            }
            // Kept as a signed number.
            Some(length) => now.saturating_add(length).min(i64::MAX as u64),
        };
        let row = RevocationRow {
            project: request.project,
            bearer,
            created_ms: now,
            created_by: caller.name().to_owned(),
            until_ms,
            message: request.message,
        };
        let audit = entry(caller, "revocation.create", about(&row), now);
        let version = self.changes.sets().revoke(row.clone(), audit).await?;
        tracing::info!(
            bearer = shown(bearer),
            project = row.project,
            by = row.created_by,
            "a client token is revoked"
        );
        Ok(v1::RevokeResponse {
            revocation: Some(wire(&row)),
            version,
        })
    }

    /// Takes a revocation back.
    pub(crate) async fn unrevoke(
        &self,
        caller: &Caller,
        request: v1::UnrevokeRequest,
    ) -> Result<v1::UnrevokeResponse, ApiError> {
        caller.needs(Access::Admin)?;
        within(caller, &request.project)?;
        let bearer = hash_of(&request.bearer)?;
        let place = place(&request.project);
        let what = format!("{} in {place}", shown(bearer));
        let audit = entry(caller, "revocation.delete", what, now_ms());
        let is_meant = |row: &RevocationRow| row.bearer == bearer && row.project == request.project;
        let sets = self.changes.sets();
        let version = sets.unrevoke(is_meant, Some(audit)).await?;
        let version = version.ok_or_else(|| {
            ApiError::NotFound(format!("{} is not revoked in {place}", shown(bearer)))
        })?;
        tracing::info!(
            bearer = shown(bearer),
            project = request.project,
            by = caller.name(),
            "a revocation is taken back"
        );
        Ok(v1::UnrevokeResponse { version })
    }

    /// The revocations that the caller may see.
    pub(crate) fn list_revocations(
        &self,
        caller: &Caller,
    ) -> Result<v1::ListRevocationsResponse, ApiError> {
        caller.needs(Access::Admin)?;
        let now = now_ms();
        let current = self.changes.sets().current();
        let visible =
            current.revocations.entries.iter().filter(|row| {
                caller.sees(&row.project) && (row.until_ms == 0 || row.until_ms > now)
            });
        Ok(v1::ListRevocationsResponse {
            revocations: visible.map(wire).collect(),
            version: current.revocations.version.version,
        })
    }

    /// Makes a new session key.
    pub(crate) async fn rotate_session_keys(
        &self,
        caller: &Caller,
        request: v1::RotateSessionKeysRequest,
    ) -> Result<v1::RotateSessionKeysResponse, ApiError> {
        caller.needs(Access::Admin)?;
        if caller.is_limited() {
            return Err(caller.beyond("session keys are also those of").into());
        }
        let now = now_ms();
        let what = if request.end_sessions {
            "all sessions end"
        } else {
            ""
        };
        let audit = entry(caller, "session-keys.rotate", what.to_owned(), now);
        let sets = self.changes.sets();
        let (version, keys) = sets.rotate(request.end_sessions, audit, now).await?;
        Ok(v1::RotateSessionKeysResponse {
            version,
            keys: keys as u32,
        })
    }
}

/// A caller who is limited to projects names one of them.
fn within(caller: &Caller, project: &str) -> Result<(), ApiError> {
    if caller.sees(project) {
        return Ok(());
    }
    Err(caller.beyond("the revocation would also be of").into())
}

/// The hash of a token, or the hash that is given. The message does not hold it.
fn hash_of(bearer: &str) -> Result<Hash, ApiError> {
    if let Some(digits) = bearer.strip_prefix(HASHED) {
        let mut hash = [0; 32];
        return match hex::decode_to_slice(digits, &mut hash) {
            Ok(()) => Ok(Hash(hash)),
            Err(_) => Err(ApiError::Bad(
                "bearer: `sha256:` must be followed by 64 hex digits".to_owned(),
            )),
        };
    }
    if bearer.len() < SHORTEST {
        return Err(ApiError::Bad(format!(
            "bearer: give `sha256:` and 64 hex digits, or the token itself, which has {SHORTEST} \
             characters or more"
        )));
    }
    Ok(Hash::of(bearer.as_bytes()))
}

fn shown(bearer: Hash) -> String {
    format!("{HASHED}{}", hex::encode(bearer.0))
}

fn place(project: &str) -> String {
    if project.is_empty() {
        "all projects".to_owned()
    } else {
        format!("project {project}")
    }
}

fn about(row: &RevocationRow) -> String {
    let what = format!("{} in {}", shown(row.bearer), place(&row.project));
    if row.message.is_empty() {
        what
    } else {
        format!("{what}: {}", row.message)
    }
}

fn wire(row: &RevocationRow) -> v1::RevocationEntry {
    v1::RevocationEntry {
        bearer: shown(row.bearer),
        project: row.project.clone(),
        created_ms: row.created_ms,
        created_by: row.created_by.clone(),
        until_ms: row.until_ms,
        message: row.message.clone(),
    }
}

fn entry(caller: &Caller, action: &str, message: String, at_ms: u64) -> AuditRow {
    AuditRow {
        at_ms,
        author: caller.name().to_owned(),
        peer: caller.peer.clone(),
        action: action.to_owned(),
        message,
        ..AuditRow::default()
    }
}
