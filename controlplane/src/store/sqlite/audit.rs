//! The audit log, and the tokens of the API, whose changes it holds.

use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use super::{Name, Sqlite, hash_at, rows};
use crate::{
    api::auth::Access,
    store::{ApiTokenRow, AuditRow, StoreError},
};

/// Adds an entry.
pub(super) async fn add(db: &mut SqliteConnection, row: AuditRow) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO audit (at_ms, author, peer, action, message, revision, rolled_back_to,
             token, changes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(row.at_ms as i64)
    .bind(row.author)
    .bind(row.peer)
    .bind(row.action)
    .bind(row.message)
    .bind(row.revision as i64)
    .bind(row.rolled_back_to as i64)
    .bind(row.token)
    .bind(json(&row.changes)?)
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn list(
    store: &Sqlite,
    before: u64,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let query = sqlx::query("SELECT * FROM audit WHERE ? = 0 OR id < ? ORDER BY id DESC LIMIT ?");
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    let rows = store
        .read(query.bind(before).bind(before).bind(limit))
        .await?;
    rows.iter().map(|row| entry(row, &store.name)).collect()
}

fn entry(row: &SqliteRow, name: &Name) -> Result<AuditRow, StoreError> {
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

pub(super) async fn tokens(store: &Sqlite) -> Result<Vec<ApiTokenRow>, StoreError> {
    let query = sqlx::query("SELECT * FROM api_tokens ORDER BY name, created_ms, id");
    let rows = store.read(query).await?;
    rows.iter().map(|row| token(row, &store.name)).collect()
}

fn token(row: &SqliteRow, name: &Name) -> Result<ApiTokenRow, StoreError> {
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
        hash: hash_at(row, "hash", name)?,
        created_ms: rows::number(row, "created_ms", name)?,
        created_by: rows::text(row, "created_by", name)?,
        expires_ms: time("expires_ms")?,
        revoked_ms: time("revoked_ms")?,
    })
}

/// `false`: a good token has the name.
pub(super) async fn put_token(
    writer: &SqlitePool,
    token: ApiTokenRow,
    audit: AuditRow,
) -> sqlx::Result<bool> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    // One that has expired gives its name away.
    sqlx::query(
        "UPDATE api_tokens SET revoked_ms = expires_ms
         WHERE name = ? AND revoked_ms IS NULL AND expires_ms <= ?",
    )
    .bind(&token.name)
    .bind(token.created_ms as i64)
    .execute(&mut *transaction)
    .await?;
    let inserted = sqlx::query(
        "INSERT INTO api_tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
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
    .execute(&mut *transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    add(&mut transaction, audit).await?;
    transaction.commit().await?;
    Ok(true)
}

/// `false`: there is no such token that is not revoked.
pub(super) async fn revoke_token(
    writer: &SqlitePool,
    id: String,
    at_ms: u64,
    audit: AuditRow,
) -> sqlx::Result<bool> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    let revoked =
        sqlx::query("UPDATE api_tokens SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL")
            .bind(at_ms as i64)
            .bind(id)
            .execute(&mut *transaction)
            .await?;
    if revoked.rows_affected() == 0 {
        return Ok(false);
    }
    add(&mut transaction, audit).await?;
    transaction.commit().await?;
    Ok(true)
}

fn json(value: &impl serde::Serialize) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}
