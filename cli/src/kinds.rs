//! Kinds and names as the command line writes them: `backend`, `gateways`,
//! `auth-policy`, `backend/files`.

use fleet_proto::key::{DEFAULT_PROJECT, Key, Kind};

use crate::failure::Failure;

/// The kind that a word names: singular or plural, any case, with or without `-`.
pub(crate) fn parse_kind(word: &str) -> Result<Kind, Failure> {
    let plain: String = word
        .chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect();
    match plain.as_str() {
        "backend" | "backends" => Ok(Kind::Backend),
        "gateway" | "gateways" => Ok(Kind::Gateway),
        "authpolicy" | "authpolicies" => Ok(Kind::AuthPolicy),
        "secret" | "secrets" => Ok(Kind::Secret),
        _ => Err(Failure::Usage(format!(
            "there is no kind {word:?}: use backend, gateway, auth-policy or secret"
        ))),
    }
}

/// The word for a kind in output; [`parse_kind`] takes it back.
pub(crate) const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Backend => "backend",
        Kind::Gateway => "gateway",
        Kind::AuthPolicy => "auth-policy",
        Kind::Secret => "secret",
    }
}

/// `files`, or `team-a/files` outside the default project.
pub(crate) fn qualified(key: &Key) -> String {
    if key.project == DEFAULT_PROJECT {
        key.name.clone()
    } else {
        format!("{}/{}", key.project, key.name)
    }
}

/// `backend/files`, or `backend/team-a/files` outside the default project.
pub(crate) fn slashed(key: &Key) -> String {
    format!("{}/{}", word(key.kind), qualified(key))
}

/// What `KIND [NAME]...` or `KIND/NAME...` selects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Everything.
    All,
    /// Every resource of a kind.
    Kind(Kind),
    /// These resources.
    Keys(Vec<Key>),
}

/// Reads the words after `get` and `delete`. A name may carry its project
/// (`team-a/files`), which wins over `project`.
pub(crate) fn select(words: &[String], project: Option<&str>) -> Result<Selection, Failure> {
    let Some(first) = words.first() else {
        return Ok(Selection::All);
    };
    if first.contains('/') {
        let keys = words.iter().map(|word| match word.split_once('/') {
            Some((kind, name)) => named(parse_kind(kind)?, name, project),
            None => Err(Failure::Usage(format!(
                "{word:?} names no resource: write KIND/NAME, such as backend/{word}"
            ))),
        });
        return Ok(Selection::Keys(keys.collect::<Result<_, _>>()?));
    }
    let kind = parse_kind(first)?;
    if words.len() == 1 {
        return Ok(Selection::Kind(kind));
    }
    let keys = words[1..].iter().map(|name| named(kind, name, project));
    Ok(Selection::Keys(keys.collect::<Result<_, _>>()?))
}

fn named(kind: Kind, name: &str, project: Option<&str>) -> Result<Key, Failure> {
    let (project, name) = name
        .split_once('/')
        .unwrap_or((project.unwrap_or_default(), name));
    if name.is_empty() || name.contains('/') {
        return Err(Failure::Usage(format!(
            "{name:?} is not a name: write NAME or PROJECT/NAME"
        )));
    }
    Ok(Key::new(project, kind, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn every_spelling_of_a_kind_is_taken() {
        for word in ["backend", "Backends", "BACKEND"] {
            assert_eq!(parse_kind(word).unwrap(), Kind::Backend);
        }
        for word in ["gateway", "gateways", "Gateway"] {
            assert_eq!(parse_kind(word).unwrap(), Kind::Gateway);
        }
        for word in ["auth-policy", "authpolicies", "AuthPolicy", "auth_policies"] {
            assert_eq!(parse_kind(word).unwrap(), Kind::AuthPolicy);
        }
        assert_eq!(parse_kind("pod").unwrap_err().exit_code(), 2);
        for kind in Kind::ALL {
            assert_eq!(parse_kind(word(kind)).unwrap(), kind);
        }
    }

    #[test]
    fn selections_are_read_and_printed_names_read_back() {
        let selected = |text: &str| select(&words(text), Some("p"));
        assert_eq!(selected("").unwrap(), Selection::All);
        assert_eq!(
            selected("backends").unwrap(),
            Selection::Kind(Kind::Backend)
        );
        let key = |project: &str, name: &str| Key::new(project, Kind::Backend, name);
        assert_eq!(
            selected("backend a b").unwrap(),
            Selection::Keys(vec![key("p", "a"), key("p", "b")])
        );
        assert_eq!(
            selected("backend/a backend/q/b").unwrap(),
            Selection::Keys(vec![key("p", "a"), key("q", "b")])
        );
        assert!(selected("backend/a b").is_err());
        assert!(selected("backend/").is_err());
        for key in [key("default", "a"), key("team", "b")] {
            let printed = [slashed(&key)];
            assert_eq!(select(&printed, None).unwrap(), Selection::Keys(vec![key]));
        }
    }
}
