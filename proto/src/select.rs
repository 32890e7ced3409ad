//! Which backends are behind a gateway: `backends` and `backend_labels`.
//!
//! Validation and the data plane ask the same question here.

use std::collections::{BTreeMap, HashSet};

use globset::{Glob, GlobMatcher};

use crate::v1::{Backend, Gateway};

/// Selects the backends of one gateway.
#[derive(Debug)]
pub struct Selector<'a> {
    project: &'a str,
    /// `None`: the gateway names no backends, so every name will do.
    names: Option<Names<'a>>,
    labels: &'a BTreeMap<String, String>,
}

/// A list of names and globs.
#[derive(Debug)]
pub struct Names<'a> {
    exact: HashSet<&'a str>,
    globs: Vec<GlobMatcher>,
}

impl<'a> Names<'a> {
    /// The names and globs of a list. A glob that does not compile matches nothing;
    /// validation refuses it.
    #[must_use]
    pub fn new(list: &'a [String]) -> Self {
        let (globs, exact): (Vec<_>, Vec<_>) = list.iter().partition(|name| is_glob(name));
        Self {
            exact: exact.into_iter().map(String::as_str).collect(),
            globs: globs
                .into_iter()
                .filter_map(|glob| compile(glob).ok())
                .collect(),
        }
    }

    /// Whether a name is in the list.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.exact.contains(name) || self.globs.iter().any(|glob| glob.is_match(name))
    }
}

impl<'a> Selector<'a> {
    /// The selector of a gateway. A glob that does not compile selects nothing;
    /// validation refuses it.
    #[must_use]
    pub fn new(gateway: &'a Gateway) -> Self {
        let names = (!gateway.backends.is_empty()).then(|| Names::new(&gateway.backends));
        Self {
            project: &gateway.project,
            names,
            labels: &gateway.backend_labels,
        }
    }

    /// Whether a (normalised) backend is behind the gateway: of its project, named
    /// by `backends` (if any) and carrying all of `backend_labels` (if any).
    #[must_use]
    pub fn matches(&self, backend: &Backend) -> bool {
        backend.project == self.project
            && self
                .labels
                .iter()
                .all(|(key, value)| backend.labels.get(key) == Some(value))
            && self
                .names
                .as_ref()
                .is_none_or(|names| names.matches(&backend.name))
    }
}

/// Whether an entry of `backends` is a glob rather than a name.
#[must_use]
pub fn is_glob(entry: &str) -> bool {
    entry.contains(['*', '?'])
}

/// Only `*` and `?` mean something: names cannot hold what else globs know.
pub(crate) fn compile(glob: &str) -> Result<GlobMatcher, String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "_-.*?".contains(c);
    if !glob.chars().all(known) {
        return Err(
            "a glob holds letters, digits, `_`, `-`, `.` and the wildcards `*` and `?`".to_owned(),
        );
    }
    Glob::new(glob)
        .map(|g| g.compile_matcher())
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, labels: &[(&str, &str)]) -> Backend {
        let labels = labels
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        Backend {
            name: name.into(),
            project: "p".into(),
            labels,
            ..Backend::default()
        }
    }

    fn gateway(backends: &[&str], labels: &[(&str, &str)]) -> Gateway {
        Gateway {
            project: "p".into(),
            backends: backends.iter().map(|&b| b.to_owned()).collect(),
            backend_labels: backend("", labels).labels,
            ..Gateway::default()
        }
    }

    #[test]
    fn names_globs_and_labels_select() {
        let files = backend("files", &[("team", "core"), ("tier", "1")]);
        for (names, labels, expected) in [
            (&[][..], &[][..], true),
            (&["files"], &[], true),
            (&["f*"], &[], true),
            (&["file?"], &[], true),
            (&["file"], &[], false),
            (&["other", "*s"], &[], true),
            (&[], &[("team", "core")], true),
            (&[], &[("team", "core"), ("tier", "2")], false),
            (&["*"], &[("team", "web")], false),
            (&["x*"], &[("team", "core")], false),
        ] {
            assert_eq!(
                Selector::new(&gateway(names, labels)).matches(&files),
                expected,
                "{names:?} {labels:?}"
            );
        }
        let elsewhere = Backend {
            project: "q".into(),
            ..files
        };
        assert!(!Selector::new(&gateway(&[], &[])).matches(&elsewhere));
    }

    #[test]
    fn only_two_wildcards_are_known() {
        assert!(compile("a*?.b-c_d").is_ok());
        for glob in ["a{b,c}*", "[ab]*", "!a*", "a/*", "a\\*"] {
            assert!(compile(glob).is_err(), "{glob}");
        }
    }
}
