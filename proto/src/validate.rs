//! Resources to [`Valid`], or every problem with its path.
//!
//! Run by mcpctl on files, by the control plane before a write (over the whole
//! resulting set) and by a data plane on what it receives. Each kind has a file
//! with its own rules; what depends on other resources is looked up in one index
//! of the set, so that the work grows with the set and not with its square.

mod auth;
mod backend;
mod common;
mod gateway;
mod problem;
mod secret;
mod set;
#[cfg(test)]
mod tests;
mod valid;

use std::collections::{BTreeSet, HashMap, HashSet};

use prost::Message;

use crate::{
    key::{DEFAULT_PROJECT, Key},
    v1::{Resource, resource},
};

pub use backend::{DEFAULT_MAX_DURATION, DEFAULT_TIMEOUT};
pub(crate) use common::bad_name;
pub use gateway::{DEFAULT_RESUME_GRACE, DEFAULT_SEPARATOR};
pub use problem::Problem;
use problem::Report;
pub(crate) use problem::{Found, Sort, entry};
pub use secret::bad_value;
pub use valid::{Entry, Valid};

/// The form in which a resource is stored: `project` filled in, literal bearer
/// tokens replaced by their hash, the value of a Secret left out
/// ([`secret::take`](crate::secret::take) takes it first). A token that validation
/// refuses stays as it is.
#[must_use]
pub fn normalize(mut resource: Resource) -> Resource {
    let project = match &mut resource.kind {
        Some(resource::Kind::Backend(backend)) => &mut backend.project,
        Some(resource::Kind::Gateway(gateway)) => &mut gateway.project,
        Some(resource::Kind::AuthPolicy(policy)) => {
            auth::normalize(policy);
            &mut policy.project
        }
        Some(resource::Kind::Secret(secret)) => {
            secret.value.clear();
            &mut secret.project
        }
        None => return resource,
    };
    if project.is_empty() {
        DEFAULT_PROJECT.clone_into(project);
    }
    resource
}

/// Normalises resources and checks each of them and the whole set.
///
/// # Errors
/// All problems, in the order of the resources.
pub fn validate(resources: impl IntoIterator<Item = Resource>) -> Result<Valid, Vec<Problem>> {
    let resources: Vec<_> = resources.into_iter().map(normalize).collect();
    checked(&resources.iter().collect::<Vec<_>>())?;
    Ok(assemble(resources))
}

fn checked(resources: &[&Resource]) -> Result<(), Vec<Problem>> {
    let found = check(resources, &HashSet::new());
    if found.is_empty() {
        Ok(())
    } else {
        Err(found.into_iter().map(|found| found.problem).collect())
    }
}

impl Valid {
    /// This set with resources added or replaced and others removed, checked
    /// whole. What is put wins over what is removed; what is neither is shared,
    /// and not encoded or hashed again.
    ///
    /// # Errors
    /// All problems of the resulting set, those of `put` last.
    pub fn with(
        &self,
        put: impl IntoIterator<Item = Resource>,
        remove: &BTreeSet<Key>,
    ) -> Result<Self, Vec<Problem>> {
        let put: Vec<_> = put.into_iter().map(normalize).collect();
        let replaced: HashSet<_> = put.iter().filter_map(Key::of).collect();
        let kept = self
            .iter()
            .filter(|(key, _)| !replaced.contains(key) && !remove.contains(key));
        let result: Vec<_> = kept
            .map(|(_, entry)| entry.resource())
            .chain(&put)
            .collect();
        checked(&result)?;
        let put = put
            .into_iter()
            .filter_map(|resource| Some((Key::of(&resource)?, resource)));
        Ok(self.changed(put, remove))
    }

    /// As [`with`](Self::with), of resources as a data plane receives them: see
    /// [`validate_encoded`].
    ///
    /// # Errors
    /// All problems: of the encoding or, where that is sound, of the set.
    pub fn with_encoded(
        &self,
        put: impl IntoIterator<Item = (Key, Vec<u8>)>,
        remove: &BTreeSet<Key>,
    ) -> Result<Self, Vec<Problem>> {
        self.with(decode_all(put)?, remove)
    }
}

