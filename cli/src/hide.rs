//! Resources without the secrets that are written in them, for what is shown to
//! people: descriptions, diffs.
//!
//! References (`${env:NAME}`) are no secrets, and tokens of policies are stored
//! as hashes. What is left are literal tokens, headers and variables.

use std::collections::BTreeMap;

use fleet_proto::{
    reference,
    v1::{Resource, backend, resource},
};

/// A resource without secrets.
pub(crate) fn hidden(resource: &Resource) -> Resource {
    let mut shown = resource.clone();
    for (_, secret) in secrets(&mut shown) {
        *secret = "(hidden)".to_owned();
    }
    shown
}

/// Two states of a resource without secrets. Where a secret differs, so does
/// what stands for it.
pub(crate) fn hidden_pair(before: &Resource, after: &Resource) -> (Resource, Resource) {
    let (mut before, mut after) = (before.clone(), after.clone());
    let mut old: BTreeMap<String, &mut String> = secrets(&mut before).into_iter().collect();
    for (path, new) in secrets(&mut after) {
        let (was, is) = match old.remove(&path) {
            Some(old) if *old == *new => (Some(old), "(hidden)"),
            old => (old, "(hidden, after)"),
        };
        if let Some(was) = was {
            *was = if is == "(hidden)" {
                is
            } else {
                "(hidden, before)"
            }
            .to_owned();
        }
        *new = is.to_owned();
    }
    for gone in old.into_values() {
        *gone = "(hidden, before)".to_owned();
    }
    (before, after)
}

/// Whether a resource holds a secret.
pub(crate) fn has_secret(resource: &Resource) -> bool {
    !secrets(&mut resource.clone()).is_empty()
}

/// The secrets of a resource by their paths.
fn secrets(resource: &mut Resource) -> Vec<(String, &mut String)> {
    let backend = match &mut resource.kind {
        Some(resource::Kind::Backend(backend)) => backend,
        Some(resource::Kind::Secret(secret)) if !secret.value.is_empty() => {
            return vec![("value".to_owned(), &mut secret.value)];
        }
        _ => return Vec::new(),
    };
    match &mut backend.transport {
        Some(backend::Transport::Http(http)) => {
            sent("http", &mut http.headers, &mut http.bearer_token)
        }
        Some(backend::Transport::Unix(unix)) => {
            sent("unix", &mut unix.headers, &mut unix.bearer_token)
        }
        Some(backend::Transport::Sse(sse)) => sent("sse", &mut sse.headers, &mut sse.bearer_token),
        Some(backend::Transport::Websocket(websocket)) => sent(
            "websocket",
            &mut websocket.headers,
            &mut websocket.bearer_token,
        ),
        Some(backend::Transport::Stdio(stdio)) => named("stdio.env", stdio.env.iter_mut()),
        None => Vec::new(),
    }
}

/// Those of what a backend is sent over HTTP.
fn sent<'a>(
    of: &str,
    headers: &'a mut BTreeMap<String, String>,
    bearer_token: &'a mut String,
) -> Vec<(String, &'a mut String)> {
    let mut found = named(&format!("{of}.headers"), headers.iter_mut());
    if is_literal(bearer_token) {
        found.push((format!("{of}.bearer_token"), bearer_token));
    }
    found
}

/// The entries whose names say that they hold a secret.
fn named<'a>(
    of: &str,
    entries: impl Iterator<Item = (&'a String, &'a mut String)>,
) -> Vec<(String, &'a mut String)> {
    entries
        .filter(|(name, value)| sounds_secret(name) && is_literal(value))
        .map(|(name, value)| (format!("{of}.{name}"), value))
        .collect()
}

fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "auth",
        "token",
        "secret",
        "key",
        "pass",
        "pwd",
        "credential",
        "cookie",
        "session",
    ]
    .iter()
    .any(|word| name.contains(word))
}

fn is_literal(value: &str) -> bool {
    !value.is_empty() && !reference::has_reference(value)
}

#[cfg(test)]
mod tests {
    use fleet_proto::{
        read::{Documents, read_yaml},
        write::write_yaml,
    };

    use super::*;

    fn http(token: &str, rest: &str) -> Resource {
        let mut documents = Documents::default();
        let text = format!(
            "kind: Backend\nname: a\nhttp: {{ url: 'http://h/', bearer_token: '{token}', headers: {{ {rest} }} }}"
        );
        read_yaml("f", &text, &mut documents);
        documents.resources().remove(0)
    }

    #[test]
    fn literal_secrets_are_hidden_and_references_are_not() {
        let text = write_yaml([&hidden(&http("abc123", "X-Api-Key: abc123, X-Team: core"))]);
        assert!(!text.contains("abc123"), "{text}");
        assert!(text.contains("X-Team: core"), "{text}");
        let text = write_yaml([&hidden(&http(
            "${env:T}",
            "Authorization: 'Basic ${file:/t}'",
        ))]);
        assert!(
            text.contains("${env:T}") && text.contains("${file:/t}"),
            "{text}"
        );
        assert!(!has_secret(&http("${env:T}", "X-Team: core")));
    }

    #[test]
    fn a_changed_secret_shows_that_it_changed() {
        let texts = |old: &str, new: &str| {
            let (old, new) = hidden_pair(&http(old, ""), &http(new, ""));
            (write_yaml([&old]), write_yaml([&new]))
        };
        let (old, new) = texts("abc123", "abc123");
        assert_eq!(old, new);
        let (old, new) = texts("abc123", "xyz789");
        assert!(old.contains("(hidden, before)") && new.contains("(hidden, after)"));
        assert!(!old.contains("abc123") && !new.contains("xyz789"));
        let (old, new) = texts("abc123", "${env:T}");
        assert!(old.contains("(hidden, before)") && new.contains("${env:T}"));
    }
}
