//! Writes to Postgres: one transaction each.

use fleet_proto::{hash::Hash, v1::SetVersion};
use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::{
    NOTIFY, audit, clean, rows,
    session::{BEGIN, Connections, Name, Session},
    sets,
};
use crate::store::{
    AuditRow, ChangeRow, Head, NodeRow, ResourceRow, RevisionRow, StoreError, Stored, Write,
    sets::{SetChanges, SetRows},
    shared::{GONE, NodeChange, Saved},
};

/// Rows of one statement: far below the 65,535 parameters of the protocol.
const BATCH: usize = 500;

/// A write under the locked head.
pub(super) struct Transaction {
    session: Session,
    head: Head,
    name: Name,
}

impl Transaction {
    /// Who waits for the head sees what the one before has committed: the
    /// transaction reads what is committed at each of its statements, and none
    /// commits without the head.
    pub(super) async fn begin(connections: &Connections) -> Result<Self, StoreError> {
        let name = connections.name().clone();
        let mut session = connections.get().await?;
        session.begin(BEGIN).await?;
        let lock = "SELECT lineage, revision, root_hash FROM head FOR UPDATE";
        let row = session
            .run(|db| Box::pin(sqlx::query(lock).fetch_one(db)))
            .await?;
        let head = rows::head(&row, &name)?;
        Ok(Self {
            session,
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
        Box::pin(resources(&mut self.session, &self.name))
    }

    fn record(&mut self, audit: AuditRow) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.session.run(|db| Box::pin(audit::add(db, audit))))
    }

    fn set_versions(&mut self) -> BoxFuture<'_, Result<Vec<SetVersion>, StoreError>> {
        Box::pin(sets::versions(&mut self.session, &self.name))
    }

    fn sets(&mut self) -> BoxFuture<'_, Result<SetRows, StoreError>> {
        Box::pin(sets::load(&mut self.session, &self.name))
    }

    fn change_sets(&mut self, changes: SetChanges) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(sets::change(&mut self.session, changes))
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            let number = self.head.revision;
            self.session.run(|db| Box::pin(notify(db, number))).await?;
            self.session.commit().await
        })
    }

    fn commit(
        mut self: Box<Self>,
        revision: RevisionRow,
        changes: Vec<ChangeRow>,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            let number = revision.number;
            self.session
                .run(|db| Box::pin(insert_revision(db, revision)))
                .await?;
            for batch in changes.chunks(BATCH) {
                let batch = batch.to_vec();
                self.session
                    .run(|db| Box::pin(insert_changes(db, number, batch)))
                    .await?;
            }
            self.session.run(|db| Box::pin(notify(db, number))).await?;
            self.session.commit().await.map_err(|error| match error {
                StoreError::Unreachable { database, reason } => StoreError::InDoubt {
                    database,
                    revision: number,
                    reason,
                },
                refused => refused,
            })
        })
    }
}

/// All resources, in no order.
pub(super) async fn resources(
    session: &mut Session,
    name: &Name,
) -> Result<Vec<ResourceRow>, StoreError> {
    let query = "SELECT project, kind, name, body, hash FROM resources";
    let found = session
        .run(|db| Box::pin(sqlx::query(query).fetch_all(db)))
        .await?;
    found.iter().map(|row| rows::resource(row, name)).collect()
}