/// Checks a set as a data plane receives it: the bytes of each resource must be
/// exactly what this program would write for it, so that nothing it does not know
/// is dropped.
///
/// # Errors
/// All problems: of the encoding or, where that is sound, of the set.
pub fn validate_encoded(
    items: impl IntoIterator<Item = (Key, Vec<u8>)>,
) -> Result<Valid, Vec<Problem>> {
    validate(decode_all(items)?)
}

fn decode_all(
    items: impl IntoIterator<Item = (Key, Vec<u8>)>,
) -> Result<Vec<Resource>, Vec<Problem>> {
    let mut resources = Vec::new();
    let mut problems = Vec::new();
    for (key, bytes) in items {
        match decode(&key, &bytes) {
            Ok(resource) => resources.push(resource),
            Err(message) => problems.push(Problem {
                key: Some(key),
                path: String::new(),
                message,
            }),
        }
    }
    if problems.is_empty() {
        Ok(resources)
    } else {
        Err(problems)
    }
}

fn decode(key: &Key, bytes: &[u8]) -> Result<Resource, String> {
    let resource =
        Resource::decode(bytes).map_err(|e| format!("its bytes are not a resource: {e}"))?;
    // Unknown fields and unknown kinds are lost in decoding: the bytes differ.
    if resource.encode_to_vec() != bytes {
        return Err("made by a newer control plane, with fields that this data plane does not know: upgrade this data plane".to_owned());
    }
    if Key::of(&resource).as_ref() != Some(key) {
        return Err(
            "was sent under a key that is not its own: report this as a bug of the control plane"
                .to_owned(),
        );
    }
    let normalized = normalize(resource);
    if normalized.encode_to_vec() != bytes {
        return Err(
            "is not in the form in which this version stores it: run the same version everywhere"
                .to_owned(),
        );
    }
    Ok(normalized)
}

/// Every problem of a set of normalised resources. `ghosts` are (project, name)
/// of resources that exist but could not be read, not even their kind.
pub(crate) fn check(resources: &[&Resource], ghosts: &HashSet<(String, String)>) -> Vec<Found> {
    let mut found = Vec::new();
    let keys: Vec<_> = resources.iter().map(|resource| Key::of(resource)).collect();
    let index = set::Index::new(resources, ghosts);
    let mut first_of: HashMap<&Key, usize> = HashMap::with_capacity(resources.len());
    for (number, resource) in resources.iter().enumerate() {
        let key = keys[number].as_ref();
        let mut report = Report {
            resource: number,
            key: key.cloned(),
            found: &mut found,
        };
        match &resource.kind {
            Some(resource::Kind::Backend(backend)) => backend::check(backend, &index, &mut report),
            Some(resource::Kind::Gateway(gateway)) => {
                gateway::check(gateway, number, &index, &mut report)
            }
            Some(resource::Kind::AuthPolicy(policy)) => auth::check(policy, &mut report),
            Some(resource::Kind::Secret(secret)) => secret::check(secret, &mut report),
            None => report.add(
                "",
                "has no kind: set one of backend, gateway, auth_policy, secret",
            ),
        }
        if let Some(key) = key.filter(|key| !key.name.is_empty())
            && *first_of.entry(key).or_insert(number) != number
        {
            let message = format!("{key} is defined twice: remove one, or give it another name");
            report.add_sort(Sort::Duplicate, "name", message);
        }
    }
    found
}

/// Makes the set of resources in which [`check`] has found nothing.
pub(crate) fn assemble(resources: Vec<Resource>) -> Valid {
    let keyed = resources
        .into_iter()
        .filter_map(|resource| Some((Key::of(&resource)?, resource)));
    Valid::new(keyed)
}
