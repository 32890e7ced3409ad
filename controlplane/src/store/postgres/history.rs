//! What revisions have changed.

use super::{Postgres, rows};
use crate::store::{RevisionRow, StoreError};
use fleet_proto::{key::Key, v1::Action};

pub(super) async fn revision(
    store: &Postgres,
    number: u64,
) -> Result<Option<RevisionRow>, StoreError> {
    let query = sqlx::query("SELECT * FROM revisions WHERE number = $1");
    let rows = store.read(query.bind(number as i64)).await?;
    rows.first()
        .map(|row| rows::revision(row, store.name()))
        .transpose()
}

pub(super) async fn revisions_of(
    store: &Postgres,
    projects: Vec<String>,
    limit: u32,
) -> Result<Vec<RevisionRow>, StoreError> {
    let query = sqlx::query(
        "SELECT r.number, r.root_hash, r.created_ms, r.author, r.message,
             COUNT(*) FILTER (WHERE c.action = 'created') AS created,
             COUNT(*) FILTER (WHERE c.action = 'configured') AS configured,
             COUNT(*) FILTER (WHERE c.action = 'deleted') AS deleted
         FROM revisions r JOIN revision_changes c ON c.revision = r.number
         WHERE c.project = ANY($1) GROUP BY r.number ORDER BY r.number DESC LIMIT $2",
    );
    let rows = store
        .read(query.bind(projects).bind(i64::from(limit)))
        .await?;
    rows.iter()
        .map(|row| rows::revision(row, store.name()))
        .collect()
}

pub(super) async fn changes_of(
    store: &Postgres,
    revision: u64,
) -> Result<Vec<(Key, Action)>, StoreError> {
    let query =
        sqlx::query("SELECT project, kind, name, action FROM revision_changes WHERE revision = $1");
    let rows = store.read(query.bind(revision as i64)).await?;
    let change = |row| {
        let text = rows::text(row, "action", store.name())?;
        let action = match text.as_str() {
            "created" => Action::Created,
            "configured" => Action::Configured,
            "deleted" => Action::Deleted,
            _ => {
                let what = format!("it holds the unknown action `{text}`");
                return Err(store.name().damaged(what));
            }
        };
        Ok((rows::key(row, store.name())?, action))
    };
    rows.iter().map(change).collect()
}
