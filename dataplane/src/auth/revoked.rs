//! Bearer tokens that are not accepted any more, whatever the table says.
//!
//! Looked at with every request: no lock, no allocation, and nothing at all while
//! nothing is revoked.

use fleet_proto::{
    hash::Hash,
    v1::{Revocation, revocation::What},
};

use crate::sealed;

/// What is revoked.
#[derive(Debug, Default)]
pub struct Revoked {
    /// In order of their hashes.
    entries: Vec<Entry>,
    /// It cannot be told what is.
    unknown: bool,
}

#[derive(Debug)]
struct Entry {
    hash: Hash,
    /// Empty: all.
    project: String,
    /// In milliseconds; 0: it stays.
    until_ms: u64,
}

/// Whether a token is accepted, as far as revocations are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not revoked.
    Good,
    /// It is.
    Revoked,
    /// That cannot be told.
    Unknown,
}

impl Revoked {
    /// What the control plane says.
    ///
    /// # Errors
    /// Something that is revoked and that this version does not know.
    pub fn of(revocations: &[Revocation]) -> Result<Self, String> {
        let entry = |one: &Revocation| {
            let Some(What::BearerSha256(hash)) = &one.what else {
                return Err(
                    "it revokes something that this data plane does not know: upgrade this data plane"
                        .to_owned(),
                );
            };
            let hash = Hash::from_wire(hash).ok_or("it revokes a token by a hash that is none")?;
            Ok(Entry {
                hash,
                project: one.project.clone(),
                until_ms: one.until_ms,
            })
        };
        let mut entries = revocations
            .iter()
            .map(entry)
            .collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|entry| entry.hash.0);
        Ok(Self {
            entries,
            unknown: false,
        })
    }

    /// What is revoked cannot be told: no token is accepted until it can.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            entries: Vec::new(),
            unknown: true,
        }
    }

    /// Whether the token of this hash is accepted at gateways of this project.
    #[must_use]
    pub fn verdict(&self, project: &str, hash: &[u8; 32]) -> Verdict {
        if self.unknown {
            return Verdict::Unknown;
        }
        if self.entries.is_empty() {
            return Verdict::Good;
        }
        let first = self.entries.partition_point(|entry| entry.hash.0 < *hash);
        let same = self.entries[first..].iter();
        let mut same = same.take_while(|entry| entry.hash.0 == *hash);
        let is_meant = |entry: &Entry| {
            (entry.project.is_empty() || entry.project == project)
                && (entry.until_ms == 0 || u128::from(entry.until_ms) > sealed::now().as_millis())
        };
        if same.any(is_meant) {
            Verdict::Revoked
        } else {
            Verdict::Good
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Projects (empty: all) and hashes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8; 32])> {
        let entries = self.entries.iter();
        entries.map(|entry| (entry.project.as_str(), &entry.hash.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(project: &str, seed: u8, until_ms: u64) -> Revocation {
        Revocation {
            project: project.to_owned(),
            until_ms,
            what: Some(What::BearerSha256(vec![seed; 32])),
        }
    }

    #[test]
    fn a_token_is_revoked_in_its_project_or_everywhere_until_its_time() {
        let past = 1;
        let future = u64::MAX;
        let all = [
            revocation("", 3, 0),
            revocation("p", 1, 0),
            revocation("q", 1, past),
            revocation("q", 2, future),
        ];
        let revoked = Revoked::of(&all).unwrap();
        let verdict = |project, seed| revoked.verdict(project, &[seed; 32]);
        for (project, seed) in [("p", 3), ("q", 3), ("p", 1), ("q", 2)] {
            assert_eq!(verdict(project, seed), Verdict::Revoked, "{project} {seed}");
        }
        for (project, seed) in [("q", 1), ("p", 2), ("p", 0), ("p", 4)] {
            assert_eq!(verdict(project, seed), Verdict::Good, "{project} {seed}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_and_what_is_not_known_lets_nobody_in() {
        let newer = Revocation::default();
        assert!(Revoked::of(&[newer]).unwrap_err().contains("upgrade"));
        let mut short = revocation("", 1, 0);
        short.what = Some(What::BearerSha256(vec![1; 31]));
        assert!(Revoked::of(&[short]).is_err());
        assert_eq!(Revoked::unknown().verdict("p", &[0; 32]), Verdict::Unknown);
        assert_eq!(Revoked::default().verdict("p", &[0; 32]), Verdict::Good);
    }
}
