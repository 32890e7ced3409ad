//! `${env:NAME}`, `${file:/path}` and `${secret:NAME}`: resolved here, on the node, and
//! the first two only as far as the node allows configuration to look.

use std::path::Path;

use fleet_proto::reference::{Part, references};

use crate::{
    secrets::Secrets,
    settings::{Allow, Files},
    upstream::guard::OWN_VARIABLES,
};

/// Longest file that a reference takes in.
const MAX_FILE: u64 = 1 << 20;

/// The text with its references resolved. No Secret is at its service.
///
/// # Errors
/// A message that says which reference cannot be resolved here and what to do;
/// it does not hold any value.
pub fn resolve(text: &str, allow: &Allow) -> Result<String, String> {
    let none = Secrets::default();
    let mut resolver = Resolver::new(allow, &none, "");
    resolver.resolve(text)
}

/// One part that is no literal and no Secret.
///
/// # Errors
/// As [`resolve`].
pub fn local(part: &Part, allow: &Allow) -> Result<String, String> {
    match part {
        Part::Literal(literal) => Ok(literal.clone()),
        Part::Env(name) => env(name, allow),
        Part::File(path) => file(path, &allow.file),
        Part::Secret(name) => Err(format!("${{secret:{name}}} cannot be used here")),
    }
}

/// Resolves the texts of one backend.
pub struct Resolver<'a> {
    allow: &'a Allow,
    secrets: &'a Secrets,
    project: &'a str,
    /// What references stood for: none of it may be shown.
    pub resolved: Vec<String>,
}

impl<'a> Resolver<'a> {
    /// For a backend of this project.
    #[must_use]
    pub const fn new(allow: &'a Allow, secrets: &'a Secrets, project: &'a str) -> Self {
        Self {
            allow,
            secrets,
            project,
            resolved: Vec::new(),
        }
    }

    /// The text with its references resolved.
    ///
    /// # Errors
    /// As [`resolve`]. Whether the backend may use a Secret was checked before: by
    /// validation, of every set that a node receives.
    pub fn resolve(&mut self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        for part in references(text)? {
            let value = match part {
                Part::Literal(literal) => {
                    out.push_str(&literal);
                    continue;
                }
                Part::Secret(name) => self.secrets.get(self.project, &name)?.to_owned(),
                other => local(&other, self.allow)?,
            };
            out.push_str(&value);
            self.resolved.push(value);
        }
        Ok(out)
    }
}

fn env(name: &str, allow: &Allow) -> Result<String, String> {
    if !allow.env {
        return Err(format!(
            "${{env:{name}}} is not allowed on this node: start it with --allow env"
        ));
    }
    if name.starts_with(OWN_VARIABLES) {
        return Err(format!(
            "${{env:{name}}} is never resolved: variables of that name hold this program's own credentials"
        ));
    }
    std::env::var(name)
        .map_err(|e| format!("${{env:{name}}} cannot be resolved on this node: {e}; set it before the data plane starts"))
}

fn file(path: &str, allowed: &Files) -> Result<String, String> {
    allowed
        .allow(Path::new(path))
        .map_err(|message| format!("${{file:{path}}}: {message}"))?;
    let failed = |what: String| format!("${{file:{path}}} cannot be resolved on this node: {what}");
    let path = allowed
        .follow(Path::new(path))
        .map_err(|e| failed(e.to_string()))?;
    let size = std::fs::metadata(&path)
        .map_err(|e| failed(e.to_string()))?
        .len();
    if size > MAX_FILE {
        return Err(failed(format!(
            "the file has {size} bytes, more than {MAX_FILE}"
        )));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
    // Editors and `echo` end a file with a line break that is not meant.
    Ok(text
        .strip_suffix('\n')
        .map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t))
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_without_their_last_line_break() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let text = format!("Bearer ${{file:{}}}!", file.path().display());
        assert_eq!(resolve(&text, &Allow::ALL).unwrap(), "Bearer s3cret!");
        assert!(
            resolve(&text, &Allow::default())
                .unwrap_err()
                .contains("--allow file")
        );
    }

    #[test]
    fn an_unset_variable_and_a_forbidden_one_are_told_apart() {
        let text = "${env:SURELY_UNSET_IN_THIS_TEST}";
        assert!(
            resolve(text, &Allow::ALL)
                .unwrap_err()
                .contains("set it before")
        );
        assert!(
            resolve(text, &Allow::default())
                .unwrap_err()
                .contains("--allow env")
        );
        assert_eq!(
            resolve("no $$reference", &Allow::default()).unwrap(),
            "no $reference"
        );
    }
}
