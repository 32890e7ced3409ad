//! Values of Secrets in a write: what becomes of them, and what is said of that.
//! They are compared under the locked head, and no plan or difference holds one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleet_proto::{
    key::{Key, Kind},
    secret::{self, Name, Value},
    v1::{Action, AuditChange, Resource, resource},
    validate::Problem,
};
use subtle::ConstantTimeEq;

use super::plan::Plan;
use crate::{
    sets::{Current, Set, Sets, SetsError},
    store::{Stored, sets::SetChanges},
};

/// Takes the values out of the resources of a write.
pub(super) fn take(put: &mut [Resource]) -> (BTreeMap<Name, Value>, Vec<Problem>) {
    match secret::take(put) {
        Ok(values) => {
            let named = |(key, value): (Key, Value)| ((key.project, key.name), value);
            (values.into_iter().map(named).collect(), Vec::new())
        }
        Err(problems) => (BTreeMap::new(), problems),
    }
}

/// What was found so far or, where that is nothing, Secrets that would have no value.
pub(super) fn missing(
    put: &[Resource],
    given: &BTreeMap<Name, Value>,
    found: Vec<Problem>,
    current: &Current,
) -> Vec<Problem> {
    if !found.is_empty() {
        return found;
    }
    let secrets = put.iter().filter_map(|resource| {
        let key = Key::of(resource)?;
        matches!(resource.kind, Some(resource::Kind::Secret(_))).then_some(key)
    });
    let lacks = secrets.filter(|key| {
        let name = (key.project.clone(), key.name.clone());
        !given.contains_key(&name) && !current.secrets.entries.contains_key(&name)
    });
    lacks
        .map(|key| Problem {
            key: Some(key),
            path: "value".to_owned(),
            message: "a new Secret needs a value: there is none stored".to_owned(),
        })
        .collect()
}

/// What a write does to the values.
pub(super) struct Values {
    /// Those that are not as they were.
    changed: BTreeMap<Name, Value>,
    gone: BTreeSet<Name>,
}

impl Values {
    /// Compares what is given with what is there. Values of Secrets that the plan
    /// removes are gone.
    pub(super) fn of(given: BTreeMap<Name, Value>, plan: &Plan, current: &Current) -> Self {
        let stored = &current.secrets.entries;
        let differs = |name: &Name, value: &Value| {
            let stored = stored.get(name);
            stored.is_none_or(|stored| !same(stored, value))
        };
        let gone = plan.rows.iter().filter_map(|row| {
            let is_gone = row.key.kind == Kind::Secret && row.change == Stored::Deleted;
            let name = (row.key.project.clone(), row.key.name.clone());
            (is_gone && stored.contains_key(&name)).then_some(name)
        });
        let gone = gone.collect();
        Self {
            changed: given
                .into_iter()
                .filter(|(name, value)| differs(name, value))
                .collect(),
            gone,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.gone.is_empty()
    }

    /// Says in the plan that Secrets with another value are not unchanged, and in
    /// the differences that it is the value.
    pub(super) fn show(&self, plan: &mut Plan, differences: &mut Vec<AuditChange>) {
        for (key, action) in &mut plan.changes {
            let name = (key.project.clone(), key.name.clone());
            if key.kind != Kind::Secret || !self.changed.contains_key(&name) {
                continue;
            }
            let wire = key.to_wire();
            if *action == Action::Unchanged {
                *action = Action::Configured;
                differences.push(AuditChange {
                    key: Some(wire),
                    action: Action::Configured.into(),
                    fields: vec!["value".to_owned()],
                    ..AuditChange::default()
                });
            } else if *action == Action::Configured {
                let mut of = differences
                    .iter_mut()
                    .filter(|d| d.key.as_ref() == Some(&wire));
                if let Some(difference) = of.next() {
                    difference.fields.push("value".to_owned());
                }
            }
        }
    }

    /// The sets as they are after the write, and what makes them so.
    pub(super) fn apply(
        self,
        sets: &Sets,
        current: &Current,
    ) -> Result<(Current, SetChanges), SetsError> {
        let mut after = current.clone();
        let mut changes = SetChanges::default();
        let mut values = BTreeMap::clone(&current.secrets.entries);
        for name in self.gone {
            values.remove(&name);
            changes.drop_values.push(name);
        }
        for (name, value) in self.changed {
            changes.put_values.push(sets.seal_value(&name, &value)?);
            values.insert(name, Arc::new(value));
        }
        after.secrets = Set {
            version: current.secrets.next_version()?,
            entries: Arc::new(values),
        };
        changes.versions.push(after.secrets.version.clone());
        Ok((after, changes))
    }
}

/// In a time that does not tell where they differ.
fn same(a: &Value, b: &Value) -> bool {
    a.expose().as_bytes().ct_eq(b.expose().as_bytes()).into()
}
