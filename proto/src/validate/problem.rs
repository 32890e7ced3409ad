//! [`Problem`]: what is wrong, and where; and how the checks collect them.

use std::fmt;

use crate::{key::Key, reference, reference::Part, v1};

/// Something that is wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The resource; `None` where the problem is not that of one resource.
    pub key: Option<Key>,
    /// Field path inside the resource, such as `http.url`, `backends[2]` or
    /// `labels["team"]`; empty: the whole.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// The wire message.
    #[must_use]
    pub fn to_wire(&self) -> v1::Problem {
        v1::Problem {
            key: self.key.as_ref().map(Key::to_wire),
            path: self.path.clone(),
            message: self.message.clone(),
        }
    }

    /// The problem of a wire message. A kind that is not known here leaves no key.
    #[must_use]
    pub fn from_wire(problem: &v1::Problem) -> Self {
        Self {
            key: problem.key.as_ref().and_then(Key::from_wire),
            path: problem.path.clone(),
            message: problem.message.clone(),
        }
    }
}

/// `Backend files: http.url: message`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The path of an entry of a map, such as `http.headers["X-Team"]`.
pub(crate) fn entry(map: &str, key: &str) -> String {
    format!("{map}[{key:?}]")
}

/// A problem, and of which of the checked resources.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) resource: usize,
    pub(crate) problem: Problem,
    pub(crate) sort: Sort,
}

/// What a problem depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// On the resource alone.
    Own,
    /// On a resource that does not exist.
    Dangling,
    /// On another resource with the same key.
    Duplicate,
    /// On another gateway.
    Clash,
    /// On which backends a gateway selects.
    Selection,
}

/// Collects the problems of one resource.
pub(super) struct Report<'a> {
    pub(super) resource: usize,
    pub(super) key: Option<Key>,
    pub(super) found: &'a mut Vec<Found>,
}

impl Report<'_> {
    /// Adds a problem of the resource itself.
    pub(super) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add_sort(Sort::Own, path, message);
    }

    pub(super) fn add_sort(
        &mut self,
        sort: Sort,
        path: impl Into<String>,
        message: impl Into<String>,
    ) {
        let problem = Problem {
            key: self.key.clone(),
            path: path.into(),
            message: message.into(),
        };
        self.found.push(Found {
            resource: self.resource,
            problem,
            sort,
        });
    }

    /// As [`parts`](Self::parts), of a text that must not hold a `${secret:NAME}`; `why`
    /// not, and what to do.
    pub(super) fn open_parts(&mut self, path: &str, text: &str, why: &str) -> Vec<Part> {
        let parts = self.parts(path, text);
        if let Some(Part::Secret(name)) = parts.iter().find(|p| matches!(p, Part::Secret(_))) {
            self.add(path, format!("holds `${{secret:{name}}}`, {why}"));
        }
        parts
    }

    /// The parts of a text that may hold references; none where one is malformed,
    /// which is reported.
    pub(super) fn parts(&mut self, path: &str, text: &str) -> Vec<Part> {
        reference::references(text).unwrap_or_else(|message| {
            self.add(path, message);
            Vec::new()
        })
    }
}
