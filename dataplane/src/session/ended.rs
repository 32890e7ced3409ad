//! Sessions that were ended, within bounds.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

/// Ended sessions that are remembered one by one, and owners of whom any are.
const MOST: usize = 100_000;
/// Of those that end, as many may wait to be told to others.
pub(super) const UNTOLD: usize = 4096;

/// Whose sessions: a gateway's and a principal's, as a hash that all nodes make alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner([u8; 16]);

/// What has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// One session.
    One {
        /// Whose it was.
        owner: Owner,
        /// Names it.
        name: Arc<str>,
        /// When its id expires, in seconds since 1970-01-01 UTC.
        expires: u64,
    },
    /// Sessions whose ids expire by then.
    Until {
        /// Whose; `None`: everybody's.
        owner: Option<Owner>,
        /// In seconds since 1970-01-01 UTC.
        expires: u64,
    },
}

/// What has ended, and what ends from now on.
#[derive(Debug)]
pub struct Endings {
    /// Before.
    pub known: Vec<Ending>,
    /// Sessions that end on this node.
    pub news: broadcast::Receiver<Ending>,
}

/// Sessions that were ended: their ids are good no longer, although they would open.
///
/// Where there are too many, the oldest ones of who has ended the most are remembered by
/// their age alone: every id of that owner that is as old counts as ended then. A client
/// whose session was not opens a new one (404, as the specification has it); what was ended
/// never comes back. Only where too many owners have ended any, this is so for all of them.
#[derive(Debug)]
pub struct Ended {
    owners: HashMap<Owner, Of>,
    /// Names in all of them.
    names: usize,
    /// Ids that expire by then have ended.
    all_until: u64,
    /// Names and owners that it has room for.
    most: usize,
}

/// What of one owner has ended.
#[derive(Debug, Default)]
struct Of {
    /// By name, with the expiry of their ids.
    names: HashMap<Arc<str>, u64>,
    /// Ids that expire by then.
    until: u64,
}

impl Owner {
    /// The sessions and subscriptions of a principal at a gateway, by its project and name.
    #[must_use]
    pub fn new(gateway: &str, principal: &str) -> Self {
        // No gateway's name has a NUL.
        let hash = Sha256::new()
            .chain_update(gateway)
            .chain_update([0])
            .chain_update(principal)
            .finalize();
        let mut start = [0; 16];
        start.copy_from_slice(&hash[..16]);
        Self(start)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Owner {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut hash = [0; 16];
        hex::decode_to_slice(text, &mut hash)?;
        Ok(Self(hash))
    }
}

impl Default for Ended {
    fn default() -> Self {
        Self::with_room_for(MOST)
    }
}

impl Ended {
    fn with_room_for(most: usize) -> Self {
        Self {
            owners: HashMap::new(),
            names: 0,
            all_until: 0,
            most,
        }
    }

    /// Whether nothing has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.all_until == 0
    }

    /// All that has ended.
    pub fn endings(&self) -> impl Iterator<Item = Ending> {
        let all = Ending::Until {
            owner: None,
            expires: self.all_until,
        };
        let of_each = self.owners.iter().flat_map(|(owner, of)| {
            let until = Ending::Until {
                owner: Some(*owner),
                expires: of.until,
            };
            let names = of.names.iter().map(|(name, expires)| Ending::One {
                owner: *owner,
                name: name.clone(),
                expires: *expires,
            });
            (of.until > 0).then_some(until).into_iter().chain(names)
        });
        [all].into_iter().chain(of_each)
    }

    /// Remembers what has ended.
    pub fn add(&mut self, ending: Ending) {
        match ending {
            Ending::Until {
                owner: None,
                expires,
            } => self.all_until = self.all_until.max(expires),
            Ending::Until {
                owner: Some(owner),
                expires,
            } => {
                let of = self.owners.entry(owner).or_default();
                self.names -= of.forget_until(expires);
                self.make_room();
            }
            Ending::One {
                owner,
                name,
                expires,
            } => {
                if self.contains(owner, &name, expires) {
                    return;
                }
                let of = self.owners.entry(owner).or_default();
                of.names.insert(name, expires);
                self.names += 1;
                self.make_room();
            }
        }
    }

    pub(super) fn contains(&self, owner: Owner, name: &str, expires: u64) -> bool {
        let of_owner = |of: &Of| expires <= of.until || of.names.contains_key(name);
        expires <= self.all_until || self.owners.get(&owner).is_some_and(of_owner)
    }

    pub(super) fn forget_expired(&mut self, now: u64) {
        self.owners.retain(|_, of| {
            of.names.retain(|_, expires| *expires > now);
            of.until > now || !of.names.is_empty()
        });
        self.names = self.owners.values().map(|of| of.names.len()).sum();
    }

