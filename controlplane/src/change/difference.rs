//! What a write changes, for the audit log: hashes and paths, never values.

use fleet_proto::{
    v1::{Action, AuditChange, Resource},
    validate::Valid,
};
use serde_json::Value;

use super::plan::Plan;
use crate::store::Stored;

/// Paths kept of one resource.
const MOST_FIELDS: usize = 100;

/// How the plan's result differs from its base.
pub(super) fn differences(base: &Valid, plan: &Plan) -> Vec<AuditChange> {
    let changes = plan.rows.iter().map(|row| {
        let old = base.get(&row.key);
        let new = plan.valid.get(&row.key);
        let fields = match (old, new) {
            (Some(old), Some(new)) => fields(old.resource(), new.resource()),
            _ => Vec::new(),
        };
        AuditChange {
            key: Some(row.key.to_wire()),
            action: action(&row.change).into(),
            old_hash: old.map(|e| e.hash().to_string()).unwrap_or_default(),
            new_hash: new.map(|e| e.hash().to_string()).unwrap_or_default(),
            fields,
        }
    });
    changes.collect()
}

fn action(change: &Stored) -> Action {
    match change {
        Stored::Created { .. } => Action::Created,
        Stored::Configured { .. } => Action::Configured,
        Stored::Deleted => Action::Deleted,
    }
}

fn fields(old: &Resource, new: &Resource) -> Vec<String> {
    let mut found = Vec::new();
    collect(&inner(old), &inner(new), "", &mut found);
    found.truncate(MOST_FIELDS);
    found
}

/// A resource as JSON, without its kind around it.
fn inner(resource: &Resource) -> Value {
    match serde_json::to_value(resource) {
        Ok(Value::Object(kinds)) => kinds.into_iter().next().map_or(Value::Null, |(_, v)| v),
        // What is stored is JSON: there is nothing to be said of anything else.
        _ => Value::Null,
    }
}

fn collect(old: &Value, new: &Value, path: &str, found: &mut Vec<String>) {
    let (Value::Object(a), Value::Object(b)) = (old, new) else {
        if old != new {
            found.push(path.to_owned());
        }
        return;
    };
    let added = b.keys().filter(|name| !a.contains_key(*name));
    for name in a.keys().chain(added) {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let value = |object: &serde_json::Map<_, _>| object.get(name).cloned().unwrap_or_default();
        collect(&value(a), &value(b), &path, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_that_differ_are_named_and_no_value_is() {
        let resource = |text: &str| serde_json::from_str::<Resource>(text).unwrap();
        let old = resource(
            r#"{"backend":{"name":"a","labels":{"x":"1"},
                "http":{"url":"http://old","headers":{"X-Key":"secret"}}}}"#,
        );
        let new = resource(
            r#"{"backend":{"name":"a","labels":{"x":"1"},"timeout":"5s",
                "http":{"url":"http://new","headers":{"X-Key":"other"}}}}"#,
        );
        let mut found = fields(&old, &new);
        found.sort();
        assert_eq!(found, ["http.headers.X-Key", "http.url", "timeout"]);
        assert!(fields(&old, &old).is_empty());
    }
}
