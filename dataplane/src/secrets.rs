//! Values of Secrets on this node: what `${secret:NAME}` stands for.
//!
//! They come over the control stream, from the disk or from a file of configuration,
//! and go into the texts of backends only ([`resolve`](crate::resolve)).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleet_proto::secret::{Name, Value};

/// Why there is none.
const NONE: &str = "it has no value on this node: the control plane sends it, and it is kept on disk \
                    only with --state-key";

/// The values that a node has.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// `Err`: why not.
    given: BTreeMap<Name, Result<Arc<Value>, String>>,
    /// Given no more, but what is served needs them until it is replaced.
    left: BTreeMap<Name, Arc<Value>>,
}

impl Secrets {
    /// These values, or why there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = (Name, Result<Value, String>)>) -> Self {
        let given = values.into_iter();
        let given = given.map(|(name, value)| (name, value.map(Arc::new)));
        Self {
            given: given.collect(),
            left: BTreeMap::new(),
        }
    }

    /// The value of a Secret.
    ///
    /// # Errors
    /// Why it has none here.
    pub fn get(&self, project: &str, name: &str) -> Result<&str, String> {
        let key = (project.to_owned(), name.to_owned());
        match (self.given.get(&key), self.left.get(&key)) {
            (Some(Ok(value)), _) | (None, Some(value)) => Ok(value.expose()),
            (Some(Err(reason)), _) => Err(format!("${{secret:{name}}}: {reason}")),
            (None, None) => Err(format!("${{secret:{name}}}: {NONE}")),
        }
    }

    /// Newer values. Of the ones before, those stay that are given no more but that
    /// what is served still `needs`: a revision without them is on its way.
    #[must_use]
    pub fn followed_by(&self, newer: Self, needs: &BTreeSet<Name>) -> Self {
        let given = self.given.iter();
        let given = given.filter_map(|(name, value)| Some((name, value.as_ref().ok()?)));
        let left = self.left.iter().chain(given);
        let left =
            left.filter(|(name, _)| needs.contains(*name) && !newer.given.contains_key(*name));
        Self {
            left: left
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            given: newer.given,
        }
    }

    /// Without those that are given no more and not needed either.
    #[must_use]
    pub fn needed_by(&self, needs: &BTreeSet<Name>) -> Self {
        let mut needed = self.clone();
        needed.left.retain(|name, _| needs.contains(name));
        needed
    }

    /// Whether every value is the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.given == other.given && self.left == other.left
    }

    /// All values, also those that are given no more.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &str)> {
        let given = self.given.iter();
        let given = given.filter_map(|(name, value)| Some((name, value.as_ref().ok()?)));
        let all = given.chain(&self.left);
        all.map(|(name, value)| (name, value.expose()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        ("p".to_owned(), name.to_owned())
    }

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        let values = values.iter();
        Secrets::of(values.map(|(n, value)| (name(n), Ok(Value::new((*value).to_owned())))))
    }

    #[test]
    fn a_value_that_is_served_outlives_the_set_without_it_until_it_is_needed_no_more() {
        let before = secrets(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let needs = BTreeSet::from([name("a"), name("b")]);
        let after = before.followed_by(secrets(&[("b", "4"), ("d", "5")]), &needs);
        assert_eq!(after.get("p", "a"), Ok("1"));
        assert_eq!(after.get("p", "b"), Ok("4"));
        assert!(after.get("p", "c").is_err());
        let after = after.followed_by(secrets(&[("d", "5")]), &needs);
        assert_eq!(
            (after.get("p", "a"), after.get("p", "b")),
            (Ok("1"), Ok("4"))
        );
        let after = after.needed_by(&BTreeSet::from([name("d")]));
        assert!(after.get("p", "a").is_err() && after.get("q", "d").is_err());
        assert_eq!(after.get("p", "d"), Ok("5"));
    }

    #[test]
    fn nothing_shows_a_value() {
        let shown = format!("{:?}", secrets(&[("a", "pl4in")]));
        assert!(shown.contains('a') && !shown.contains("pl4in"), "{shown}");
    }
}
