//! The check value of the store key.

use sqlx::Row;

use super::Postgres;
use crate::store::StoreError;

pub(super) async fn check(store: &Postgres) -> Result<Option<Vec<u8>>, StoreError> {
    let rows = store
        .read(sqlx::query("SELECT check_value FROM vault"))
        .await?;
    let value = |row: &sqlx::postgres::PgRow| row.try_get("check_value");
    rows.first()
        .map(value)
        .transpose()
        .map_err(store.name().failed())
}

pub(super) async fn add_check(store: &Postgres, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let query = sqlx::query("INSERT INTO vault VALUES (1, $1) ON CONFLICT DO NOTHING");
    store.execute(query.bind(value)).await?;
    let kept = check(store).await?;
    kept.ok_or_else(|| {
        store
            .name()
            .damaged("the check value of the store key is gone")
    })
}

pub(super) async fn put_check(store: &Postgres, value: Vec<u8>) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE vault SET check_value = $1");
    store.execute(query.bind(value)).await.map(drop)
}
