//! What revisions have changed.

use fleet_proto::{key::Key, v1::Action};
use sqlx::{QueryBuilder, Sqlite as Db};

use super::{Sqlite, rows};
use crate::store::{RevisionRow, StoreError};

pub(super) async fn revision(
    store: &Sqlite,
    number: u64,
) -> Result<Option<RevisionRow>, StoreError> {
    let query = sqlx::query("SELECT * FROM revisions WHERE number = ?");
    let rows = store.read(query.bind(number as i64)).await?;
    rows.first()
        .map(|row| rows::revision(row, &store.name))
        .transpose()
}

pub(super) async fn revisions_of(
    store: &Sqlite,
    projects: Vec<String>,
    limit: u32,
) -> Result<Vec<RevisionRow>, StoreError> {
    let mut query = QueryBuilder::<Db>::new(
        "SELECT r.number, r.root_hash, r.created_ms, r.author, r.message,
             COUNT(*) FILTER (WHERE c.action = 'created') AS created,
             COUNT(*) FILTER (WHERE c.action = 'configured') AS configured,
             COUNT(*) FILTER (WHERE c.action = 'deleted') AS deleted
         FROM revisions r JOIN revision_changes c ON c.revision = r.number
         WHERE c.project IN (",
    );
    let mut list = query.separated(", ");
    for project in projects {
        list.push_bind(project);
    }
    query
        .push(") GROUP BY r.number ORDER BY r.number DESC LIMIT ")
        .push_bind(limit);
    let rows = query
        .build()
        .persistent(false)
        .fetch_all(&store.reader)
        .await
        .map_err(store.name.failed())?;
    rows.iter()
        .map(|row| rows::revision(row, &store.name))
        .collect()
}

pub(super) async fn changes_of(
    store: &Sqlite,
    revision: u64,
) -> Result<Vec<(Key, Action)>, StoreError> {
    let query =
        sqlx::query("SELECT project, kind, name, action FROM revision_changes WHERE revision = ?");
    let rows = store.read(query.bind(revision as i64)).await?;
    let change = |row| {
        let text = rows::text(row, "action", &store.name)?;
        let action = match text.as_str() {
            "created" => Action::Created,
            "configured" => Action::Configured,
            "deleted" => Action::Deleted,
            _ => {
                let what = format!("it holds the unknown action `{text}`");
                return Err(store.name.damaged(what));
            }
        };
        Ok((rows::key(row, &store.name)?, action))
    };
    rows.iter().map(change).collect()
}
