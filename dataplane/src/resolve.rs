//! `${env:NAME}` and `${file:/path}`: resolved here, on the node, and only as
//! far as the node allows configuration to look.

use fleet_proto::reference::{Part, references};

use crate::{settings::Allow, upstream::guard::OWN_VARIABLES};

/// Longest file that a reference takes in.
const MAX_FILE: u64 = 1 << 20;

/// The text with its references resolved.
///
/// # Errors
/// A message that says which reference cannot be resolved here and what to do;
/// it does not hold any value.
pub fn resolve(text: &str, allow: Allow) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    for part in references(text)? {
        match part {
            Part::Literal(literal) => out.push_str(&literal),
            Part::Env(name) => out.push_str(&env(&name, allow)?),
            Part::File(path) => out.push_str(&file(&path, allow)?),
            Part::Secret(name) => {
                return Err(format!("${{secret:{name}}} has no value on this node"));
            }
        }
    }
    Ok(out)
}

fn env(name: &str, allow: Allow) -> Result<String, String> {
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

fn file(path: &str, allow: Allow) -> Result<String, String> {
    if !allow.file {
        return Err(format!(
            "${{file:{path}}} is not allowed on this node: start it with --allow file"
        ));
    }
    let failed = |what: String| format!("${{file:{path}}} cannot be resolved on this node: {what}");
    let size = std::fs::metadata(path)
        .map_err(|e| failed(e.to_string()))?
        .len();
    if size > MAX_FILE {
        return Err(failed(format!(
            "the file has {size} bytes, more than {MAX_FILE}"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
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
        assert_eq!(resolve(&text, Allow::ALL).unwrap(), "Bearer s3cret!");
        assert!(
            resolve(&text, Allow::default())
                .unwrap_err()
                .contains("--allow file")
        );
    }

    #[test]
    fn an_unset_variable_and_a_forbidden_one_are_told_apart() {
        let text = "${env:SURELY_UNSET_IN_THIS_TEST}";
        assert!(
            resolve(text, Allow::ALL)
                .unwrap_err()
                .contains("set it before")
        );
        assert!(
            resolve(text, Allow::default())
                .unwrap_err()
                .contains("--allow env")
        );
        assert_eq!(
            resolve("no $$reference", Allow::default()).unwrap(),
            "no $reference"
        );
    }
}
