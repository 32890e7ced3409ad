//! Latencies, counted in buckets that are at most 1.6 % wide.

/// Buckets for each doubling.
const PARTS: u64 = 64;
/// Doublings of nanoseconds: up to 18 minutes.
const DOUBLINGS: usize = 34;

/// How often which latency was seen.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; PARTS as usize * (DOUBLINGS + 1)],
            total: 0,
        }
    }
}

impl Histogram {
    /// Counts a latency in nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        let last = self.counts.len() - 1;
        self.counts[place(nanos).min(last)] += 1;
        self.total += 1;
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// How many were counted.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The latency, in microseconds, that this share (0 to 1) did not exceed; 0 of nothing.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(place) / 1e3;
            }
        }
        0.0
    }
}

/// Exact below [`PARTS`], then [`PARTS`] buckets for each doubling.
fn place(nanos: u64) -> usize {
    if nanos < PARTS {
        return nanos as usize;
    }
    let shift = 63 - nanos.leading_zeros() - PARTS.trailing_zeros();
    let doubling = u64::from(shift) + 1;
    (doubling * PARTS + (nanos >> shift) - PARTS) as usize
}

fn middle(place: usize) -> f64 {
    let (doubling, part) = (place as u64 / PARTS, place as u64 % PARTS);
    match doubling {
        0 => part as f64,
        _ => ((PARTS + part) as f64 + 0.5) * (1_u64 << (doubling - 1)) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_two_percent() {
        let mut seen = Histogram::default();
        for micros in 1..=100_000_u64 {
            seen.record(micros * 1000);
        }
        for share in [0.01, 0.5, 0.99, 1.0] {
            let (found, exact) = (seen.quantile(share), share * 1e5);
            assert!((found / exact - 1.0).abs() < 0.02, "{share}: {found}");
        }
    }

    #[test]
    fn buckets_follow_one_another_without_gaps() {
        let places: Vec<_> = (0..100_000).map(place).collect();
        assert!(places.windows(2).all(|w| w[1] == w[0] || w[1] == w[0] + 1));
        assert!(place(u64::MAX) > place(1 << 40));
    }
}
