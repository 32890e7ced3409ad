//! What is done to the text of messages on a connection, and how much of a server's mistakes is
//! logged.

use std::{ops::Range, time::Instant};

use bytes::Bytes;
use memchr::memchr2_iter;

/// `source` with the ranges of `edits` replaced.
pub(super) fn splice(source: &[u8], edits: &mut [(Range<usize>, &[u8])]) -> Vec<u8> {
    edits.sort_unstable_by_key(|(range, _)| range.start);
    let inserted: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(source.len() + inserted);
    let mut done = 0;
    for (range, text) in edits.iter() {
        out.extend_from_slice(&source[done..range.start]);
        out.extend_from_slice(text);
        done = range.end;
    }
    out.extend_from_slice(&source[done..]);
    out
}

/// Makes one line of a message, without its end. A line break in JSON can only be white space
/// between tokens, so a space means the same. Carriage returns too: some readers take them for
/// line breaks.
pub(super) fn line(mut message: Vec<u8>) -> Bytes {
    let breaks: Vec<usize> = memchr2_iter(b'\n', b'\r', &message).collect();
    for at in breaks {
        message[at] = b' ';
    }
    message.into()
}

/// The start of what a server wrote, for the log.
pub(super) fn excerpt(text: &[u8]) -> String {
    const SHOWN: usize = 200;
    let dots = if text.len() > SHOWN { "…" } else { "" };
    format!("{}{dots}", text[..SHOWN.min(text.len())].escape_ascii())
}

/// Bounds the rate of log lines that a server can cause.
pub(in crate::upstream) struct Throttle {
    tokens: f64,
    at: Instant,
    suppressed: u64,
}

impl Throttle {
    const BURST: f64 = 50.0;
    const PER_SECOND: f64 = 20.0;

    pub(in crate::upstream) fn new() -> Self {
        Self {
            tokens: Self::BURST,
            at: Instant::now(),
            suppressed: 0,
        }
    }

    /// Whether a line may be logged now; if so, how many have been suppressed since the last.
    pub(in crate::upstream) fn admit(&mut self) -> Option<u64> {
        let earned = self.at.elapsed().as_secs_f64() * Self::PER_SECOND;
        self.at = Instant::now();
        self.tokens = (self.tokens + earned).min(Self::BURST);
        if self.tokens < 1.0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splice_takes_edits_in_any_order() {
        let mut edits: [(Range<usize>, &[u8]); 2] = [(4..5, b"long"), (0..2, b"")];
        assert_eq!(splice(b"abcdefg", &mut edits), b"cdlongfg");
    }

    #[test]
    fn a_message_becomes_one_line() {
        assert_eq!(line(b"{\r\n}".to_vec()), "{  }");
    }

    #[test]
    fn the_throttle_counts_what_it_holds_back() {
        let mut throttle = Throttle::new();
        let admitted = (0..500).filter(|_| throttle.admit().is_some()).count();
        assert!((50..100).contains(&admitted), "{admitted}");
        assert_eq!(throttle.suppressed, 500 - admitted as u64);
    }
}
