//! Resource hash and root hash.
//!
//! A resource's hash is the SHA-256 of its prost bytes as written to the store.
//! The root hash sums up a whole set in 256 buckets, so that a delta can update
//! it without walking everything.

use std::{collections::BTreeMap, fmt};

use sha2::{Digest, Sha256};

use crate::key::Key;

/// Buckets of a root hash: a key's is a byte.
pub(crate) const BUCKETS: usize = 256;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The hash in a wire message; `None` unless it has 32 bytes.
    #[must_use]
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Root hash of a set: the hash over 256 bucket hashes, each over the keys and
/// hashes of its resources in key order. A resource's bucket is the first byte
/// of the hash of its key.
#[must_use]
pub fn root_hash<'a>(set: impl IntoIterator<Item = (&'a Key, Hash)>) -> Hash {
    let set: BTreeMap<&Key, Hash> = set.into_iter().collect();
    let set = set.into_iter().map(|(key, hash)| (key, bucket(key), hash));
    Root::of(set).hash()
}

/// A root hash with its buckets, so that one of a changed set hashes only the
/// buckets in which something has changed.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    buckets: Box<[Hash]>,
    hash: Hash,
}

impl Root {
    /// Of a whole set, with the bucket of each key, in key order.
    pub(crate) fn of<'a>(set: impl Iterator<Item = (&'a Key, u8, Hash)>) -> Self {
        let empty = Self {
            buckets: vec![Hash([0; 32]); BUCKETS].into(),
            hash: Hash([0; 32]),
        };
        empty.updated(&[true; BUCKETS], set)
    }

    /// Of the whole set that this one has become, given which buckets have changed.
    pub(crate) fn updated<'a>(
        &self,
        changed: &[bool; BUCKETS],
        set: impl Iterator<Item = (&'a Key, u8, Hash)>,
    ) -> Self {
        let mut digests: Vec<_> = changed.map(|c| c.then(Sha256::new)).into();
        for (key, bucket, hash) in set {
            if let Some(digest) = &mut digests[usize::from(bucket)] {
                add_key(digest, key);
                digest.update(hash.0);
            }
        }
        let mut buckets = self.buckets.clone();
        for (bucket, digest) in buckets.iter_mut().zip(digests) {
            if let Some(digest) = digest {
                *bucket = Hash(digest.finalize().into());
            }
        }
        let mut root = Sha256::new();
        for bucket in &buckets {
            root.update(bucket.0);
        }
        let hash = Hash(root.finalize().into());
        Self { buckets, hash }
    }

    pub(crate) const fn hash(&self) -> Hash {
        self.hash
    }
}

/// The bucket of a key.
pub(crate) fn bucket(key: &Key) -> u8 {
    let mut digest = Sha256::new();
    add_key(&mut digest, key);
    digest.finalize()[0]
}

/// Lengths first: no two keys feed the same bytes.
fn add_key(digest: &mut Sha256, key: &Key) {
    for part in [key.kind.as_str(), &key.project, &key.name] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Kind;

    #[test]
    fn root_hash_depends_on_the_set_and_not_on_its_order() {
        let keys: Vec<_> = (0..50)
            .map(|i| Key::new("", Kind::Backend, &format!("b{i}")))
            .collect();
        let hash = |i: usize| Hash::of(&[i as u8]);
        let forward = root_hash(keys.iter().enumerate().map(|(i, k)| (k, hash(i))));
        let backward = root_hash(keys.iter().enumerate().rev().map(|(i, k)| (k, hash(i))));
        let other = root_hash(keys.iter().enumerate().map(|(i, k)| (k, hash(i + 1))));
        assert_eq!(forward, backward);
        assert_ne!(forward, other);
        assert_ne!(
            forward,
            root_hash(
                keys.iter()
                    .skip(1)
                    .enumerate()
                    .map(|(i, k)| (k, hash(i + 1)))
            )
        );
    }
}
