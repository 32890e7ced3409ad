//! Apply sets: what one set of files has written, marked by a label, so that a
//! document that leaves the files can leave the store in the same revision.

use std::collections::{BTreeMap, BTreeSet};

use fleet_proto::{
    key::Key,
    read::Documents,
    v1::{ListRequest, Resource, resource},
    validate::Problem,
};

use crate::{change, client::Client, failure::Failure, kinds};

/// The label of members; its value is the name of the set.
pub(crate) const LABEL: &str = "mcp-fleet/applyset";

/// Checks the name of a set: it is the value of a label.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        return Err("must be 1 to 63 letters, digits, `_`, `-`, `.` or `/`".to_owned());
    }
    Ok(text.to_owned())
}

/// What a set's change is based on.
#[derive(Debug)]
pub(crate) struct Base {
    /// Members that the files do not hold.
    pub(crate) gone: Vec<Key>,
    /// The revision in which that is so.
    pub(crate) revision: u64,
}

/// Marks the documents as members of a set.
///
/// # Errors
/// `Invalid` where a document carries the mark of another set.
pub(crate) fn mark(documents: &mut Documents, set: &str) -> Result<(), Failure> {
    let mut problems = Vec::new();
    for document in &mut documents.documents {
        let key = Key::of(&document.resource);
        let Some(labels) = labels_mut(&mut document.resource) else {
            continue;
        };
        match labels.get(LABEL) {
            Some(other) if other != set => problems.push(Problem {
                key,
                path: format!("labels[{LABEL:?}]"),
                message: format!(
                    "the document belongs to the apply set {other}, not to {set}: remove the label, which --applyset sets by itself"
                ),
            }),
            _ => {
                labels.insert(LABEL.to_owned(), set.to_owned());
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(change::located(documents, &problems))
    }
}

/// Compares the marked documents of a set with the store.
///
/// # Errors
/// `Conflict` where another set owns what the files hold.
pub(crate) async fn base(
    client: &mut Client,
    documents: &Documents,
    set: &str,
) -> Result<Base, Failure> {
    let answer = client.list(ListRequest::default()).await?.into_inner();
    Ok(Base {
        gone: gone(documents, &answer.resources, set)?,
        revision: answer.revision,
    })
}

fn gone(documents: &Documents, stored: &[Resource], set: &str) -> Result<Vec<Key>, Failure> {
    let kept: BTreeSet<Key> = documents
        .documents
        .iter()
        .filter_map(|d| Key::of(&d.resource))
        .collect();
    let mut gone = Vec::new();
    let mut taken = Vec::new();
    for resource in stored {
        let (Some(key), Some(owner)) = (Key::of(resource), owner(resource)) else {
            continue;
        };
        match (owner == set, kept.contains(&key)) {
            (true, false) => gone.push(key),
            (false, true) => taken.push(format!("{} ({owner})", kinds::slashed(&key))),
            _ => {}
        }
    }
    if taken.is_empty() {
        return Ok(gone);
    }
    Err(Failure::Conflict(format!(
        "other apply sets own: {}; take them out of those files first",
        taken.join(", ")
    )))
}

/// The set that a resource is of.
fn owner(resource: &Resource) -> Option<&str> {
    let labels = match resource.kind.as_ref()? {
        resource::Kind::Backend(b) => &b.labels,
        resource::Kind::Gateway(g) => &g.labels,
        resource::Kind::AuthPolicy(a) => &a.labels,
        resource::Kind::Secret(s) => &s.labels,
    };
    labels.get(LABEL).map(String::as_str)
}

fn labels_mut(resource: &mut Resource) -> Option<&mut BTreeMap<String, String>> {
    Some(match resource.kind.as_mut()? {
        resource::Kind::Backend(b) => &mut b.labels,
        resource::Kind::Gateway(g) => &mut g.labels,
        resource::Kind::AuthPolicy(a) => &mut a.labels,
        resource::Kind::Secret(s) => &mut s.labels,
    })
}

#[cfg(test)]
mod tests {
    use fleet_proto::{key::Kind, read::read_yaml};

    use super::*;

    fn documents(text: &str) -> Documents {
        let mut documents = Documents::default();
        read_yaml("f.yaml", text, &mut documents);
        documents
    }

    fn backend(name: &str, rest: &str) -> String {
        format!("kind: Backend\nname: {name}\nhttp: {{ url: 'http://h/' }}\n{rest}---\n")
    }

    #[test]
    fn members_that_left_the_files_are_gone_and_others_are_left_alone() {
        let mut stored = documents(&format!("{}{}", backend("a", ""), backend("b", "")));
        mark(&mut stored, "web").unwrap();
        let mut stored = stored.resources();
        stored.extend(documents(&backend("free", "")).resources());
        let files = documents(&format!("{}{}", backend("b", ""), backend("new", "")));
        let key = Key::new("", Kind::Backend, "a");
        assert_eq!(gone(&files, &stored, "web").unwrap(), [key]);
        let failure = gone(&files, &stored, "other").unwrap_err();
        assert_eq!(failure.exit_code(), 4);
        assert!(failure.to_string().contains("backend/b (web)"), "{failure}");
    }

    #[test]
    fn a_document_of_another_set_is_shown_where_it_says_so() {
        let mut files = documents(&backend("a", &format!("labels:\n  {LABEL}: other\n")));
        let failure = mark(&mut files, "web").unwrap_err();
        assert_eq!(failure.exit_code(), 3);
        assert!(failure.to_string().starts_with("f.yaml:5:"), "{failure}");
    }

    #[test]
    fn names_are_values_of_labels() {
        assert!(name("team/web-1.a_b").is_ok());
        for bad in ["", "a b", "ä", &"x".repeat(64)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
