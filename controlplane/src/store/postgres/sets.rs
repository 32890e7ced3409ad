//! Values of Secrets, session keys and revocations.

use fleet_proto::{
    hash::Hash,
    v1::{SetKind, SetVersion},
};
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    clean, rows,
    session::{Name, Session},
};
use crate::store::{
    StoreError,
    sets::{KINDS, RevocationRow, SessionKeyRow, SetChanges, SetRows, ValueRow, name_of},
};

/// The versions of the sets.
pub(super) async fn versions(
    session: &mut Session,
    name: &Name,
) -> Result<Vec<SetVersion>, StoreError> {
    let found = read(session, "SELECT * FROM sets").await?;
    found.iter().map(|row| version(row, name)).collect()
}

/// All sets. Of one moment where the session holds the head, or sees one moment only.
pub(super) async fn load(session: &mut Session, name: &Name) -> Result<SetRows, StoreError> {
    let versions = versions(session, name).await?;
    let values = read(session, "SELECT * FROM secret_values").await?;
    let session_keys = read(session, "SELECT * FROM session_keys").await?;
    let revocations = read(session, "SELECT * FROM revocations").await?;
    Ok(SetRows {
        versions,
        values: each(&values, |row| value(row, name))?,
        session_keys: each(&session_keys, |row| session_key(row, name))?,
        revocations: each(&revocations, |row| revocation(row, name))?,
    })
}

async fn read(session: &mut Session, query: &'static str) -> Result<Vec<PgRow>, StoreError> {
    session
        .run(|db| Box::pin(sqlx::query(query).fetch_all(db)))
        .await
}

fn each<T>(
    found: &[PgRow],
    read: impl Fn(&PgRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    found.iter().map(read).collect()
}

fn kind(text: &str, name: &Name) -> Result<SetKind, StoreError> {
    let known = KINDS.into_iter().find(|(_, known)| *known == text);
    known
        .map(|(kind, _)| kind)
        .ok_or_else(|| name.damaged(format!("it holds the unknown set `{text}`")))
}

fn version(row: &PgRow, name: &Name) -> Result<SetVersion, StoreError> {
    Ok(SetVersion {
        set: kind(&rows::text(row, "kind", name)?, name)?.into(),
        version: rows::number(row, "version", name)?,
        tag: bytes(row, "tag", name)?,
    })
}

fn value(row: &PgRow, name: &Name) -> Result<ValueRow, StoreError> {
    Ok(ValueRow {
        name: (
            rows::text(row, "project", name)?,
            rows::text(row, "name", name)?,
        ),
        sealed: bytes(row, "sealed", name)?,
        updated_ms: rows::number(row, "updated_ms", name)?,
    })
}

fn session_key(row: &PgRow, name: &Name) -> Result<SessionKeyRow, StoreError> {
    Ok(SessionKeyRow {
        id: rows::text(row, "id", name)?,
        sealed: bytes(row, "sealed", name)?,
        created_ms: rows::number(row, "created_ms", name)?,
        seals_from_ms: rows::number(row, "seals_from_ms", name)?,
    })
}

fn revocation(row: &PgRow, name: &Name) -> Result<RevocationRow, StoreError> {
    Ok(RevocationRow {
        project: rows::text(row, "project", name)?,
        bearer: rows::hash(row, "bearer_sha256", name)?,
        created_ms: rows::number(row, "created_ms", name)?,
        created_by: rows::text(row, "created_by", name)?,
        until_ms: rows::number(row, "until_ms", name)?,
        message: rows::text(row, "message", name)?,
    })
}

fn bytes(row: &PgRow, column: &str, name: &Name) -> Result<Vec<u8>, StoreError> {
    row.try_get(column).map_err(name.failed())
}

/// Carries out all of it.
pub(super) async fn change(session: &mut Session, changes: SetChanges) -> Result<(), StoreError> {
    session.run(|db| Box::pin(put(db, changes))).await
}

async fn put(db: &mut PgConnection, changes: SetChanges) -> sqlx::Result<()> {
    for version in changes.versions {
        sqlx::query(
            "INSERT INTO sets VALUES ($1, $2, $3) ON CONFLICT (kind)
             DO UPDATE SET version = excluded.version, tag = excluded.tag",
        )
        .bind(name_of(version.set()))
        .bind(version.version as i64)
        .bind(version.tag)
        .execute(&mut *db)
        .await?;
    }
    for ValueRow {
        name,
        sealed,
        updated_ms,
    } in changes.put_values
    {
        sqlx::query(
            "INSERT INTO secret_values VALUES ($1, $2, $3, $4) ON CONFLICT (project, name)
             DO UPDATE SET sealed = excluded.sealed, updated_ms = excluded.updated_ms",
        )
        .bind(name.0)
        .bind(name.1)
        .bind(sealed)
        .bind(updated_ms as i64)
        .execute(&mut *db)
        .await?;
    }
    for (project, name) in changes.drop_values {
        sqlx::query("DELETE FROM secret_values WHERE project = $1 AND name = $2")
            .bind(project)
            .bind(name)
            .execute(&mut *db)
            .await?;
    }
    for row in changes.put_session_keys {
        put_session_key(db, row).await?;
    }
    if !changes.drop_session_keys.is_empty() {
        sqlx::query("DELETE FROM session_keys WHERE id = ANY($1)")
            .bind(changes.drop_session_keys)
            .execute(&mut *db)
            .await?;
    }
    for row in changes.put_revocations {
        put_revocation(db, row).await?;
    }
    for (project, Hash(bearer)) in changes.drop_revocations {
        sqlx::query("DELETE FROM revocations WHERE project = $1 AND bearer_sha256 = $2")
            .bind(project)
            .bind(bearer.to_vec())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

async fn put_session_key(db: &mut PgConnection, row: SessionKeyRow) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO session_keys VALUES ($1, $2, $3, $4) ON CONFLICT (id)
         DO UPDATE SET sealed = excluded.sealed, seals_from_ms = excluded.seals_from_ms",
    )
    .bind(row.id)
    .bind(row.sealed)
    .bind(row.created_ms as i64)
    .bind(row.seals_from_ms as i64)
    .execute(db)
    .await?;
    Ok(())
}

async fn put_revocation(db: &mut PgConnection, row: RevocationRow) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO revocations VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (project, bearer_sha256) DO UPDATE SET created_ms = excluded.created_ms,
         created_by = excluded.created_by, until_ms = excluded.until_ms, message = excluded.message",
    )
    .bind(row.project)
    .bind(row.bearer.0.to_vec())
    .bind(row.created_ms as i64)
    .bind(clean(row.created_by))
    .bind(row.until_ms as i64)
    .bind(clean(row.message))
    .execute(db)
    .await?;
    Ok(())
}
