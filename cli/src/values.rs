//! Values of Secrets in files: `${env:NAME}` and `${file:/path}` stand for values on
//! this machine, and are resolved when they are sent and not before.

use fleet_proto::{
    key::Key,
    read::Documents,
    reference::Part,
    secret::written,
    v1::{Resource, resource},
    validate::Problem,
};
use mcp_dataplane::upstream::guard::OWN_VARIABLES;

use crate::{change, failure::Failure};

/// Longest file that a reference takes in: more than a value may have.
const MAX_FILE: u64 = 1 << 20;

/// The resources of all documents, with the values of Secrets as they are sent.
///
/// # Errors
/// `Invalid` with every value that cannot be resolved here, each at its place.
pub(crate) fn resolved(documents: &Documents) -> Result<Vec<Resource>, Failure> {
    let mut problems = Vec::new();
    let mut resources = documents.resources();
    for resource in &mut resources {
        let key = Key::of(resource);
        let Some(resource::Kind::Secret(secret)) = &mut resource.kind else {
            continue;
        };
        let is_given = !secret.value.is_empty();
        let outcome = match written(&secret.value, local) {
            // Nothing would mean: keep the one that is stored.
            Ok(value) if value.is_empty() && is_given => Err(
                "is empty once its references are resolved: a Secret has at least one character"
                    .to_owned(),
            ),
            outcome => outcome,
        };
        match outcome {
            Ok(value) => secret.value = value,
            Err(message) => problems.push(Problem {
                key,
                path: "value".to_owned(),
                message,
            }),
        }
    }
    if problems.is_empty() {
        Ok(resources)
    } else {
        Err(change::located(documents, &problems))
    }
}

fn local(part: &Part) -> Result<String, String> {
    match part {
        Part::Env(name) => env(name),
        Part::File(path) => file(path),
        Part::Literal(_) | Part::Secret(_) => Err("cannot be used here".to_owned()),
    }
}

fn env(name: &str) -> Result<String, String> {
    if name.starts_with(OWN_VARIABLES) {
        return Err(format!(
            "${{env:{name}}} is never resolved: variables of that name hold this program's own credentials"
        ));
    }
    match std::env::var(name) {
        Ok(value) => Ok(value),
        Err(std::env::VarError::NotPresent) => Err(format!(
            "${{env:{name}}} is not set here: set it where mcpctl runs"
        )),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!(
            "${{env:{name}}} is set to something that is not UTF-8"
        )),
    }
}

fn file(path: &str) -> Result<String, String> {
    let failed = |what: String| format!("${{file:{path}}} cannot be read here: {what}");
    let size = std::fs::metadata(path)
        .map_err(|e| failed(e.to_string()))?
        .len();
    if size > MAX_FILE {
        return Err(failed(format!(
            "the file has {size} bytes, more than {MAX_FILE}"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    Ok(without_line_break(&text).to_owned())
}

/// Editors and `echo` end a text with a line break that is not meant.
pub(crate) fn without_line_break(text: &str) -> &str {
    text.strip_suffix('\n')
        .map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use fleet_proto::read::read_yaml;

    use super::*;

    fn documents(text: &str) -> Documents {
        let mut documents = Documents::default();
        read_yaml("f.yaml", text, &mut documents);
        documents
    }

    fn secret(value: &str) -> String {
        format!("kind: Secret\nname: s\nbackends: [a]\nvalue: \"{value}\"\n")
    }

    #[test]
    fn files_and_variables_of_this_machine_are_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "from-file\n").unwrap();
        let home = std::env::var("PATH").unwrap();
        let text = secret(&format!("${{file:{}}} $$ ${{env:PATH}}", path.display()));
        let found = resolved(&documents(&text)).unwrap();
        let Some(resource::Kind::Secret(secret)) = &found[0].kind else {
            panic!("{found:?}");
        };
        assert_eq!(secret.value, format!("from-file $ {home}"));
    }

    #[test]
    fn what_cannot_be_resolved_is_shown_where_it_is_written() {
        for (value, message) in [
            ("${env:SURELY_UNSET_IN_THIS_TEST}", "is not set here"),
            ("${env:MCP_FLEET_TOKEN}", "never resolved"),
            ("${file:/nowhere/at/all}", "cannot be read here"),
            ("${file:/dev/null}", "is empty once"),
        ] {
            let failure = resolved(&documents(&secret(value))).unwrap_err();
            assert_eq!(failure.exit_code(), 3);
            let text = failure.to_string();
            assert!(text.starts_with("f.yaml:4:8: Secret s: value: "), "{text}");
            assert!(text.contains(message), "{text}");
        }
    }
}
