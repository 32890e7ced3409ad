//! Resource hash and root hash.
//!
//! A resource's hash is the SHA-256 of its prost bytes as written to the store.
//! The root hash sums up a whole set in 256 buckets, so that a delta can update
//! it without walking everything.

use std::{collections::BTreeMap, fmt};

use sha2::{Digest, Sha256};

use crate::key::Key;

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
    let mut buckets: BTreeMap<u8, BTreeMap<&Key, Hash>> = BTreeMap::new();
    for (key, hash) in set {
        buckets.entry(bucket(key)).or_default().insert(key, hash);
    }
    let mut root = Sha256::new();
    for number in 0..=u8::MAX {
        let mut digest = Sha256::new();
        for (key, hash) in buckets.get(&number).into_iter().flatten() {
            add_key(&mut digest, key);
            digest.update(hash.0);
        }
        root.update(digest.finalize());
    }
    Hash(root.finalize().into())
}

fn bucket(key: &Key) -> u8 {
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
