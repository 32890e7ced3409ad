//! Tokens of the API: made, listed, revoked. Only a hash of each is kept.

use fleet_proto::{hash::Hash, v1};

use super::{
    Api, ApiError,
    auth::{Access, Caller, generate, wire},
};
use crate::{
    clock::now_ms,
    store::{ApiTokenRow, AuditRow},
};

/// Longest name of a token, in bytes.
const LONGEST_NAME: usize = 64;
/// Names of what is no such token, in the audit log.
const RESERVED: [&str; 2] = ["admin", "node"];

impl Api {
    /// Makes a token.
    pub(crate) async fn create_token(
        &self,
        caller: &Caller,
        request: v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenResponse, ApiError> {
        caller.needs(Access::Admin)?;
        let role = v1::TokenRole::try_from(request.role).unwrap_or_default();
        let access = Access::from_wire(role).ok_or_else(|| {
            ApiError::Bad("role: say one of viewer, editor, admin (TOKEN_ROLE_VIEWER ..)".into())
        })?;
        let name = request.name;
        check_name(&name)?;
        let mut projects = request.projects;
        projects.sort();
        projects.dedup();
        check_projects(&projects)?;
        if !caller.covers(&projects) {
            return Err(caller.beyond("the new token would be for").into());
        }
        let now = now_ms();
        let expires_ms = request.expires_in.map(|length| length.as_millis());
        if expires_ms == Some(0) {
            return Err(ApiError::Bad(
                "expires_in: is 0: leave it out for a token that is good until it is revoked"
                    .to_owned(),
            ));
        }
        let value = generate(access.as_str())?;
        let hash = Hash::of(value.as_bytes());
        let row = ApiTokenRow {
            id: uuid::Uuid::new_v4().to_string(),
            name,
            access,
            projects,
            hash,
            created_ms: now,
            created_by: caller.name().to_owned(),
            expires_ms: end(caller, expires_ms.map(|length| now.saturating_add(length))),
            revoked_ms: None,
        };
        let audit = entry(caller, "token.create", &row, now);
        if !self.tokens.create(row.clone(), audit).await? {
            return Err(ApiError::Exists(format!(
                "there is a token `{}`: revoke it, or choose another name",
                row.name
            )));
        }
        tracing::info!(token = row.name, by = row.created_by, role = %access, "new token");
        Ok(v1::CreateTokenResponse {
            token: Some(wire(&row)),
            value,
        })
    }

    /// The tokens within the caller's reach.
    pub(crate) async fn list_tokens(
        &self,
        caller: &Caller,
        request: v1::ListTokensRequest,
    ) -> Result<v1::ListTokensResponse, ApiError> {
        caller.needs(Access::Admin)?;
        let now = now_ms();
        let mut rows = self.tokens.list().await;
        rows.retain(|row| caller.covers(&row.projects) && (request.all || is_good(row, now)));
        rows.sort_by(|a, b| (&a.name, a.created_ms).cmp(&(&b.name, b.created_ms)));
        Ok(v1::ListTokensResponse {
            tokens: rows.iter().map(wire).collect(),
        })
    }

    /// Makes a token void.
    pub(crate) async fn revoke_token(
        &self,
        caller: &Caller,
        request: v1::RevokeTokenRequest,
    ) -> Result<v1::RevokeTokenResponse, ApiError> {
        caller.needs(Access::Admin)?;
        let now = now_ms();
        let name = request.name;
        let none = || ApiError::NotFound(format!("there is no good token `{name}`"));
        let rows = self.tokens.list().await;
        let mut row = rows
            .into_iter()
            .find(|row| row.name == name && is_good(row, now) && caller.covers(&row.projects))
            .ok_or_else(none)?;
        let audit = entry(caller, "token.revoke", &row, now);
        if !self.tokens.revoke(&row.id, now, audit).await? {
            return Err(none());
        }
        tracing::info!(token = row.name, by = caller.name(), "token revoked");
        row.revoked_ms = Some(now);
        Ok(v1::RevokeTokenResponse {
            token: Some(wire(&row)),
        })
    }
}

fn is_good(row: &ApiTokenRow, now: u64) -> bool {
    row.revoked_ms.is_none() && row.expires_ms.is_none_or(|time| time > now)
}

fn entry(caller: &Caller, action: &str, row: &ApiTokenRow, at_ms: u64) -> AuditRow {
    let place = if row.projects.is_empty() {
        "all projects".to_owned()
    } else {
        format!("project {}", row.projects.join(", "))
    };
    AuditRow {
        at_ms,
        author: caller.name().to_owned(),
        peer: caller.peer.clone(),
        action: action.to_owned(),
        message: format!("{} for {place}", row.access),
        token: row.name.clone(),
        ..AuditRow::default()
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if RESERVED.contains(&name) {
        return Err(ApiError::Bad(format!(
            "name: `{name}` is reserved: choose another one"
        )));
    }
    if is_name(name, b"_-.@") {
        return Ok(());
    }
    Err(ApiError::Bad(format!(
        "name: {name:?} is not a name: use letters, digits, `_`, `-`, `.` and `@`, at most \
         {LONGEST_NAME}, the first one a letter or digit"
    )))
}

/// What no resource can name as its project would make a token that sees nothing.
fn check_projects(projects: &[String]) -> Result<(), ApiError> {
    match projects.iter().find(|project| !is_name(project, b"_-.")) {
        None => Ok(()),
        Some(project) => Err(ApiError::Bad(format!(
            "projects: {project:?} is not the name of a project: use letters, digits, `_`, `-` and \
             `.`, at most {LONGEST_NAME}, the first one a letter or digit"
        ))),
    }
}

fn is_name(text: &str, others: &[u8]) -> bool {
    text.len() <= LONGEST_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
}

/// When a new token ends: as asked, but not after the one that makes it, or a
/// token with an end could be made into one without.
fn end(caller: &Caller, asked: Option<u64>) -> Option<u64> {
    let own = Some(caller.token.expires_ms).filter(|end| *end != 0);
    // Kept as a signed number.
    [asked, own]
        .into_iter()
        .flatten()
        .min()
        .map(|end| end.min(i64::MAX as u64))
}
