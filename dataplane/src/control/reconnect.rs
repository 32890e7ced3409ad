//! Which address is tried next, and after which pause: all of them in random
//! order, with full jitter up to a bound that doubles from round to round.

use std::time::Duration;

use crate::sealed;

/// The bound of the first round, and that of all later ones.
const BOUND: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

/// Attempts at several addresses.
pub(super) struct Reconnect {
    urls: Vec<String>,
    /// Of this round, still to be tried; the last one is next.
    left: Vec<String>,
    bound: Duration,
    attempts: usize,
}

impl Reconnect {
    pub(super) fn new(urls: Vec<String>) -> Self {
        let left = shuffled(urls.clone());
        Self {
            urls,
            left,
            bound: BOUND.0,
            attempts: 0,
        }
    }

    /// The address to try; `None`: there are none at all.
    pub(super) fn next(&mut self) -> Option<String> {
        if self.left.is_empty() {
            self.left = shuffled(self.urls.clone());
        }
        self.left.pop()
    }

    /// How long to wait after an attempt at `url` whose stream lived for `lived`.
    pub(super) fn pause(&mut self, url: &str, lived: Option<Duration>) -> Duration {
        if lived.is_some() {
            // Another one may do better: this one comes last.
            let others = self.urls.iter().filter(|other| *other != url);
            self.left = shuffled(others.cloned().collect());
        }
        if lived.is_some_and(|lived| lived > BOUND.1) {
            (self.bound, self.attempts) = (BOUND.0, 0);
        }
        let random = sealed::random::<4>().map_or(u32::MAX, u32::from_le_bytes);
        let pause = self.bound.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.attempts += 1;
        if self.attempts.is_multiple_of(self.urls.len()) {
            self.bound = (self.bound * 2).min(BOUND.1);
        }
        pause
    }
}

fn shuffled(mut urls: Vec<String>) -> Vec<String> {
    for last in (1..urls.len()).rev() {
        let random = sealed::random::<4>().map_or(0, u32::from_le_bytes);
        urls.swap(last, random as usize % (last + 1));
    }
    urls
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn urls(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("http://cp{n}")).collect()
    }

    #[test]
    fn every_round_tries_every_address_in_some_order() {
        let mut orders = BTreeSet::new();
        let mut tries = Reconnect::new(urls(3));
        for _ in 0..100 {
            let round: Vec<_> = (0..3).map(|_| tries.next().unwrap()).collect();
            assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 3);
            orders.insert(round);
        }
        assert_eq!(orders.len(), 6, "all orders come up");
        assert_eq!(Reconnect::new(Vec::new()).next(), None);
    }

    #[test]
    fn pauses_are_anything_up_to_a_bound_that_doubles_to_15_seconds_and_falls_back() {
        let mut below = 0;
        for _ in 0..50 {
            let mut tries = Reconnect::new(urls(2));
            let mut bound = BOUND.0;
            for number in 0..24 {
                let url = tries.next().unwrap();
                // Streams that end soon are no better than none.
                let lived = (number % 3 == 0).then_some(Duration::from_secs(1));
                let pause = tries.pause(&url, lived);
                assert!(pause <= bound, "{pause:?} of {bound:?}");
                below += usize::from(pause < bound / 2);
                if number % 2 == 1 {
                    bound = (bound * 2).min(BOUND.1);
                }
            }
            assert_eq!(tries.bound, BOUND.1);
            assert!(tries.pause("http://cp0", Some(Duration::from_secs(60))) <= BOUND.0);
        }
        assert!(
            (400..800).contains(&below),
            "the jitter is full: {below} of 1200"
        );
    }

    #[test]
    fn after_a_stream_has_ended_the_other_addresses_come_first() {
        for _ in 0..50 {
            let mut tries = Reconnect::new(urls(2));
            let first = tries.next().unwrap();
            tries.pause(&first, Some(Duration::ZERO));
            assert_ne!(tries.next().unwrap(), first);
            assert!(tries.next().is_some());
        }
    }
}
