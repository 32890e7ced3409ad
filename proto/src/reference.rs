//! `${env:NAME}`, `${file:/path}` and `${secret:NAME}` inside texts of the configuration.
//!
//! Validation checks that they are well formed; a data plane resolves them.
//! `$$` stands for one `$`; a `$` before anything but `{` and `$` is itself.

use crate::validate::bad_name;

/// A piece of a text with references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it is; never empty.
    Literal(String),
    /// The value of an environment variable of the data plane.
    Env(String),
    /// The contents of a file on the data plane, by its absolute path.
    File(String),
    /// The value of a Secret of the same project, by its name.
    Secret(String),
}

/// Splits a text into its parts. An empty text has none.
///
/// # Errors
/// What is wrong with a reference and what to write. The message never holds
/// the text around it, which may be secret.
pub fn references(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        literal.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(inside) = after.strip_prefix('{') {
            let end = inside.find('}').ok_or(
                "a reference `${` is not closed by `}`: write `${env:NAME}`, `${file:/path}` or \
                 `${secret:NAME}`, and `$${` for a literal `${`",
            )?;
            let part = reference(&inside[..end])?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part);
            rest = &inside[end + 1..];
        } else {
            literal.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// Whether a text is well formed and has a reference.
#[must_use]
pub fn has_reference(text: &str) -> bool {
    references(text).is_ok_and(|parts| parts.iter().any(|p| !matches!(p, Part::Literal(_))))
}

fn reference(inside: &str) -> Result<Part, String> {
    match inside.split_once(':') {
        Some(("env", name)) if is_variable(name) => Ok(Part::Env(name.to_owned())),
        Some(("env", name)) => Err(format!(
            "`${{env:{name}}}` does not name an environment variable: letters, digits and `_`, not starting with a digit"
        )),
        Some(("file", path)) if path.starts_with('/') && !path.contains('\0') => Ok(Part::File(path.to_owned())),
        Some(("file", path)) => {
            Err(format!("`${{file:{path}}}` needs an absolute path, such as `${{file:/run/secrets/token}}`"))
        }
        Some(("secret", name)) => match bad_name(name) {
            None => Ok(Part::Secret(name.to_owned())),
            Some(_) => Err(format!(
                "`${{secret:{name}}}` does not name a Secret: letters, digits, `_`, `-` and `.`, the first one a letter or digit"
            )),
        },
        Some((scheme, _)) if is_variable(scheme) => Err(format!(
            "`${{{scheme}:...}}` is not a known reference: write `${{env:NAME}}`, `${{file:/path}}` or `${{secret:NAME}}`, and `$${{` for a literal `${{`"
        )),
        None if is_variable(inside) => Err(format!(
            "`${{{inside}}}` is not a known reference: write `${{env:{inside}}}`, or `$${{` for a literal `${{`"
        )),
        _ => Err("unknown reference `${...}`: write `${env:NAME}`, `${file:/path}` or `${secret:NAME}`, and `$${` for a literal `${`".into()),
    }
}

/// A name that POSIX shells can set (IEEE 1003.1, 3.216).
fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_at_its_references() {
        let literal = |text: &str| Part::Literal(text.into());
        let env = |name: &str| Part::Env(name.into());
        assert_eq!(references("").unwrap(), []);
        assert_eq!(references("plain").unwrap(), [literal("plain")]);
        assert_eq!(references("${env:A}").unwrap(), [env("A")]);
        assert_eq!(
            references("a ${env:A}${env:_B2} ${file:/run/a b}${secret:x.y-1}!").unwrap(),
            [
                literal("a "),
                env("A"),
                env("_B2"),
                literal(" "),
                Part::File("/run/a b".into()),
                Part::Secret("x.y-1".into()),
                literal("!")
            ]
        );
    }

    #[test]
    fn a_dollar_can_be_written() {
        for (text, meaning) in [
            ("$$", "$"),
            ("a$b", "a$b"),
            ("$", "$"),
            ("$${env:A}", "${env:A}"),
            ("$$$$", "$$"),
        ] {
            assert_eq!(
                references(text).unwrap(),
                [Part::Literal(meaning.into())],
                "{text}"
            );
        }
        assert_eq!(references("$$${env:A}").unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_a_reference_is_refused_with_what_to_write() {
        for (text, hint) in [
            ("${TOKEN}", "write `${env:TOKEN}`"),
            ("x ${env:A-B}", "does not name an environment variable"),
            ("${env:}", "does not name an environment variable"),
            ("${env:1A}", "does not name an environment variable"),
            ("${file:token}", "absolute path"),
            ("${vault:token}", "`${vault:...}` is not a known reference"),
            ("${secret:}", "does not name a Secret"),
            ("${secret:a/b}", "does not name a Secret"),
            ("${env:A", "not closed"),
            ("${}", "unknown reference"),
        ] {
            let error = references(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
