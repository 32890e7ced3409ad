//! A set that is arriving, part by part. It yields the whole new set or nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    hash::Hash,
    key::Key,
    v1::{Begin, Chunk, Commit, SyncMode, Target},
    validate::{Problem, Valid},
};

/// What arrived is not what was sent, or was not made for this node. Nothing of it
/// is used; the stream is to be opened anew.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A chunk is missing, twice or out of order.
    #[error("chunk {got} came where chunk {expected} was to come")]
    Order {
        /// Its number.
        got: u32,
        /// What was expected.
        expected: u32,
    },
    /// A part of another set.
    #[error("a part of the set with nonce {got} came inside the set with nonce {expected}")]
    Nonce {
        /// Its nonce.
        got: u64,
        /// The nonce of the set.
        expected: u64,
    },
    /// The set has ended too early.
    #[error("the set has {sent} chunks, and {arrived} have arrived")]
    Incomplete {
        /// As the commit says.
        sent: u32,
        /// As counted.
        arrived: u32,
    },
    /// The same resource came twice.
    #[error("{0} came twice in one set")]
    Twice(Key),
    /// A delta to something else than what is served.
    #[error("the delta is for another set than the one that is served")]
    Base,
    /// A delta removes what is not there.
    #[error("the delta removes {0}, which is not there")]
    NotThere(String),
    /// A delta resulted in something else than was meant.
    #[error("the delta results in root hash {got} instead of {meant}")]
    Root {
        /// What it results in.
        got: Hash,
        /// What the commit says.
        meant: String,
    },
}

/// Why a complete set is not used.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The stream is to be opened anew.
    Broken(Broken),
    /// What was sent is wrong, and would be wrong again.
    Problems(Vec<Problem>),
}

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// A set that is arriving.
#[derive(Debug)]
pub struct Incoming {
    nonce: u64,
    target: Target,
    /// What a delta changes; empty for a snapshot.
    base: Valid,
    is_delta: bool,
    chunks: u32,
    put: BTreeMap<Key, Vec<u8>>,
    removed: BTreeSet<Key>,
    problems: Vec<Problem>,
}

impl Incoming {
    /// A set starts, at a node that serves `served`.
    ///
    /// # Errors
    /// A delta for something else.
    pub fn new(begin: Begin, served: Option<&Valid>) -> Result<Self, Broken> {
        let mut problems = Vec::new();
        let mode = SyncMode::try_from(begin.mode).unwrap_or_default();
        let base = match mode {
            SyncMode::Delta => {
                let base = Hash::from_wire(&begin.base_root_hash);
                let served = served.filter(|served| Some(served.root_hash()) == base);
                served.ok_or(Broken::Base)?.clone()
            }
            SyncMode::Snapshot => Valid::empty(),
            SyncMode::Unspecified => {
                problems.push(problem(format!(
                    "sync mode {} is not known to this data plane: upgrade it",
                    begin.mode
                )));
                Valid::empty()
            }
        };
        Ok(Self {
            nonce: begin.nonce,
            target: begin.target.unwrap_or_default(),
            base,
            is_delta: mode == SyncMode::Delta,
            chunks: 0,
            put: BTreeMap::new(),
            removed: BTreeSet::new(),
            problems,
        })
    }

    /// Its nonce.
    #[must_use]
    pub const fn nonce(&self) -> u64 {
        self.nonce
    }

    /// What it is to result in.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The next part.
    ///
    /// # Errors
    /// It is not the next part.
    pub fn add(&mut self, chunk: Chunk) -> Result<(), Broken> {
        self.check_nonce(chunk.nonce)?;
        if chunk.number != self.chunks {
            let (got, expected) = (chunk.number, self.chunks);
            return Err(Broken::Order { got, expected });
        }
        self.chunks += 1;
        for wire in chunk.removed {
            // What this data plane does not know it does not serve.
            let key = Key::from_wire(&wire).filter(|key| self.base.get(key).is_some());
            let key =
                key.ok_or_else(|| Broken::NotThere(format!("{} {}", wire.kind, wire.name)))?;
            if !self.removed.insert(key.clone()) || self.put.contains_key(&key) {
                return Err(Broken::Twice(key));
            }
        }
        for resource in chunk.resources {
            let wire = resource.key.unwrap_or_default();
            let Some(key) = Key::from_wire(&wire) else {
                self.problems.push(problem(format!(
                    "{} {} is of a kind that this data plane does not know: upgrade it",
                    wire.kind, wire.name
                )));
                continue;
            };
            if self.removed.contains(&key) || self.put.contains_key(&key) {
                return Err(Broken::Twice(key));
            }
            self.put.insert(key, resource.body);
        }
        Ok(())
    }

    /// The whole new set.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn finish(self, commit: &Commit) -> Result<Valid, Refusal> {
        self.check_nonce(commit.nonce)?;
        if commit.chunks != self.chunks {
            let (sent, arrived) = (commit.chunks, self.chunks);
            return Err(Broken::Incomplete { sent, arrived }.into());
        }
        if !self.problems.is_empty() {
            return Err(Refusal::Problems(self.problems));
        }
        let set = self
            .base
            .with_encoded(self.put, &self.removed)
            .map_err(Refusal::Problems)?;
        let got = set.root_hash();
        if Hash::from_wire(&commit.root_hash) == Some(got) {
            return Ok(set);
        }
        let meant = hex::encode(&commit.root_hash);
        if self.is_delta {
            return Err(Broken::Root { got, meant }.into());
        }
        // A snapshot depends on nothing here: sent again, it would be the same.
        Err(Refusal::Problems(vec![problem(format!(
            "the set that arrived has root hash {got}, not {meant} as its commit says: \
             run the same version on control plane and data plane"
        ))]))
    }

    fn check_nonce(&self, got: u64) -> Result<(), Broken> {
        let expected = self.nonce;
        if got == expected {
            Ok(())
        } else {
            Err(Broken::Nonce { got, expected })
        }
    }
}

fn problem(message: String) -> Problem {
    Problem {
        key: None,
        path: String::new(),
        message,
    }
}
