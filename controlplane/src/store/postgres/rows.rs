//! Postgres rows to the store's own.

use fleet_proto::{
    hash::Hash,
    key::{Key, Kind},
};
use serde::de::DeserializeOwned;
use sqlx::{Row, postgres::PgRow};

use super::session::Name;
use crate::{
    api::auth::Role,
    store::{Head, NodeRow, ResourceRow, RevisionRow, StoreError, TokenRow, shared::SeenNode},
};

pub(super) fn head(row: &PgRow, name: &Name) -> Result<Head, StoreError> {
    Ok(Head {
        lineage: text(row, "lineage", name)?,
        revision: number(row, "revision", name)?,
        root_hash: hash(row, "root_hash", name)?,
    })
}

/// Also checks the body against its hash, where one is stored: bytes that
/// rotted on disk must not reach a node.
pub(super) fn resource(row: &PgRow, name: &Name) -> Result<ResourceRow, StoreError> {
    let key = key(row, name)?;
    let body: Vec<u8> = row.try_get("body").map_err(name.failed())?;
    let stored: Option<Vec<u8>> = row.try_get("hash").map_err(name.failed())?;
    if stored.is_some_and(|stored| stored != Hash::of(&body).0) {
        return Err(name.damaged(format!("the stored bytes of {key} do not match their hash")));
    }
    Ok(ResourceRow { key, body })
}

pub(super) fn key(row: &PgRow, name: &Name) -> Result<Key, StoreError> {
    let kind = text(row, "kind", name)?;
    let kind = Kind::parse(&kind)
        .ok_or_else(|| name.damaged(format!("it holds a resource of the unknown kind `{kind}`")))?;
    Ok(Key::new(
        &text(row, "project", name)?,
        kind,
        &text(row, "name", name)?,
    ))
}

pub(super) fn revision(row: &PgRow, name: &Name) -> Result<RevisionRow, StoreError> {
    let count = |column| number(row, column, name).map(|n| n as u32);
    Ok(RevisionRow {
        number: number(row, "number", name)?,
        root_hash: hash(row, "root_hash", name)?,
        created_ms: number(row, "created_ms", name)?,
        author: text(row, "author", name)?,
        message: text(row, "message", name)?,
        created: count("created")?,
        configured: count("configured")?,
        deleted: count("deleted")?,
    })
}

pub(super) fn token(row: &PgRow, name: &Name) -> Result<TokenRow, StoreError> {
    let role = text(row, "role", name)?;
    Ok(TokenRow {
        role: Role::ALL
            .into_iter()
            .find(|r| r.as_str() == role)
            .ok_or_else(|| {
                name.damaged(format!("it holds a token of the unknown role `{role}`"))
            })?,
        label: text(row, "label", name)?,
        hash: hash(row, "hash", name)?,
        created_ms: number(row, "created_ms", name)?,
    })
}

pub(super) fn node(row: &PgRow, name: &Name) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        node_id: text(row, "node_id", name)?,
        boot_id: text(row, "boot_id", name)?,
        version: text(row, "version", name)?,
        labels: json(row, "labels", name)?,
        revision: number(row, "revision", name)?,
        root_hash: optional_hash(row, "root_hash", name)?,
        nacked_revision: number(row, "nacked_revision", name)?,
        nacked_root: optional_hash(row, "nacked_root", name)?,
        errors: json(row, "errors", name)?,
        degraded: json(row, "degraded", name)?,
        apply_us: number(row, "apply_us", name)?,
        last_seen_ms: number(row, "last_seen_ms", name)?,
        sets: json(row, "sets", name)?,
        set_problems: json(row, "set_problems", name)?,
        peer_address: text(row, "peer_address", name)?,
    })
}

pub(super) fn seen_node(row: &PgRow, name: &Name) -> Result<SeenNode, StoreError> {
    Ok(SeenNode {
        row: node(row, name)?,
        owner: row.try_get("owner").map_err(name.failed())?,
        since_ms: number(row, "since_ms", name)?,
        version: number(row, "changed", name)?,
    })
}

pub(super) fn text(row: &PgRow, column: &str, name: &Name) -> Result<String, StoreError> {
    row.try_get(column).map_err(name.failed())
}

pub(super) fn number(row: &PgRow, column: &str, name: &Name) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column).map_err(name.failed())?;
    u64::try_from(number).map_err(|_| name.damaged(format!("column {column} holds {number}")))
}

pub(super) fn hash(row: &PgRow, column: &str, name: &Name) -> Result<Hash, StoreError> {
    let bytes: Vec<u8> = row.try_get(column).map_err(name.failed())?;
    Hash::from_wire(&bytes).ok_or_else(|| {
        name.damaged(format!(
            "column {column} holds {} bytes, not a SHA-256",
            bytes.len()
        ))
    })
}

fn optional_hash(row: &PgRow, column: &str, name: &Name) -> Result<Option<Hash>, StoreError> {
    let bytes: Option<Vec<u8>> = row.try_get(column).map_err(name.failed())?;
    bytes.map(|_| hash(row, column, name)).transpose()
}

pub(super) fn json<T: DeserializeOwned>(
    row: &PgRow,
    column: &str,
    name: &Name,
) -> Result<T, StoreError> {
    let text = text(row, column, name)?;
    serde_json::from_str(&text)
        .map_err(|e| name.damaged(format!("column {column} holds no JSON of its shape ({e})")))
}
