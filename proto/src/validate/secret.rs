//! Rules of Secret, and of texts that use one.

use super::{
    common,
    problem::{Report, Sort},
    set::Index,
};
use crate::{
    reference::Part,
    select::{self, Names, is_glob},
    v1::{Backend, Secret},
};

/// Longest value, in bytes.
const VALUE_MAX: usize = 64 << 10;

pub(super) fn check(secret: &Secret, report: &mut Report<'_>) {
    common::check(&secret.name, &secret.project, &secret.labels, report);
    if secret.backends.is_empty() {
        report.add(
            "backends",
            "is missing or empty: list the backends that may use the secret, or `*` for all of the project",
        );
    }
    for (number, entry) in secret.backends.iter().enumerate() {
        let path = format!("backends[{number}]");
        if is_glob(entry) {
            if let Err(message) = select::compile(entry) {
                report.add(path, message);
            }
        } else if let Some(message) = common::bad_name(entry) {
            report.add(path, message);
        }
    }
}

/// For texts of a backend that may use secrets.
#[derive(Clone, Copy)]
pub(super) struct Uses<'a> {
    pub(super) backend: &'a Backend,
    pub(super) index: &'a Index<'a>,
}

impl Uses<'_> {
    /// The parts of a text, as [`Report::parts`]. The secrets that it names must exist
    /// and list the backend.
    pub(super) fn parts(self, path: &str, text: &str, report: &mut Report<'_>) -> Vec<Part> {
        let parts = report.parts(path, text);
        for part in &parts {
            if let Part::Secret(name) = part
                && let Some(message) = self.refused(name)
            {
                report.add_sort(Sort::Dangling, path, message);
            }
        }
        parts
    }

    /// Why the backend cannot use this secret.
    fn refused(self, name: &str) -> Option<String> {
        let Backend {
            name: backend,
            project,
            ..
        } = self.backend;
        let here = self.index.project(project);
        let Some(secret) = here.and_then(|here| here.secrets.get(name)) else {
            let known = here.iter().flat_map(|here| here.secrets.keys().copied());
            let hint = common::hint(name, known);
            let message = format!("there is no Secret {name} in project {project}{hint}");
            return (!self.index.is_ghost(project, name)).then_some(message);
        };
        let listed = Names::new(&secret.backends).matches(backend);
        (!listed).then(|| {
            format!(
                "Secret {name} does not list backend {backend}: add it to the `backends` of the secret"
            )
        })
    }
}

/// Why a text cannot be the value of a Secret. The message does not hold it.
#[must_use]
pub fn bad_value(value: &str) -> Option<String> {
    (value.len() > VALUE_MAX).then(|| {
        format!(
            "the value has {} bytes: at most {VALUE_MAX} are allowed",
            value.len()
        )
    })
}
