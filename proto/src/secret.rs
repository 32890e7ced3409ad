//! The values of Secrets, apart from the resources: no set of resources holds one.

use std::fmt;

use crate::{
    key::Key,
    reference::{Part, references},
    v1::{Resource, resource},
    validate::{Problem, bad_value},
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Secret;

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
}
