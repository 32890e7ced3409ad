//! The audit log, and the tokens of the API, whose changes it holds.

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    Postgres, clean, rows,
    session::{BEGIN, Name},
};
use crate::{
    api::auth::Access,
    store::{ApiTokenRow, AuditRow, StoreError},
};

/// Adds an entry.
pub(super) async fn add(db: &mut PgConnection, row: AuditRow) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO audit (at_ms, author, peer, action, message, revision, rolled_back_to,
             token, changes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(row.at_ms as i64)
    .bind(clean(row.author))
    .bind(clean(row.peer))
    .bind(row.action)
    .bind(clean(row.message))
    .bind(row.revision as i64)
    .bind(row.rolled_back_to as i64)
    .bind(clean(row.token))
    .bind(json(&row.changes)?)
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn list(
    store: &Postgres,
    before: u64,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let query =
        sqlx::query("SELECT * FROM audit WHERE $1 = 0 OR id < $1 ORDER BY id DESC LIMIT $2");
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    let rows = store
        .read(query.bind(before).bind(i64::from(limit)))
        .await?;
    rows.iter().map(|row| entry(row, store.name())).collect()
}

fn entry(row: &PgRow, name: &Name) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        id: rows::number(row, "id", name)?,
        at_ms: rows::number(row, "at_ms", name)?,
        author: rows::text(row, "author", name)?,
        peer: rows::text(row, "peer", name)?,
        action: rows::text(row, "action", name)?,
        message: rows::text(row, "message", name)?,
        revision: rows::number(row, "revision", name)?,
        rolled_back_to: rows::number(row, "rolled_back_to", name)?,
        token: rows::text(row, "token", name)?,
        changes: rows::json(row, "changes", name)?,
    })
}

pub(super) async fn tokens(store: &Postgres) -> Result<Vec<ApiTokenRow>, StoreError> {
    let query = sqlx::query("SELECT * FROM api_tokens ORDER BY name, created_ms, id");
    let rows = store.read(query).await?;
    rows.iter().map(|row| token(row, store.name())).collect()
}

fn token(row: &PgRow, name: &Name) -> Result<ApiTokenRow, StoreError> {
    let role = rows::text(row, "role", name)?;
    let time = |column| -> Result<Option<u64>, StoreError> {
        let time: Option<i64> = row.try_get(column).map_err(name.failed())?;
        Ok(time.map(|time| time as u64))
    };
    Ok(ApiTokenRow {
        id: rows::text(row, "id", name)?,
        name: rows::text(row, "name", name)?,
        access: Access::parse(&role).ok_or_else(|| {
            name.damaged(format!("it holds a token of the unknown role `{role}`"))
        })?,
        projects: rows::json(row, "projects", name)?,
        hash: rows::hash(row, "hash", name)?,
        created_ms: rows::number(row, "created_ms", name)?,
        created_by: rows::text(row, "created_by", name)?,
        expires_ms: time("expires_ms")?,
        revoked_ms: time("revoked_ms")?,
    })
}

/// `false`: a good token has the name.
pub(super) async fn put_token(
    store: &Postgres,
    token: ApiTokenRow,
    audit: AuditRow,
) -> Result<bool, StoreError> {
    let mut session = store.connections.get().await?;
    session.begin(BEGIN).await?;
    let inserted = session
        .run(|db| Box::pin(insert_token(db, token, audit)))
        .await?;
    if inserted {
        session.commit().await?;
    }
    Ok(inserted)
}

async fn insert_token(
    db: &mut PgConnection,
    token: ApiTokenRow,
    audit: AuditRow,
) -> sqlx::Result<bool> {
    // One that has expired gives its name away.
    sqlx::query(
        "UPDATE api_tokens SET revoked_ms = expires_ms
         WHERE name = $1 AND revoked_ms IS NULL AND expires_ms <= $2",
    )
    .bind(&token.name)
    .bind(token.created_ms as i64)
    .execute(&mut *db)
    .await?;
    let inserted = sqlx::query(
        "INSERT INTO api_tokens VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
    )
    .bind(token.id)
    .bind(token.name)
    .bind(token.access.as_str())
    .bind(json(&token.projects)?)
    .bind(token.hash.0.to_vec())
    .bind(token.created_ms as i64)
    .bind(token.created_by)
    .bind(token.expires_ms.map(|time| time as i64))
    .bind(token.revoked_ms.map(|time| time as i64))
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    add(db, audit).await?;
    Ok(true)
}

/// `false`: there is no such token that is not revoked.
pub(super) async fn revoke_token(
    store: &Postgres,
    id: String,
    at_ms: u64,
    audit: AuditRow,
) -> Result<bool, StoreError> {
    let mut session = store.connections.get().await?;
    session.begin(BEGIN).await?;
    let revoked = session
        .run(|db| {
            Box::pin(async move {
                let revoked = sqlx::query(
                    "UPDATE api_tokens SET revoked_ms = $1 WHERE id = $2 AND revoked_ms IS NULL",
                )
                .bind(at_ms as i64)
                .bind(id)
                .execute(&mut *db)
                .await?;
                if revoked.rows_affected() == 0 {
                    return Ok(false);
                }
                add(db, audit).await?;
                Ok(true)
            })
        })
        .await?;
    if revoked {
        session.commit().await?;
    }
    Ok(revoked)
}

fn json(value: &impl serde::Serialize) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}
