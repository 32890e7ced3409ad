//! Values of Secrets, session keys and revocations.

use fleet_proto::{
    hash::Hash,
    v1::{SetKind, SetVersion},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Name, hash_at, rows};
use crate::store::{
    StoreError,
    sets::{KINDS, RevocationRow, SessionKeyRow, SetChanges, SetRows, ValueRow, name_of},
};

/// The versions of the sets.
pub(super) async fn versions(
    db: &mut SqliteConnection,
    name: &Name,
) -> Result<Vec<SetVersion>, StoreError> {
    let found = sqlx::query("SELECT * FROM sets").fetch_all(db).await;
    let found = found.map_err(name.failed())?;
    found.iter().map(|row| version(row, name)).collect()
}

/// All sets. The connection is to be in a transaction: they are of one moment.
pub(super) async fn load(db: &mut SqliteConnection, name: &Name) -> Result<SetRows, StoreError> {
    let versions = versions(db, name).await?;
    let mut read = async |query: &'static str| {
        let found = sqlx::query(query).fetch_all(&mut *db).await;
        found.map_err(name.failed())
    };
    let values = read("SELECT * FROM secret_values").await?;
    let session_keys = read("SELECT * FROM session_keys").await?;
    let revocations = read("SELECT * FROM revocations").await?;
    Ok(SetRows {
        versions,
        values: each(&values, |row| value(row, name))?,
        session_keys: each(&session_keys, |row| session_key(row, name))?,
        revocations: each(&revocations, |row| revocation(row, name))?,
    })
}

fn each<T>(
    found: &[SqliteRow],
    read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    found.iter().map(read).collect()
}

/// The number of the set of this name.
fn kind(text: &str, name: &Name) -> Result<SetKind, StoreError> {
    let known = KINDS.into_iter().find(|(_, known)| *known == text);
    known
        .map(|(kind, _)| kind)
        .ok_or_else(|| name.damaged(format!("it holds the unknown set `{text}`")))
}

fn version(row: &SqliteRow, name: &Name) -> Result<SetVersion, StoreError> {
    Ok(SetVersion {
        set: kind(&rows::text(row, "kind", name)?, name)?.into(),
        version: rows::number(row, "version", name)?,
        tag: bytes(row, "tag", name)?,
    })
}

fn value(row: &SqliteRow, name: &Name) -> Result<ValueRow, StoreError> {
    Ok(ValueRow {
        name: (
            rows::text(row, "project", name)?,
            rows::text(row, "name", name)?,
        ),
        sealed: bytes(row, "sealed", name)?,
        updated_ms: rows::number(row, "updated_ms", name)?,
    })
}

fn session_key(row: &SqliteRow, name: &Name) -> Result<SessionKeyRow, StoreError> {
    Ok(SessionKeyRow {
        id: rows::text(row, "id", name)?,
        sealed: bytes(row, "sealed", name)?,
        created_ms: rows::number(row, "created_ms", name)?,
        seals_from_ms: rows::number(row, "seals_from_ms", name)?,
    })
}

fn revocation(row: &SqliteRow, name: &Name) -> Result<RevocationRow, StoreError> {
    Ok(RevocationRow {
        project: rows::text(row, "project", name)?,
        bearer: hash_at(row, "bearer_sha256", name)?,
        created_ms: rows::number(row, "created_ms", name)?,
        created_by: rows::text(row, "created_by", name)?,
        until_ms: rows::number(row, "until_ms", name)?,
        message: rows::text(row, "message", name)?,
    })
}

fn bytes(row: &SqliteRow, column: &str, name: &Name) -> Result<Vec<u8>, StoreError> {
    row.try_get(column).map_err(name.failed())
}

/// Carries out all of it.
pub(super) async fn change(db: &mut SqliteConnection, changes: SetChanges) -> sqlx::Result<()> {
    for version in changes.versions {
        sqlx::query("INSERT OR REPLACE INTO sets VALUES (?, ?, ?)")
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
        sqlx::query("INSERT OR REPLACE INTO secret_values VALUES (?, ?, ?, ?)")
            .bind(name.0)
            .bind(name.1)
            .bind(sealed)
            .bind(updated_ms as i64)
            .execute(&mut *db)
            .await?;
    }
    for (project, name) in changes.drop_values {
        sqlx::query("DELETE FROM secret_values WHERE project = ? AND name = ?")
            .bind(project)
            .bind(name)
            .execute(&mut *db)
            .await?;
    }
    for row in changes.put_session_keys {
        sqlx::query("INSERT OR REPLACE INTO session_keys VALUES (?, ?, ?, ?)")
            .bind(row.id)
            .bind(row.sealed)
            .bind(row.created_ms as i64)
            .bind(row.seals_from_ms as i64)
            .execute(&mut *db)
            .await?;
    }
    for id in changes.drop_session_keys {
        let delete = sqlx::query("DELETE FROM session_keys WHERE id = ?").bind(id);
        delete.execute(&mut *db).await?;
    }
    for row in changes.put_revocations {
        put_revocation(db, row).await?;
    }
    for (project, Hash(bearer)) in changes.drop_revocations {
        sqlx::query("DELETE FROM revocations WHERE project = ? AND bearer_sha256 = ?")
            .bind(project)
            .bind(bearer.to_vec())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

async fn put_revocation(db: &mut SqliteConnection, row: RevocationRow) -> sqlx::Result<()> {
    sqlx::query("INSERT OR REPLACE INTO revocations VALUES (?, ?, ?, ?, ?, ?)")
        .bind(row.project)
        .bind(row.bearer.0.to_vec())
        .bind(row.created_ms as i64)
        .bind(row.created_by)
        .bind(row.until_ms as i64)
        .bind(row.message)
        .execute(db)
        .await?;
    Ok(())
}
