//! Writes to SQLite: one transaction each.

use fleet_proto::v1::SetVersion;
use futures_util::future::BoxFuture;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool};

use super::{Name, audit, rows, sets};
use crate::store::{
    AuditRow, ChangeRow, Head, NodeRow, ResourceRow, RevisionRow, StoreError, Stored, Write,
    sets::{SetChanges, SetRows},
};

/// Rows of one statement: far below SQLite's 32,766 parameters.
const BATCH: usize = 500;

/// A write under the locked head.
pub(super) struct Transaction {
    transaction: sqlx::Transaction<'static, Sqlite>,
    head: Head,
    name: Name,
}

impl Transaction {
    /// `BEGIN IMMEDIATE` takes the write lock before the head is read: what is
    /// read stays true until the commit.
    pub(super) async fn begin(writer: &SqlitePool, name: Name) -> Result<Self, StoreError> {
        let mut transaction = writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(name.failed())?;
        let row = sqlx::query(rows::HEAD).fetch_one(&mut *transaction).await;
        let head = rows::head(&row.map_err(name.failed())?, &name)?;
        Ok(Self {
            transaction,
            head,
            name,
        })
    }
}

impl Write for Transaction {
    fn head(&self) -> &Head {
        &self.head
    }

    fn resources(&mut self) -> BoxFuture<'_, Result<Vec<ResourceRow>, StoreError>> {
        Box::pin(async {
            let query = sqlx::query("SELECT project, kind, name, body, hash FROM resources");
            let found = query
                .fetch_all(&mut *self.transaction)
                .await
                .map_err(self.name.failed())?;
            found
                .iter()
                .map(|row| rows::resource(row, &self.name))
                .collect()
        })
    }

    fn record(&mut self, row: AuditRow) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let added = audit::add(&mut self.transaction, row).await;
            added.map_err(self.name.failed())
        })
    }

    fn set_versions(&mut self) -> BoxFuture<'_, Result<Vec<SetVersion>, StoreError>> {
        Box::pin(sets::versions(&mut self.transaction, &self.name))
    }

    fn sets(&mut self) -> BoxFuture<'_, Result<SetRows, StoreError>> {
        Box::pin(sets::load(&mut self.transaction, &self.name))
    }

    fn change_sets(&mut self, changes: SetChanges) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            let changed = sets::change(&mut self.transaction, changes).await;
            changed.map_err(self.name.failed())
        })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            let failed = self.name.failed();
            self.transaction.commit().await.map_err(failed)
        })
    }

    fn commit(
        mut self: Box<Self>,
        revision: RevisionRow,
        changes: Vec<ChangeRow>,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            let failed = self.name.failed();
            let connection = &mut *self.transaction;
            insert_revision(connection, &revision)
                .await
                .map_err(&failed)?;
            for batch in changes.chunks(BATCH) {
                insert_changes(connection, revision.number, batch)
                    .await
                    .map_err(&failed)?;
                put_resources(connection, batch).await.map_err(&failed)?;
            }
            for change in changes.iter().filter(|c| c.change == Stored::Deleted) {
                delete_resource(connection, change).await.map_err(&failed)?;
            }
            self.transaction.commit().await.map_err(failed)
        })
    }
}

async fn insert_revision(db: &mut SqliteConnection, revision: &RevisionRow) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(revision.number as i64)
        .bind(revision.root_hash.0.to_vec())
        .bind(revision.created_ms as i64)
        .bind(&revision.author)
        .bind(&revision.message)
        .bind(revision.created)
        .bind(revision.configured)
        .bind(revision.deleted)
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE head SET revision = ?, root_hash = ?")
        .bind(revision.number as i64)
        .bind(revision.root_hash.0.to_vec())
        .execute(db)
        .await?;
    Ok(())
}

async fn insert_changes(
    db: &mut SqliteConnection,
    revision: u64,
    changes: &[ChangeRow],
) -> sqlx::Result<()> {
    let mut insert = QueryBuilder::<Sqlite>::new(
        "INSERT INTO revision_changes (revision, project, kind, name, action, body) ",
    );
    insert.push_values(changes, |mut row, ChangeRow { key, change }| {
        row.push_bind(revision as i64)
            .push_bind(key.project.clone())
            .push_bind(key.kind.as_str())
            .push_bind(key.name.clone())
            .push_bind(change.action())
            .push_bind(change.body().map(|(body, _)| body.to_vec()));
    });
    insert
        .build()
        .persistent(changes.len() == BATCH)
        .execute(db)
        .await?;
    Ok(())
}

async fn put_resources(db: &mut SqliteConnection, changes: &[ChangeRow]) -> sqlx::Result<()> {
    let present: Vec<_> = changes
        .iter()
        .filter_map(|c| Some((&c.key, c.change.body()?)))
        .collect();
    if present.is_empty() {
        return Ok(());
    }
    let mut insert = QueryBuilder::<Sqlite>::new(
        "INSERT OR REPLACE INTO resources (project, kind, name, body, hash) ",
    );
    insert.push_values(&present, |mut row, (key, (body, hash))| {
        row.push_bind(key.project.clone())
            .push_bind(key.kind.as_str())
            .push_bind(key.name.clone())
            .push_bind(body.to_vec())
            .push_bind(hash.0.to_vec());
    });
    insert
        .build()
        .persistent(present.len() == BATCH)
        .execute(db)
        .await?;
    Ok(())
}

async fn delete_resource(db: &mut SqliteConnection, change: &ChangeRow) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM resources WHERE project = ? AND kind = ? AND name = ?")
        .bind(&change.key.project)
        .bind(change.key.kind.as_str())
        .bind(&change.key.name)
        .execute(db)
        .await?;
    Ok(())
}

/// Writes `changed` and removes `gone`.
pub(super) async fn nodes(
    writer: &SqlitePool,
    changed: Vec<NodeRow>,
    gone: Vec<String>,
) -> sqlx::Result<()> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    for id in gone {
        let delete = sqlx::query("DELETE FROM nodes WHERE node_id = ?").bind(id);
        delete.execute(&mut *transaction).await?;
    }
    for node in changed {
        put_node(&mut transaction, node).await?;
    }
    transaction.commit().await
}

async fn put_node(db: &mut SqliteConnection, node: NodeRow) -> sqlx::Result<()> {
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| sqlx::Error::Encode(error.into()))
    };
    sqlx::query(
        "INSERT OR REPLACE INTO nodes (node_id, boot_id, version, labels, revision, root_hash, \
         nacked_revision, nacked_root, errors, degraded, apply_us, last_seen_ms, sets, set_problems, \
         peer_address) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
        .bind(node.node_id)
        .bind(node.boot_id)
        .bind(node.version)
        .bind(json(serde_json::to_string(&node.labels))?)
        .bind(node.revision as i64)
        .bind(node.root_hash.map(|hash| hash.0.to_vec()))
        .bind(node.nacked_revision as i64)
        .bind(node.nacked_root.map(|hash| hash.0.to_vec()))
        .bind(json(serde_json::to_string(&node.errors))?)
        .bind(json(serde_json::to_string(&node.degraded))?)
        .bind(node.apply_us as i64)
        .bind(node.last_seen_ms as i64)
        .bind(json(serde_json::to_string(&node.sets))?)
        .bind(json(serde_json::to_string(&node.set_problems))?)
        .bind(node.peer_address)
        .execute(db)
        .await?;
    Ok(())
}
