//! From one set to another: what is put and what is removed.
//!
//! On the config way: between `publish` and the stream. The control plane makes a
//! [`Delta`] against what a node has acked and sends it in [`chunks`](Delta::chunks);
//! the data plane collects those in [`Incoming`], which yields the new set or nothing.
//! Where the control plane does not remember what the node serves, hashes are enough
//! ([`known`]).

mod incoming;
pub mod known;
#[cfg(test)]
mod tests;

use std::{cmp::Ordering, collections::BTreeSet};

use prost::Message;

use crate::{
    hash::Hash,
    key::Key,
    v1::{Begin, Chunk, Commit, EncodedResource, ResourceKey, SyncMode, Target},
    validate::{Entry, Problem, Valid},
};

pub use incoming::{Broken, Incoming, Refusal};
use known::Known;

/// Most bytes of one chunk; a larger resource has a chunk of its own.
pub const CHUNK: usize = 256 * 1024;
/// What tag and length of a part of a chunk take at most.
const FRAME: usize = 8;
/// What the other fields of a chunk take at most.
const CHUNK_HEAD: usize = 24;

/// What makes one set out of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Root hash of what it changes; `None`: it is a whole set.
    base: Option<Hash>,
    /// Root hash of what it results in.
    target: Option<Hash>,
    put: Vec<(Key, Entry)>,
    removed: BTreeSet<Key>,
}

/// What makes `b` out of `a`. Costs a comparison per resource; what the two share
/// is not looked at.
#[must_use]
pub fn delta(a: &Valid, b: &Valid) -> Delta {
    from_to(a.root_hash(), a.iter(), b, |was, is| was == is)
}

/// What makes `b` out of a set of these keys and hashes.
#[must_use]
pub fn from_known(a: &Known, b: &Valid) -> Delta {
    from_to(a.root_hash(), a.iter(), b, |was, is| was == is.hash())
}

fn from_to<'a, T: Copy>(
    base: Hash,
    old: impl Iterator<Item = (&'a Key, T)>,
    new: &Valid,
    same: impl Fn(T, &Entry) -> bool,
) -> Delta {
    let (mut put, mut removed) = (Vec::new(), BTreeSet::new());
    let target = Some(new.root_hash());
    let (mut old, mut new) = (old.peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some((old, _)), Some((new, _))) => (*old).cmp(*new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let was = (order != Ordering::Greater).then(|| old.next()).flatten();
        let is = (order != Ordering::Less).then(|| new.next()).flatten();
        match (was, is) {
            (Some((key, _)), None) => {
                removed.insert(key.clone());
            }
            (was, Some((key, entry))) if was.is_none_or(|(_, was)| !same(was, entry)) => {
                put.push((key.clone(), entry.clone()));
            }
            _ => {}
        }
    }
    Delta {
        base: Some(base),
        target,
        put,
        removed,
    }
}

/// What `d` makes out of `a`.
///
/// # Errors
/// The result does not fit together: `d` was not made for `a`.
pub fn apply(a: &Valid, d: &Delta) -> Result<Valid, Vec<Problem>> {
    let put = d.put.iter().map(|(_, entry)| entry.resource().clone());
    match d.base {
        Some(_) => a.with(put, &d.removed),
        None => Valid::empty().with(put, &d.removed),
    }
}

impl Delta {
    /// A whole set, whatever was there before.
    #[must_use]
    pub fn snapshot(set: &Valid) -> Self {
        Self {
            base: None,
            ..delta(&Valid::empty(), set)
        }
    }

    /// The smaller of the delta from `base` to `target` and the whole of `target`.
    #[must_use]
    pub fn smaller(base: &Valid, target: &Valid) -> Self {
        delta(base, target).or_whole(target)
    }

    /// The smaller of this delta and the whole of its `target`.
    #[must_use]
    pub fn or_whole(self, target: &Valid) -> Self {
        // What is put is in the whole as well.
        let unchanged = target.len() - self.put.len();
        if self.removed.len() < unchanged.max(1) {
            return self;
        }
        let whole = Self::snapshot(target);
        if self.size() < whole.size() {
            self
        } else {
            whole
        }
    }

    /// How many resources it puts and how many it removes.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.put.len(), self.removed.len())
    }

    /// Whether it is a whole set.
    #[must_use]
    pub const fn is_snapshot(&self) -> bool {
        self.base.is_none()
    }

    /// Bytes of its chunks, about.
    fn size(&self) -> usize {
        self.parts().map(|part| part.size()).sum()
    }

    /// The message before its chunks.
    #[must_use]
    pub fn begin(&self, nonce: u64, target: Target) -> Begin {
        let mode = match self.base {
            Some(_) => SyncMode::Delta,
            None => SyncMode::Snapshot,
        };
        Begin {
            nonce,
            mode: mode.into(),
            target: Some(target),
            base_root_hash: self.base.map(|hash| hash.0.to_vec()).unwrap_or_default(),
        }
    }

    /// Its chunks, made one at a time: what is not sent yet takes no memory.
    pub fn chunks(&self, nonce: u64) -> impl Iterator<Item = Chunk> {
        let mut parts = self.parts().peekable();
        let mut numbers = 0..;
        std::iter::from_fn(move || {
            parts.peek()?;
            let mut chunk = Chunk {
                nonce,
                number: numbers.next()?,
                ..Chunk::default()
            };
            let mut size = CHUNK_HEAD;
            let mut is_first = true;
            while let Some(part) = parts.next_if(|part| is_first || size + part.size() <= CHUNK) {
                size += part.size();
                is_first = false;
                match part {
                    Part::Put(resource) => chunk.resources.push(resource),
                    Part::Removed(key) => chunk.removed.push(key),
                }
            }
            Some(chunk)
        })
    }

    /// The message after its chunks.
    #[must_use]
    pub fn commit(&self, nonce: u64, chunks: u32) -> Commit {
        Commit {
            root_hash: self.target.map(|hash| hash.0.to_vec()).unwrap_or_default(),
            nonce,
            chunks,
        }
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        let removed = self.removed.iter().map(|key| Part::Removed(key.to_wire()));
        let put = self.put.iter().map(|(key, entry)| {
            Part::Put(EncodedResource {
                key: Some(key.to_wire()),
                body: entry.body().to_vec(),
            })
        });
        removed.chain(put)
    }
}

/// What a chunk is made of.
enum Part {
    Put(EncodedResource),
    Removed(ResourceKey),
}

impl Part {
    fn size(&self) -> usize {
        FRAME
            + match self {
                Self::Put(resource) => resource.encoded_len(),
                Self::Removed(key) => key.encoded_len(),
            }
    }
}
