//! The values of Secrets, apart from the resources: no set of resources holds one.

use std::{collections::BTreeSet, fmt};

use crate::{
    key::Key,
    reference::{Part, references},
    v1::{Backend, Resource, backend::Transport, resource},
    validate::{Problem, Valid, bad_value},
};

/// A value that must not be shown: `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(String);

impl Value {
    /// A value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The plain text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(..)")
    }
}

/// Takes the values out of Secrets, by their keys. A Secret without a value has none.
///
/// # Errors
/// Values that cannot be kept.
pub fn take(resources: &mut [Resource]) -> Result<Vec<(Key, Value)>, Vec<Problem>> {
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    for resource in resources {
        let key = Key::of(resource);
        let Some(resource::Kind::Secret(secret)) = &mut resource.kind else {
            continue;
        };
        let value = std::mem::take(&mut secret.value);
        if let Some(message) = bad_value(&value) {
            problems.push(Problem {
                key,
                path: "value".to_owned(),
                message,
            });
        } else if let Some(key) = key.filter(|_| !value.is_empty()) {
            values.push((key, Value(value)));
        }
    }
    if problems.is_empty() {
        Ok(values)
    } else {
        Err(problems)
    }
}

/// The value that a file means: its references are resolved by the one who reads it,
/// `resolve`, which is given `${env:NAME}` and `${file:/path}` parts only.
///
/// # Errors
/// What cannot be resolved, as `resolve` says it, or a reference to a Secret.
pub fn written(
    text: &str,
    mut resolve: impl FnMut(&Part) -> Result<String, String>,
) -> Result<String, String> {
    references(text)?
        .iter()
        .map(|part| match part {
            Part::Literal(literal) => Ok(literal.clone()),
            Part::Secret(_) => {
                Err("the value of a Secret cannot come from another Secret".to_owned())
            }
            other => resolve(other),
        })
        .collect()
}

/// A Secret: its project and its name.
pub type Name = (String, String);

/// The Secrets that the backends of a set name: what whoever serves it has to know.
#[must_use]
pub fn named(set: &Valid) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    for (key, backend) in set.backends() {
        for text in texts(backend).filter(|text| text.contains("${secret:")) {
            let parts = references(text).unwrap_or_default();
            names.extend(parts.into_iter().filter_map(|part| match part {
                Part::Secret(name) => Some((key.project.clone(), name)),
                _ => None,
            }));
        }
    }
    names
}

/// The texts in which validation lets a backend name a Secret.
fn texts(backend: &Backend) -> Box<dyn Iterator<Item = &String> + '_> {
    match &backend.transport {
        Some(Transport::Http(http)) => {
            let one = [&http.url, &http.bearer_token];
            Box::new(one.into_iter().chain(http.headers.values()))
        }
        Some(Transport::Stdio(stdio)) => Box::new(stdio.env.values()),
        Some(Transport::Sse(sse)) => {
            let one = [&sse.url, &sse.bearer_token];
            Box::new(one.into_iter().chain(sse.headers.values()))
        }
        Some(Transport::Unix(unix)) => Box::new(
            [&unix.bearer_token]
                .into_iter()
                .chain(unix.headers.values()),
        ),
        Some(Transport::Websocket(websocket)) => {
            let one = [&websocket.url, &websocket.bearer_token];
            Box::new(one.into_iter().chain(websocket.headers.values()))
        }
        None => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        read::{Documents, read_yaml},
        v1::Secret,
    };

    fn secret(value: &str) -> Resource {
        Resource {
            kind: Some(resource::Kind::Secret(Secret {
                name: "s".to_owned(),
                value: value.to_owned(),
                ..Secret::default()
            })),
        }
    }

    #[test]
    fn values_are_taken_out_and_not_shown() {
        let mut resources = [secret("plain"), secret("")];
        let values = take(&mut resources).unwrap();
        assert_eq!(resources, [secret(""), secret("")]);
        assert_eq!(values.len(), 1);
        assert_eq!(values[0].1.expose(), "plain");
        assert!(!format!("{values:?}").contains("plain"));
        let problems = take(&mut [secret(&"long".repeat(1 << 15))]).unwrap_err();
        assert!(!problems[0].message.contains("long"));
    }

    #[test]
    fn a_written_value_takes_references_but_no_secret() {
        let resolve = |part: &Part| Ok(format!("<{part:?}>"));
        assert_eq!(written("a$$ ${env:B}", resolve).unwrap(), "a$ <Env(\"B\")>");
        assert!(written("${secret:x}", resolve).is_err());
        assert!(written("x", |_| Err("none".into())).is_ok());
        assert!(written("${env:X}", |_| Err("none".into())).is_err());
    }

    #[test]
    fn the_secrets_that_a_set_needs_are_those_that_its_backends_name() {
        let text = "\
            { kind: Secret, name: a, backends: ['*'] }\n---\n\
            { kind: Secret, name: unused, backends: ['*'] }\n---\n\
            { kind: Secret, name: b, project: p, backends: ['*'] }\n---\n\
            { kind: Backend, name: h, http: { url: 'http://h/${secret:a}', headers: { X: '$${secret:unused}' } } }\n---\n\
            { kind: Backend, name: s, project: p, stdio: { command: c, env: { K: 'x${secret:b}' } } }";
        let mut documents = Documents::default();
        read_yaml("f", text, &mut documents);
        let (_, set) = documents.check().unwrap();
        let name = |project: &str, name: &str| (project.to_owned(), name.to_owned());
        assert_eq!(
            named(&set),
            BTreeSet::from([name("default", "a"), name("p", "b")])
        );
    }
}
