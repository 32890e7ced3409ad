//! [`Valid`]: a set of resources in which everything fits together.

use std::{collections::BTreeMap, sync::Arc};

use prost::Message;

use crate::{
    hash::{self, Hash},
    key::{DEFAULT_PROJECT, Key, Kind},
    select::Selector,
    v1::{AuthPolicy, Backend, Gateway, Resource, resource},
};

/// A resource with its stored form.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    resource: Resource,
    body: Vec<u8>,
    hash: Hash,
}

impl Entry {
    pub(super) fn new(resource: Resource) -> Self {
        let body = resource.encode_to_vec();
        let hash = Hash::of(&body);
        Self {
            resource,
            body,
            hash,
        }
    }

    /// The resource, normalised.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Its prost bytes: what is stored, sent and hashed.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The hash of its bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }
}

/// A checked set of resources. Only [`validate`](super::validate) and
/// [`validate_encoded`](super::validate_encoded) make one; a clone is cheap.
#[derive(Clone, Debug)]
pub struct Valid {
    set: Arc<Set>,
}

#[derive(Debug)]
struct Set {
    entries: BTreeMap<Key, Entry>,
    root_hash: Hash,
}

impl Valid {
    pub(super) fn new(entries: BTreeMap<Key, Entry>) -> Self {
        let root_hash = hash::root_hash(entries.iter().map(|(key, entry)| (key, entry.hash)));
        Self {
            set: Arc::new(Set { entries, root_hash }),
        }
    }

    /// The set without resources.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(BTreeMap::new())
    }

    /// All resources in order of kind, project, name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, &Entry)> {
        self.set.entries.iter()
    }

    /// The resource of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.set.entries.get(key)
    }

    /// How many resources there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.entries.is_empty()
    }

    /// The root hash of the set.
    #[must_use]
    pub fn root_hash(&self) -> Hash {
        self.set.root_hash
    }

    /// The backends in order of project and name.
    pub fn backends(&self) -> impl Iterator<Item = (&Key, &Backend)> {
        self.of_kind(Kind::Backend)
            .filter_map(|(key, entry)| match &entry.resource.kind {
                Some(resource::Kind::Backend(backend)) => Some((key, backend)),
                _ => None,
            })
    }

    /// The gateways in order of project and name.
    pub fn gateways(&self) -> impl Iterator<Item = (&Key, &Gateway)> {
        self.of_kind(Kind::Gateway)
            .filter_map(|(key, entry)| match &entry.resource.kind {
                Some(resource::Kind::Gateway(gateway)) => Some((key, gateway)),
                _ => None,
            })
    }

    /// The authentication policies in order of project and name.
    pub fn auth_policies(&self) -> impl Iterator<Item = (&Key, &AuthPolicy)> {
        self.of_kind(Kind::AuthPolicy)
            .filter_map(|(key, entry)| match &entry.resource.kind {
                Some(resource::Kind::AuthPolicy(policy)) => Some((key, policy)),
                _ => None,
            })
    }

    /// The gateways to serve: those of the set or, when it has none at all, an
    /// open `default` at `/mcp` with every backend of the default project.
    #[must_use]
    pub fn gateways_served(&self) -> Vec<Gateway> {
        let gateways: Vec<_> = self
            .gateways()
            .map(|(_, gateway)| gateway.clone())
            .collect();
        if !gateways.is_empty() {
            return gateways;
        }
        vec![Gateway {
            name: "default".to_owned(),
            project: DEFAULT_PROJECT.to_owned(),
            path: "/mcp".to_owned(),
            ..Gateway::default()
        }]
    }

    /// The backends behind a gateway, in order of their names.
    pub fn backends_of<'a>(
        &'a self,
        gateway: &'a Gateway,
    ) -> impl Iterator<Item = (&'a Key, &'a Backend)> {
        let selector = Selector::new(gateway);
        self.backends()
            .filter(move |(_, backend)| selector.matches(backend))
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Entry)> {
        let first = Key {
            kind,
            project: String::new(),
            name: String::new(),
        };
        self.set
            .entries
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind)
    }
}

/// Two sets are equal when their root hashes are.
impl PartialEq for Valid {
    fn eq(&self, other: &Self) -> bool {
        self.set.root_hash == other.set.root_hash
    }
}

impl Eq for Valid {}