async fn insert_revision(db: &mut PgConnection, revision: RevisionRow) -> sqlx::Result<()> {
    let root_hash = revision.root_hash.0.to_vec();
    sqlx::query("INSERT INTO revisions VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(revision.number as i64)
        .bind(&root_hash)
        .bind(revision.created_ms as i64)
        .bind(clean(revision.author))
        .bind(clean(revision.message))
        .bind(i64::from(revision.created))
        .bind(i64::from(revision.configured))
        .bind(i64::from(revision.deleted))
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE head SET revision = $1, root_hash = $2")
        .bind(revision.number as i64)
        .bind(root_hash)
        .execute(db)
        .await?;
    Ok(())
}

/// Writes a part of the history, and the resources as they are after it.
async fn insert_changes(
    db: &mut PgConnection,
    revision: u64,
    changes: Vec<ChangeRow>,
) -> sqlx::Result<()> {
    let mut insert = QueryBuilder::<Postgres>::new(
        "INSERT INTO revision_changes (revision, project, kind, name, action, body) ",
    );
    insert.push_values(&changes, |mut row, ChangeRow { key, change }| {
        row.push_bind(revision as i64)
            .push_bind(key.project.clone())
            .push_bind(key.kind.as_str())
            .push_bind(key.name.clone())
            .push_bind(change.action())
            .push_bind(change.body().map(|(body, _)| body.to_vec()));
    });
    let persistent = changes.len() == BATCH;
    insert
        .build()
        .persistent(persistent)
        .execute(&mut *db)
        .await?;
    put_resources(db, &changes).await?;
    for ChangeRow { key, change } in &changes {
        if *change == Stored::Deleted {
            sqlx::query("DELETE FROM resources WHERE project = $1 AND kind = $2 AND name = $3")
                .bind(&key.project)
                .bind(key.kind.as_str())
                .bind(&key.name)
                .execute(&mut *db)
                .await?;
        }
    }
    Ok(())
}

async fn put_resources(db: &mut PgConnection, changes: &[ChangeRow]) -> sqlx::Result<()> {
    let present: Vec<_> = changes
        .iter()
        .filter_map(|c| Some((&c.key, c.change.body()?)))
        .collect();
    if present.is_empty() {
        return Ok(());
    }
    let mut insert =
        QueryBuilder::<Postgres>::new("INSERT INTO resources (project, kind, name, body, hash) ");
    insert.push_values(&present, |mut row, (key, (body, hash))| {
        row.push_bind(key.project.clone())
            .push_bind(key.kind.as_str())
            .push_bind(key.name.clone())
            .push_bind(body.to_vec())
            .push_bind(hash.0.to_vec());
    });
    insert.push(
        " ON CONFLICT (project, kind, name) DO UPDATE SET body = excluded.body, hash = excluded.hash",
    );
    let persistent = present.len() == BATCH;
    insert.build().persistent(persistent).execute(db).await?;
    Ok(())
}

/// Wakes the other control planes when this transaction is committed.
async fn notify(db: &mut PgConnection, revision: u64) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(NOTIFY)
        .bind(revision.to_string())
        .execute(db)
        .await?;
    Ok(())
}

/// Writes `changed` and removes `gone`, as far as they are this control plane's to
/// write.
pub(super) async fn nodes(
    session: &mut Session,
    me: &str,
    changed: Vec<NodeChange>,
    gone: Vec<String>,
) -> Result<Saved, StoreError> {
    session.begin(BEGIN).await?;
    let count = "UPDATE nodes_version SET version = version + 1 RETURNING version";
    let version: i64 = session
        .run(|db| Box::pin(sqlx::query_scalar(count).fetch_one(db)))
        .await?;
    if !gone.is_empty() {
        let me = me.to_owned();
        session
            .run(|db| Box::pin(delete_nodes(db, me, gone)))
            .await?;
    }
    let mut written = Vec::with_capacity(changed.len());
    for batch in changed.chunks(BATCH) {
        let (batch, me) = (batch.to_vec(), me.to_owned());
        let put = session
            .run(|db| Box::pin(put_nodes(db, me, batch, version)))
            .await?;
        written.extend(put);
    }
    // The payload is always the newest revision: any word means "look".
    let notify = "SELECT pg_notify($1, (SELECT revision::text FROM head))";
    session
        .run(|db| Box::pin(sqlx::query(notify).bind(NOTIFY).execute(db)))
        .await?;
    session.commit().await?;
    Ok(Saved {
        version: version as u64,
        written,
    })
}

