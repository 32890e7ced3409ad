//! What a write would do: no database, no clock, no waiting.

use std::collections::{BTreeSet, HashSet};

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
    let Edit {
        put,
        remove,
        must_exist,
    } = edit;
    if must_exist {
        let absent = remove.iter().filter(|key| base.get(key).is_none());
        let missing: Vec<_> = absent.cloned().collect();
        if !missing.is_empty() {
            return Err(ChangeError::Missing(missing));
        }
    }
    let mut keys: Vec<Key> = put.iter().filter_map(Key::of).collect();
    let contradictory = contradictions(&keys, &remove);
    // What is stored comes first: where the two clash, the new one is named.
    let valid = match base.with(put, &remove.iter().cloned().collect()) {
        Ok(valid) if contradictory.is_empty() => valid,
        Ok(_) => return Err(ChangeError::Invalid(contradictory)),
        Err(mut problems) => {
            problems.extend(contradictory);
            return Err(ChangeError::Invalid(problems));
        }
    };
    keys.extend(remove);

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

/// What is to be written and to be removed: nobody can mean both.
fn contradictions(put: &[Key], remove: &[Key]) -> Vec<Problem> {
    let put: HashSet<&Key> = put.iter().collect();
    let both: BTreeSet<&Key> = remove.iter().filter(|key| put.contains(key)).collect();
    let problem = |key: &Key| Problem {
        key: Some(key.clone()),
        path: String::new(),
        message: "is to be written and to be removed in one request: leave out one of the two"
            .to_owned(),
    };
    both.into_iter().map(problem).collect()
}

fn compare(base: &Valid, valid: &Valid, key: &Key) -> (Action, Option<Stored>) {
    let stored = |entry: &Entry| (entry.body().to_vec(), entry.hash());
    match (base.get(key), valid.get(key)) {
        (None, None) => (Action::Unchanged, None),
        (Some(old), Some(new)) if old.hash() == new.hash() => (Action::Unchanged, None),
        (Some(_), Some(new)) => {
            let (body, hash) = stored(new);
            (Action::Configured, Some(Stored::Configured { body, hash }))
        }
        (None, Some(new)) => {
            let (body, hash) = stored(new);
            (Action::Created, Some(Stored::Created { body, hash }))
        }
        (Some(_), None) => (Action::Deleted, Some(Stored::Deleted)),
    }
}
