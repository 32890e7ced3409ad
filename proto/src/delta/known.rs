//! What a node serves, by keys and hashes: enough to make a delta to it where the
//! set itself is not remembered.
//!
//! The data plane sends [`parts`]; the control plane collects them in [`Collect`], which
//! yields a [`Known`] whose hashes add up to the root hash that the node named, or nothing.

use std::collections::BTreeMap;

use crate::{
    hash::{Hash, root_hash},
    key::Key,
    v1::{KnownHash, KnownHashes},
    validate::Valid,
};

/// Most entries of one part.
pub const ENTRIES: usize = 4_096;
/// Most parts that are collected: a larger set is sent whole.
pub const PARTS: u32 = 64;

/// What a node serves.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    root: Hash,
    hashes: BTreeMap<Key, Hash>,
}

impl Known {
    /// The root hash that the hashes add up to.
    #[must_use]
    pub const fn root_hash(&self) -> Hash {
        self.root
    }

    /// Keys and hashes, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, Hash)> {
        self.hashes.iter().map(|(key, hash)| (key, *hash))
    }
}

/// Why what a node has sent tells nothing. It gets a snapshot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A part is missing, twice or out of order.
    #[error("part {got} came where part {expected} was to come")]
    Order {
        /// Its number.
        got: u32,
        /// What was expected.
        expected: u32,
    },
    /// More than is collected.
    #[error("there are more than {PARTS} parts of {ENTRIES} entries")]
    TooMany,
    /// An entry without a known kind or a whole hash.
    #[error("an entry has no kind that is known here, or no hash")]
    Entry,
    /// A resource came twice.
    #[error("{0} came twice")]
    Twice(Key),
    /// The hashes are not those of what the node serves.
    #[error("the hashes add up to {got}, and the node serves {meant}")]
    Root {
        /// What they add up to.
        got: Hash,
        /// What the node has said.
        meant: Hash,
    },
}

/// The parts that tell what a set holds; made one at a time, the last one marked.
pub fn parts(set: Valid) -> impl Iterator<Item = KnownHashes> {
    let count = set.len().div_ceil(ENTRIES).max(1);
    (0..count).map(move |number| {
        let entries = set.iter().skip(number * ENTRIES).take(ENTRIES);
        let hashes = entries.map(|(key, entry)| KnownHash {
            key: Some(key.to_wire()),
            hash: entry.hash().0.to_vec(),
        });
        KnownHashes {
            hashes: hashes.collect(),
            number: number as u32,
            last: number + 1 == count,
        }
    })
}

/// Parts that are arriving.
#[derive(Debug)]
pub struct Collect {
    root: Hash,
    next: u32,
    hashes: BTreeMap<Key, Hash>,
}

impl Collect {
    /// Nothing yet, of a node that serves a set of this root hash.
    #[must_use]
    pub const fn new(root: Hash) -> Self {
        Self {
            root,
            next: 0,
            hashes: BTreeMap::new(),
        }
    }

    /// The next part. Returns whether it was the last one.
    ///
    /// # Errors
    /// It tells nothing.
    pub fn add(&mut self, part: KnownHashes) -> Result<bool, Unusable> {
        let (got, expected) = (part.number, self.next);
        if got != expected {
            return Err(Unusable::Order { got, expected });
        }
        if got >= PARTS || part.hashes.len() > ENTRIES {
            return Err(Unusable::TooMany);
        }
        self.next += 1;
        for entry in part.hashes {
            let key = entry.key.as_ref().and_then(Key::from_wire);
            let hash = Hash::from_wire(&entry.hash);
            let (key, hash) = key.zip(hash).ok_or(Unusable::Entry)?;
            if self.hashes.contains_key(&key) {
                return Err(Unusable::Twice(key));
            }
            self.hashes.insert(key, hash);
        }
        Ok(part.last)
    }

    /// What the node serves, once the last part is there.
    ///
    /// # Errors
    /// It is not what the node has said it serves.
    pub fn finish(self) -> Result<Known, Unusable> {
        let got = root_hash(self.hashes.iter().map(|(key, hash)| (key, *hash)));
        let meant = self.root;
        if got != meant {
            return Err(Unusable::Root { got, meant });
        }
        Ok(Known {
            root: got,
            hashes: self.hashes,
        })
    }
}
