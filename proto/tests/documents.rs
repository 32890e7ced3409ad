//! What the documents name must exist: every relative link, with its heading, in
//! the README, the changelog and `docs/`, and every path in backticks in
//! `docs/architecture.md`.

use std::{
    collections::HashSet,
    fs,
    path::{Component, Path, PathBuf},
};

/// What a word in backticks begins with when it is a path.
const FOLDERS: [&str; 9] = [
    "proto/",
    "dataplane/",
    "controlplane/",
    "cli/",
    "tests/",
    "bench/",
    "fuzz/",
    "docs/",
    "examples/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(document: &Path) -> String {
    let path = root().join(document);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The documents, by their paths from the root.
fn documents() -> Vec<PathBuf> {
    let mut documents = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = PathBuf::from(entry.unwrap().file_name());
        if name.extension().is_some_and(|e| e == "md") {
            documents.push(Path::new("docs").join(name));
        }
    }
    documents
}

/// The text without its fenced blocks.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let outside = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    };
    let lines: Vec<_> = text.lines().filter(outside).collect();
    lines.join("\n")
}

/// What is between backticks.
fn code(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

/// The targets of links, code aside.
fn links(prose: &str) -> Vec<String> {
    let text: String = prose.split('`').step_by(2).collect();
    text.split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .collect()
}

/// The fragments that a document's headings have, as GitHub makes them.
fn fragments(text: &str) -> HashSet<String> {
    let headings = text.lines().filter_map(|line| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.strip_prefix(' '))?
    });
    headings
        .map(|heading| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let kept: String = heading.trim().to_lowercase().chars().filter(kept).collect();
            kept.replace(' ', "-")
        })
        .collect()
}

/// A path relative to a document, from the root; `None` when it leaves the repository.
fn resolve(document: &Path, path: &str) -> Option<PathBuf> {
    let mut resolved = document.parent()?.to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => resolved.push(name),
            Component::ParentDir => {
                resolved.file_name()?;
                resolved.pop();
            }
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(resolved)
}

/// What is wrong with a link, if anything is.
fn broken(document: &Path, link: &str) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        document.to_owned()
    } else {
        match resolve(document, path) {
            Some(target) if root().join(&target).exists() => target,
            Some(_) => return Some("there is nothing at this path"),
            None => return Some("it leaves the repository"),
        }
    };
    let is_found = fragment.is_empty() || fragments(&prose(&read(&target))).contains(fragment);
    (!is_found).then_some("the document has no such heading")
}

#[test]
fn every_link_leads_somewhere() {
    let mut problems = Vec::new();
    let mut count = 0;
    for document in documents() {
        for link in links(&prose(&read(&document))) {
            count += 1;
            if let Some(problem) = broken(&document, &link) {
                problems.push(format!("{}: {link}: {problem}", document.display()));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(count > 50, "only {count} links were found");
}

#[test]
fn every_path_in_the_architecture_exists() {
    let text = prose(&read(Path::new("docs/architecture.md")));
    let is_path = |span: &&str| {
        FOLDERS.iter().any(|folder| span.starts_with(folder)) && !span.contains(char::is_whitespace)
    };
    let missing: Vec<_> = code(&text)
        .filter(is_path)
        .filter(|path| !root().join(path).exists())
        .collect();
    assert!(missing.is_empty(), "these do not exist: {missing:?}");
}

#[test]
fn what_is_broken_is_found() {
    let here = Path::new("docs/architecture.md");
    let found = |link| broken(here, link).is_some();
    assert!(!found("errors.md") && !found("../README.md#licence") && !found("https://a.example/"));
    assert!(found("nothing.md") && found("errors.md#nothing") && found("../../elsewhere"));
    assert_eq!(
        links("see [a](b.md) and `[c](d)`, [e](f#g)"),
        ["b.md", "f#g"]
    );
}
