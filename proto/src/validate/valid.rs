//! [`Valid`]: a set of resources in which everything fits together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prost::Message;

use crate::{
    hash::{self, BUCKETS, Hash, Root},
    key::{DEFAULT_PROJECT, Key, Kind},
    select::Selector,
    v1::{AuthPolicy, Backend, Gateway, Resource, Secret, resource},
};

/// A resource with its stored form. A clone is cheap: sets that follow one another
/// share what they have in common.
#[derive(Clone, Debug)]
pub struct Entry(Arc<Content>);

#[derive(Debug)]
struct Content {
    resource: Resource,
    body: Vec<u8>,
    hash: Hash,
    /// Of its key, in the root hash.
    bucket: u8,
}

impl Entry {
    fn new(key: &Key, resource: Resource) -> Self {
        let body = resource.encode_to_vec();
        let (hash, bucket) = (Hash::of(&body), hash::bucket(key));
        Self(Arc::new(Content {
            resource,
            body,
            hash,
            bucket,
        }))
    }

    /// The resource, normalised.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.0.resource
    }

    /// Its prost bytes: what is stored, sent and hashed.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.0.body
    }

    /// The hash of its bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.0.hash
    }
}

/// Two resources are equal when their bytes are.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.hash == other.0.hash
    }
}

impl Eq for Entry {}

/// A checked set of resources. Only [`validate`](super::validate) and its kin
/// make one; a clone is cheap.
#[derive(Clone, Debug)]
pub struct Valid {
    set: Arc<Set>,
}

#[derive(Debug)]
struct Set {
    entries: BTreeMap<Arc<Key>, Entry>,
    root: Root,
}

impl Valid {
    pub(super) fn new(resources: impl Iterator<Item = (Key, Resource)>) -> Self {
        let entries: BTreeMap<_, _> = resources
            .map(|(key, resource)| {
                let entry = Entry::new(&key, resource);
                (Arc::new(key), entry)
            })
            .collect();
        let root = Root::of(hashes(&entries));
        Self {
            set: Arc::new(Set { entries, root }),
        }
    }

    /// This set with other resources; what has not changed is shared, and not
    /// hashed again.
    pub(super) fn changed(
        &self,
        put: impl Iterator<Item = (Key, Resource)>,
        remove: &BTreeSet<Key>,
    ) -> Self {
        let mut entries = self.set.entries.clone();
        let mut changed = [false; BUCKETS];
        for key in remove {
            if let Some(entry) = entries.remove(key) {
                changed[usize::from(entry.0.bucket)] = true;
            }
        }
        for (key, resource) in put {
            let entry = Entry::new(&key, resource);
            if entries.get(&key) != Some(&entry) {
                changed[usize::from(entry.0.bucket)] = true;
                entries.insert(Arc::new(key), entry);
            }
        }
        let root = self.set.root.updated(&changed, hashes(&entries));
        Self {
            set: Arc::new(Set { entries, root }),
        }
    }

    /// The same set, sharing with `other` what the two have in common: for sets
    /// that were read separately and are kept side by side.
    #[must_use]
    pub fn sharing(self, other: &Self) -> Self {
        let shared = |(key, entry): (&Arc<Key>, &Entry)| {
            let (key, entry) = match other.set.entries.get_key_value(&**key) {
                Some((same_key, same)) if same == entry => (same_key, same),
                _ => (key, entry),
            };
            (Arc::clone(key), entry.clone())
        };
        let entries = self.set.entries.iter().map(shared).collect();
        let root = self.set.root.clone();
        Self {
            set: Arc::new(Set { entries, root }),
        }
    }

    /// The set without resources.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(std::iter::empty())
    }

    /// All resources in order of kind, project, name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, &Entry)> {
        self.set.entries.iter().map(|(key, entry)| (&**key, entry))
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
        self.set.root.hash()
    }

    /// The backends in order of project and name.
    pub fn backends(&self) -> impl Iterator<Item = (&Key, &Backend)> {
        self.of_kind(Kind::Backend)
            .filter_map(|(key, entry)| match &entry.resource().kind {
                Some(resource::Kind::Backend(backend)) => Some((key, backend)),
                _ => None,
            })
    }

    /// The gateways in order of project and name.
    pub fn gateways(&self) -> impl Iterator<Item = (&Key, &Gateway)> {
        self.of_kind(Kind::Gateway)
            .filter_map(|(key, entry)| match &entry.resource().kind {
                Some(resource::Kind::Gateway(gateway)) => Some((key, gateway)),
                _ => None,
            })
    }

    /// The authentication policies in order of project and name.
    pub fn auth_policies(&self) -> impl Iterator<Item = (&Key, &AuthPolicy)> {
        self.of_kind(Kind::AuthPolicy)
            .filter_map(|(key, entry)| match &entry.resource().kind {
                Some(resource::Kind::AuthPolicy(policy)) => Some((key, policy)),
                _ => None,
            })
    }

    /// The secrets, without their values, in order of project and name.
    pub fn secrets(&self) -> impl Iterator<Item = (&Key, &Secret)> {
        self.of_kind(Kind::Secret)
            .filter_map(|(key, entry)| match &entry.resource().kind {
                Some(resource::Kind::Secret(secret)) => Some((key, secret)),
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
            .range::<Key, _>(&first..)
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(key, entry)| (&**key, entry))
    }
}

/// Two sets are equal when their root hashes are.
impl PartialEq for Valid {
    fn eq(&self, other: &Self) -> bool {
        self.root_hash() == other.root_hash()
    }
}

impl Eq for Valid {}

fn hashes(entries: &BTreeMap<Arc<Key>, Entry>) -> impl Iterator<Item = (&Key, u8, Hash)> {
    let entries = entries.iter();
    entries.map(|(key, entry)| (&**key, entry.0.bucket, entry.0.hash))
}
