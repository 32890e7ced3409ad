//! What a write would do: no database, no clock, no waiting.

use std::collections::HashSet;

use fleet_proto::{
    key::Key,
    v1::{Action, Resource},
    validate::{Entry, Problem, Valid, validate},
};
use prost::Message;

use super::{ChangeError, Edit};
use crate::store::{ChangeRow, ResourceRow, Stored};

/// Stored rows as a checked set; the rows come back for comparison.
pub(crate) fn load(rows: Vec<ResourceRow>) -> Result<(Valid, Vec<ResourceRow>), Vec<Problem>> {
    let mut resources = Vec::with_capacity(rows.len());
    let mut problems = Vec::new();
    for row in &rows {
        match Resource::decode(row.body.as_slice()) {
            Ok(resource) if Key::of(&resource).as_ref() == Some(&row.key) => {
                resources.push(resource);
            }
            Ok(_) => problems.push(damaged(row, "it is stored under a key that is not its own")),
            Err(error) => problems.push(damaged(
                row,
                &format!("its stored bytes are damaged: {error}"),
            )),
        }
    }
    if problems.is_empty() {
        validate(resources).map(|valid| (valid, rows))
    } else {
        Err(problems)
    }
}

fn damaged(row: &ResourceRow, message: &str) -> Problem {
    Problem {
        key: Some(row.key.clone()),
        path: String::new(),
        message: message.to_owned(),
    }
}

/// The rows whose bytes differ in `valid`.
pub(super) fn rewritten(rows: &[ResourceRow], valid: &Valid) -> Vec<ChangeRow> {
    rows.iter()
        .filter_map(|row| {
            let entry = valid
                .get(&row.key)
                .filter(|entry| entry.body() != row.body)?;
            let change = Stored::Configured {
                body: entry.body().to_vec(),
                hash: entry.hash(),
            };
            Some(ChangeRow {
                key: row.key.clone(),
                change,
            })
        })
        .collect()
}

/// What a write would do.
pub(super) struct Plan {
    pub(super) valid: Valid,
    pub(super) changes: Vec<(Key, Action)>,
    pub(super) rows: Vec<ChangeRow>,
}

/// The set as it will be, whole and checked, and how it differs.
pub(super) fn plan(base: &Valid, edit: Edit) -> Result<Plan, ChangeError> {
    let (keys, put) = match edit {
        Edit::Put(resources) => (resources.iter().filter_map(Key::of).collect(), resources),
        Edit::Remove(keys) => (keys, Vec::new()),
    };
    let touched: HashSet<&Key> = keys.iter().collect();
    if put.is_empty() {
        let missing: Vec<_> = keys
            .iter()
            .filter(|k| base.get(k).is_none())
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(ChangeError::Missing(missing));
        }
    }
    // What is stored comes first: where the two clash, the new one is named.
    let kept = base.iter().filter(|(key, _)| !touched.contains(key));
    let result = kept.map(|(_, entry)| entry.resource().clone()).chain(put);
    let valid = validate(result).map_err(ChangeError::Invalid)?;

    let mut changes = Vec::with_capacity(keys.len());
    let mut rows = Vec::new();
    let mut seen = HashSet::with_capacity(keys.len());
    for key in keys.iter().filter(|key| seen.insert(*key)) {
        let (action, stored) = compare(base, &valid, key);
        changes.push((key.clone(), action));
        rows.extend(stored.map(|change| ChangeRow {
            key: key.clone(),
            change,
        }));
    }
    Ok(Plan {
        valid,
        changes,
        rows,
    })
}

fn compare(base: &Valid, valid: &Valid, key: &Key) -> (Action, Option<Stored>) {
    let stored = |entry: &Entry| (entry.body().to_vec(), entry.hash());
    match (base.get(key), valid.get(key)) {
        (Some(old), Some(new)) if old.hash() == new.hash() => (Action::Unchanged, None),
        (Some(_), Some(new)) => {
            let (body, hash) = stored(new);
            (Action::Configured, Some(Stored::Configured { body, hash }))
        }
        (None, Some(new)) => {
            let (body, hash) = stored(new);
            (Action::Created, Some(Stored::Created { body, hash }))
        }
        (_, None) => (Action::Deleted, Some(Stored::Deleted)),
    }
}
