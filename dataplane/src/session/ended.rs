//! Sessions that were ended, within bounds.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::broadcast;

/// Ended sessions that are remembered one by one.
const MOST_ENDED: usize = 100_000;
/// Of those that end, as many may wait to be told to others.
const UNTOLD: usize = 4096;

/// What has ended, and what ends from now on.
#[derive(Debug)]
pub struct Endings {
    /// Names, with the expiry of their ids.
    pub known: Vec<(Arc<str>, u64)>,
    /// Ids that expire by then have ended.
    pub all_until: u64,
    /// Those that end on this node.
    pub news: broadcast::Receiver<(Arc<str>, u64)>,
}

/// Sessions that were ended: their ids are good no longer, although they would open.
///
/// Where there are too many, the oldest are remembered by their age alone: every id that is
/// as old counts as ended then. A client whose session was not opens a new one (404, as the
/// specification has it); what was ended never comes back.
#[derive(Debug)]
pub(super) struct Ended {
    /// By name, with the expiry of their ids.
    names: HashMap<Arc<str>, u64>,
    /// Ids that expire by then have ended.
    all_until: u64,
    news: broadcast::Sender<(Arc<str>, u64)>,
}

impl Default for Ended {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            all_until: 0,
            news: broadcast::Sender::new(UNTOLD),
        }
    }
}

impl Ended {
    /// One has ended on this node: others are to know.
    pub(super) fn tell(&mut self, name: &str, expires: u64) {
        let name: Arc<str> = name.into();
        self.add(name.clone(), expires);
        // Nobody may be there to hear it.
        let _ = self.news.send((name, expires));
    }

    pub(super) fn endings(&self) -> Endings {
        let names = self.names.iter();
        Endings {
            known: names.map(|(name, at)| (name.clone(), *at)).collect(),
            all_until: self.all_until,
            news: self.news.subscribe(),
        }
    }

    pub(super) fn add_all_until(&mut self, until: u64) {
        self.all_until = self.all_until.max(until);
    }

    pub(super) fn add(&mut self, name: Arc<str>, expires: u64) {
        if self.names.len() >= MOST_ENDED {
            let mut times: Vec<_> = self.names.values().copied().collect();
            let at = times.len() / 16;
            let (_, until, _) = times.select_nth_unstable(at);
            self.all_until = self.all_until.max(*until);
            let until = self.all_until;
            self.names.retain(|_, expires| *expires > until);
        }
        self.names.insert(name, expires);
    }

    pub(super) fn contains(&self, name: &str, expires: u64) -> bool {
        expires <= self.all_until || self.names.contains_key(name)
    }

    pub(super) fn forget_expired(&mut self, now: u64) {
        self.names.retain(|_, expires| *expires > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_sessions_end_none_comes_back_and_memory_stays() {
        let mut ended = Ended::default();
        // Ended in the order of their age, ten in each second.
        let count = 2 * MOST_ENDED as u64;
        for n in 0..count {
            ended.add(n.to_string().into(), 1_000 + n / 10);
            assert!(ended.names.len() <= MOST_ENDED);
        }
        let all = (0..count).all(|n| ended.contains(&n.to_string(), 1_000 + n / 10));
        assert!(all, "one has come back");
        assert!(ended.contains("as old as those", 1_000));
        assert!(!ended.contains("newer", 1_000 + count));
    }
}
