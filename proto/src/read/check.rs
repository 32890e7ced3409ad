//! Reading and validation together: everything that is wrong with a set of files,
//! once, in order, and without what merely follows from something else.

use std::collections::HashMap;

use super::{Bad, Document, Documents, Located, parent};
use crate::{
    descriptor,
    key::Key,
    secret,
    v1::{Resource, resource},
    validate::{self, Found, Problem, Sort, Valid, normalize},
};

impl Documents {
    /// Checks the files as a whole configuration.
    ///
    /// # Errors
    /// All problems of reading and of validation, in the order of the files.
    pub fn check(self) -> Result<(Self, Valid), Vec<Located>> {
        self.check_with([])
    }

    /// Checks the files as a change to what is stored: their resources replace
    /// stored ones of the same key and may name stored ones. The result is the
    /// whole set.
    ///
    /// # Errors
    /// All problems of reading and of validation, in the order of the files;
    /// those of stored resources follow, without a location.
    pub fn check_with(
        self,
        stored: impl IntoIterator<Item = Resource>,
    ) -> Result<(Self, Valid), Vec<Located>> {
        let mut resources: Vec<_> = self
            .documents
            .iter()
            .map(|d| normalize(d.resource.clone()))
            .collect();
        // Where each key is written first.
        let mut written = HashMap::new();
        for (number, key) in resources.iter().map(Key::of).enumerate() {
            written.entry(key).or_insert(number);
        }
        let stored = stored.into_iter().map(normalize);
        resources.extend(stored.filter(|r| !written.contains_key(&Key::of(r))));

        let found = validate::check(&resources.iter().collect::<Vec<_>>(), &self.ghosts);
        let found: Vec<_> = self
            .bad_values()
            .chain(found)
            .filter(|found| !self.is_noise(found))
            .collect();
        if found.is_empty() && self.problems.is_empty() {
            return Ok((self, validate::assemble(resources)));
        }
        let mut all = self.problems.clone();
        all.extend(found.iter().map(|found| {
            let first = written.get(&found.problem.key).copied();
            self.place_found(found, first)
        }));
        let file = |name: &str| self.files.iter().position(|file| file == name);
        all.sort_by_cached_key(|located| match &located.location {
            Some(at) => (false, file(&at.file), at.line, at.column),
            None => (true, None, 0, 0),
        });
        Err(all)
    }

    /// Values of Secrets that cannot be meant so.
    fn bad_values(&self) -> impl Iterator<Item = Found> {
        let documents = self.documents.iter().enumerate();
        documents.filter_map(|(number, document)| {
            let Some(resource::Kind::Secret(secret)) = &document.resource.kind else {
                return None;
            };
            let well_formed = secret::written(&secret.value, |_| Ok(String::new()));
            let message = validate::bad_value(&secret.value).or(well_formed.err())?;
            let problem = Problem {
                key: Key::of(&document.resource),
                path: "value".to_owned(),
                message,
            };
            Some(Found {
                resource: number,
                problem,
                sort: Sort::Own,
            })
        })
    }

    fn place_found(&self, found: &Found, first: Option<usize>) -> Located {
        let mut message = found.problem.to_string();
        if found.sort == Sort::Duplicate
            && let Some(first) = first.and_then(|number| self.documents.get(number))
        {
            let at = self.location(first, "name");
            message = format!("{message} (the first is at {at})");
        }
        let document = self.documents.get(found.resource);
        Located {
            location: document.map(|d| self.location(d, &found.problem.path)),
            message,
        }
    }

    /// Whether a problem only follows from what could not be read.
    fn is_noise(&self, found: &Found) -> bool {
        let incomplete = || self.documents.iter().any(|d| !d.complete);
        match found.sort {
            Sort::Dangling if self.broken => return true,
            Sort::Selection if self.broken || incomplete() => return true,
            _ => {}
        }
        let document = self.documents.get(found.resource);
        document.is_some_and(|d| d.bad.iter().any(|bad| d.explains(bad, &found.problem.path)))
    }
}

impl Document {
    /// Whether what is wrong at `bad` may be why there is a problem at `path`.
    fn explains(&self, bad: &Bad, path: &str) -> bool {
        if path.is_empty() {
            // The whole resource lacks something: one of a choice.
            let kind = Key::of(&self.resource).map(|key| descriptor::message(key.kind.as_str()));
            let field = kind.and_then(|message| message.get_field_by_name(&bad.path));
            return bad.unknown || field.is_some_and(|field| field.containing_oneof().is_some());
        }
        let is_typo =
            bad.unknown && parent(&bad.path) == parent(path) && !self.positions.contains_key(path);
        is_typo || is_within(path, &bad.path) || is_within(&bad.path, path)
    }
}

/// Whether a path is another one or something inside it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
