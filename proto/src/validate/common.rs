//! Rules that all kinds share: names, projects, labels.

use std::collections::BTreeMap;

use super::problem::{Report, entry};

/// Longest name of a resource or a project, in characters.
const NAME_MAX: usize = 64;
/// Longest key or value of a label, in characters.
const LABEL_MAX: usize = 63;

pub(super) fn check(
    name: &str,
    project: &str,
    labels: &BTreeMap<String, String>,
    report: &mut Report<'_>,
) {
    if let Some(message) = bad_name(name) {
        report.add("name", message);
    }
    if let Some(message) = bad_name(project) {
        report.add("project", message);
    }
    check_labels("labels", labels, report);
}

pub(super) fn check_labels(path: &str, labels: &BTreeMap<String, String>, report: &mut Report<'_>) {
    let fits = |text: &str| {
        text.len() <= LABEL_MAX
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b))
    };
    for (key, value) in labels {
        if key.is_empty() || !fits(key) {
            let message = format!(
                "the key of a label has 1 to {LABEL_MAX} letters, digits, `_`, `-`, `.` or `/`"
            );
            report.add(entry(path, key), message);
        }
        if !fits(value) {
            let message = format!(
                "the value of a label has at most {LABEL_MAX} letters, digits, `_`, `-`, `.` or `/`"
            );
            report.add(entry(path, key), message);
        }
    }
}

/// Why a text cannot be a name.
pub(crate) fn bad_name(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("is missing or empty: give the resource a name".to_owned())
    } else if name.chars().count() > NAME_MAX {
        Some(format!(
            "is {} characters long: at most {NAME_MAX} are allowed",
            name.chars().count()
        ))
    } else if let Some(bad) = name.chars().find(|c| !is_name_char(*c)) {
        Some(format!(
            "{name:?} holds {bad:?}: use letters, digits, `_`, `-` and `.` only"
        ))
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some(format!(
            "{name:?} starts with {:?}: start with a letter or a digit",
            &name[..1]
        ))
    } else {
        None
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.".contains(c)
}

/// Text for "did you mean", or nothing.
pub(crate) fn hint<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    crate::nearest::nearest(wanted, known)
        .map_or_else(String::new, |near| format!(": did you mean `{near}`?"))
}