    fn is_within(&self, most: usize) -> bool {
        self.names + self.owners.len() <= most
    }

    fn make_room(&mut self) {
        if self.is_within(self.most) {
            return;
        }
        // By a sixteenth: the scan is paid for seldom.
        let enough = self.most - self.most / 16;
        let owners = self.owners.iter();
        let mut most: Vec<_> = owners.map(|(owner, of)| (of.names.len(), *owner)).collect();
        most.sort_unstable();
        while let Some((_, owner)) = most.pop()
            && !self.is_within(enough)
        {
            if let Some(of) = self.owners.get_mut(&owner) {
                self.names -= of.forget_until(of.half());
            }
        }
        if !self.is_within(enough) {
            self.forget_oldest_owners();
        }
    }

    fn forget_oldest_owners(&mut self) {
        let mut times: Vec<_> = self.owners.values().map(Of::newest).collect();
        let at = times.len() / 16;
        let (_, until, _) = times.select_nth_unstable(at);
        self.all_until = self.all_until.max(*until);
        let until = self.all_until;
        self.owners.retain(|_, of| of.newest() > until);
        self.names = self.owners.values().map(|of| of.names.len()).sum();
    }
}

impl Of {
    /// When the older half of its names has expired.
    fn half(&self) -> u64 {
        let mut times: Vec<_> = self.names.values().copied().collect();
        if times.is_empty() {
            return self.until;
        }
        let at = (times.len() - 1) / 2;
        *times.select_nth_unstable(at).1
    }

    fn newest(&self) -> u64 {
        self.names.values().copied().fold(self.until, u64::max)
    }

    /// Has all that expire by then count as ended; gives how many names are forgotten for it.
    fn forget_until(&mut self, until: u64) -> usize {
        self.until = self.until.max(until);
        let before = self.names.len();
        self.names.retain(|_, expires| *expires > self.until);
        self.names.shrink_to_fit();
        before - self.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 5_000;

    fn one(owner: Owner, n: u64, expires: u64) -> Ending {
        Ending::One {
            owner,
            name: n.to_string().into(),
            expires,
        }
    }

    #[test]
    fn however_many_sessions_end_none_comes_back_and_who_has_ended_most_pays() {
        let mut ended = Ended::with_room_for(MOST);
        let (flood, other) = (Owner::new("p/a", "x"), Owner::new("p/a", "y"));
        for n in 0..50 {
            ended.add(one(other, n, 1_000 + n));
        }
        // Ended in the order of their age, ten in each second.
        let count = 2 * MOST as u64;
        for n in 0..count {
            ended.add(one(flood, n, 1_000 + n / 10));
            assert!(ended.is_within(MOST));
        }
        let is_ended = |n: u64| ended.contains(flood, &n.to_string(), 1_000 + n / 10);
        assert!((0..count).all(is_ended), "one has come back");
        assert!((0..50).all(|n| ended.contains(other, &n.to_string(), 1_000 + n)));
        assert!(ended.contains(flood, "as old as those", 1_000));
        assert!(!ended.contains(flood, "newer", 1_000 + count));
        assert!(!ended.contains(other, "another's", 1));
        ended.forget_expired(1_000 + count);
        assert!(ended.is_empty() && ended.is_within(0));
    }

    #[test]
    fn however_many_owners_end_theirs_none_comes_back_and_memory_stays() {
        let mut ended = Ended::with_room_for(MOST);
        let count = MOST as u64 * 5 / 4;
        let owner = |n: u64| Owner(u128::from(n).to_be_bytes());
        for n in 0..count {
            ended.add(one(owner(n), n, 1_000 + n / 10));
            assert!(ended.is_within(MOST));
        }
        let is_ended = |n: u64| ended.contains(owner(n), &n.to_string(), 1_000 + n / 10);
        assert!((0..count).all(is_ended), "one has come back");
        assert!(!ended.contains(owner(0), "newer", 1_000 + count));
    }

    #[test]
    fn what_has_ended_is_the_same_where_it_is_told() {
        let (owner, other) = (Owner::new("p/a", "x"), Owner::new("p/a", "y"));
        let mut here = Ended::default();
        here.add(one(owner, 1, 10));
        here.add(one(other, 2, 20));
        here.add(Ending::Until {
            owner: Some(owner),
            expires: 15,
        });
        let mut there = Ended::default();
        here.endings().for_each(|ending| there.add(ending));
        for ended in [here, there] {
            assert_eq!(ended.names, 1, "one is as old as all that have ended");
            assert!(ended.contains(owner, "1", 10) && ended.contains(owner, "0", 15));
            assert!(!ended.contains(owner, "0", 16) && !ended.contains(other, "0", 15));
            assert!(ended.contains(other, "2", 20));
        }
    }
}
