//! What control planes over one Postgres tell each other.

use std::{collections::HashSet, time::Duration};

use futures_util::future::BoxFuture;

use super::{Postgres, rows, session::SNAPSHOT, write};
use crate::store::{
    Head, ResourceRow, StoreError,
    shared::{GONE, SeenNode, Shared},
};

/// Rows of control planes that have been gone for so long are removed.
const FORGOTTEN: Duration = Duration::from_hours(1);

impl Shared for Postgres {
    fn id(&self) -> &str {
        &self.id
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.heard.notified())
    }

    fn beat(&self) -> BoxFuture<'_, Result<HashSet<String>, StoreError>> {
        Box::pin(async {
            let beat = sqlx::query(
                "INSERT INTO control_planes VALUES ($1, clock_timestamp())
                 ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
            );
            let forget = sqlx::query(
                "DELETE FROM control_planes WHERE seen_at < clock_timestamp() - make_interval(secs => $1)",
            )
            .bind(FORGOTTEN.as_secs_f64());
            let live = sqlx::query_scalar(
                "SELECT id FROM control_planes
                 WHERE seen_at > clock_timestamp() - make_interval(secs => $1)",
            )
            .bind(GONE.as_secs_f64());
            let id = self.id.clone();
            let mut session = self.connections.get().await?;
            session
                .run(|db| {
                    Box::pin(async move {
                        beat.bind(id).execute(&mut *db).await?;
                        forget.execute(&mut *db).await?;
                        let live: Vec<String> = live.fetch_all(db).await?;
                        Ok(live.into_iter().collect())
                    })
                })
                .await
        })
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            let query = sqlx::query("DELETE FROM control_planes WHERE id = $1");
            self.execute(query.bind(self.id.clone())).await.map(drop)
        })
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        Box::pin(async {
            let query = sqlx::query("SELECT lineage, revision, root_hash FROM head");
            let rows = self.read(query).await?;
            let row = rows.first();
            rows::head(
                row.ok_or_else(|| self.name().damaged("it has no head"))?,
                self.name(),
            )
        })
    }

    fn newest(&self) -> BoxFuture<'_, Result<(Head, Vec<ResourceRow>), StoreError>> {
        Box::pin(async {
            let mut session = self.connections.get().await?;
            session.begin(SNAPSHOT).await?;
            let query = "SELECT lineage, revision, root_hash FROM head";
            let row = session
                .run(|db| Box::pin(sqlx::query(query).fetch_one(db)))
                .await?;
            let head = rows::head(&row, self.name())?;
            let resources = write::resources(&mut session, self.name()).await?;
            session.commit().await?;
            Ok((head, resources))
        })
    }

    fn nodes_since(&self, version: u64) -> BoxFuture<'_, Result<(u64, Vec<SeenNode>), StoreError>> {
        Box::pin(async move {
            let mut session = self.connections.get().await?;
            // The number first: what is written meanwhile is read again.
            let number = "SELECT version FROM nodes_version";
            let newest: i64 = session
                .run(|db| Box::pin(sqlx::query_scalar(number).fetch_one(db)))
                .await?;
            if newest as u64 == version {
                return Ok((version, Vec::new()));
            }
            let query = sqlx::query("SELECT * FROM nodes WHERE changed > $1");
            let query = query.bind(version as i64);
            let rows = session.run(|db| Box::pin(query.fetch_all(db))).await?;
            let nodes = rows.iter().map(|row| rows::seen_node(row, self.name()));
            Ok((newest as u64, nodes.collect::<Result<_, _>>()?))
        })
    }
}