/// A node that another, living control plane holds is not gone.
async fn delete_nodes(db: &mut PgConnection, me: String, ids: Vec<String>) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM nodes WHERE node_id = ANY($1) AND (owner IS NULL OR owner = $2 OR NOT EXISTS
         (SELECT FROM control_planes AS other WHERE other.id = owner
          AND other.seen_at > clock_timestamp() - make_interval(secs => $3)))",
    )
    .bind(ids)
    .bind(me)
    .bind(GONE.as_secs_f64())
    .execute(db)
    .await?;
    Ok(())
}

/// Writes nodes, but for those whose newer stream another, living control plane
/// holds; which ones were written.
async fn put_nodes(
    db: &mut PgConnection,
    me: String,
    changes: Vec<NodeChange>,
    version: i64,
) -> sqlx::Result<Vec<String>> {
    let mut encoded = Vec::with_capacity(changes.len());
    for change in changes {
        let NodeChange {
            row,
            connected,
            since_ms,
        } = change;
        let json = |value: serde_json::Result<String>| {
            value.map_err(|error| sqlx::Error::Encode(error.into()))
        };
        let texts = [
            json(serde_json::to_string(&row.labels))?,
            json(serde_json::to_string(&row.errors))?,
            json(serde_json::to_string(&row.degraded))?,
            json(serde_json::to_string(&row.sets))?,
            json(serde_json::to_string(&row.set_problems))?,
        ];
        encoded.push((row, texts, connected.then(|| me.clone()), since_ms));
    }
    let mut insert = QueryBuilder::<Postgres>::new(
        "INSERT INTO nodes (node_id, boot_id, version, labels, revision, root_hash, \
         nacked_revision, nacked_root, errors, degraded, apply_us, last_seen_ms, owner, since_ms, changed, \
         sets, set_problems, peer_address) ",
    );
    insert.push_values(encoded, |mut values, (row, texts, owner, since_ms)| {
        let [labels, errors, degraded, sets, set_problems] = texts;
        let bytes = |hash: Option<Hash>| hash.map(|hash| hash.0.to_vec());
        let NodeRow {
            node_id,
            boot_id,
            version: program,
            revision,
            root_hash,
            nacked_revision,
            nacked_root,
            apply_us,
            last_seen_ms,
            peer_address,
            ..
        } = row;
        values
            .push_bind(clean(node_id))
            .push_bind(clean(boot_id))
            .push_bind(clean(program))
            .push_bind(labels)
            .push_bind(revision as i64)
            .push_bind(bytes(root_hash))
            .push_bind(nacked_revision as i64)
            .push_bind(bytes(nacked_root))
            .push_bind(errors)
            .push_bind(degraded)
            .push_bind(apply_us as i64)
            .push_bind(last_seen_ms as i64)
            .push_bind(owner)
            .push_bind(since_ms as i64)
            .push_bind(version)
            .push_bind(sets)
            .push_bind(set_problems)
            .push_bind(clean(peer_address));
    });
    insert.push(
        " ON CONFLICT (node_id) DO UPDATE SET boot_id = excluded.boot_id, version = excluded.version, \
         labels = excluded.labels, revision = excluded.revision, root_hash = excluded.root_hash, \
         nacked_revision = excluded.nacked_revision, nacked_root = excluded.nacked_root, \
         errors = excluded.errors, degraded = excluded.degraded, apply_us = excluded.apply_us, \
         last_seen_ms = excluded.last_seen_ms, owner = excluded.owner, since_ms = excluded.since_ms, \
         changed = excluded.changed, sets = excluded.sets, set_problems = excluded.set_problems, \
         peer_address = excluded.peer_address \
         WHERE nodes.owner IS NULL OR nodes.owner = ",
    );
    insert
        .push_bind(me.clone())
        .push(" OR (nodes.since_ms, nodes.owner) < (excluded.since_ms, ")
        .push_bind(me)
        .push(
            ") OR NOT EXISTS (SELECT FROM control_planes AS other WHERE other.id = nodes.owner \
             AND other.seen_at > clock_timestamp() - make_interval(secs => ",
        )
        .push_bind(GONE.as_secs_f64())
        .push("))");
    insert.push(" RETURNING node_id");
    insert
        .build_query_scalar()
        .persistent(false)
        .fetch_all(db)
        .await
}
