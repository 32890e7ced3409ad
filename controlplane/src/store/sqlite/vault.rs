//! The check value of the store key.

use sqlx::Row;

use super::Sqlite;
use crate::store::StoreError;

pub(super) async fn check(store: &Sqlite) -> Result<Option<Vec<u8>>, StoreError> {
    // Not of a reader: what was written a moment ago must be seen.
    let row = sqlx::query("SELECT check_value FROM vault")
        .fetch_optional(&store.writer)
        .await
        .map_err(store.name.failed())?;
    row.map(|row| row.try_get("check_value").map_err(store.name.failed()))
        .transpose()
}

pub(super) async fn add_check(store: &Sqlite, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    sqlx::query("INSERT INTO vault VALUES (1, ?) ON CONFLICT DO NOTHING")
        .bind(value)
        .execute(&store.writer)
        .await
        .map_err(store.name.failed())?;
    let kept = check(store).await?;
    kept.ok_or_else(|| {
        store
            .name
            .damaged("the check value of the store key is gone")
    })
}

pub(super) async fn put_check(store: &Sqlite, value: Vec<u8>) -> Result<(), StoreError> {
    sqlx::query("UPDATE vault SET check_value = ?")
        .bind(value)
        .execute(&store.writer)
        .await
        .map_err(store.name.failed())?;
    Ok(())
}
