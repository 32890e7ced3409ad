//! [`Duration`]: lengths of time as people write them (`500ms`, `30s`, `1m30s`).
//!
//! On the wire it is the message `fleet.v1.Duration { uint64 millis = 1; }`; in
//! files and JSON it is a string. pbjson's own type refuses `500ms` and `5m`.

use std::{fmt, str::FromStr};

use prost::{
    DecodeError,
    bytes::{Buf, BufMut},
    encoding::{self, DecodeContext, WireType},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    millis: u64,
}

/// Why a text is not a [`Duration`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is not a duration: write a whole number and a unit, such as 500ms, 30s, 5m, 24h or 1m30s"
)]
pub struct BadDuration {
    text: String,
}

/// Units from the longest to the shortest, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Duration {
    /// A length of `millis` milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// A length of `secs` seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self {
            millis: secs * 1_000,
        }
    }

    /// Its length in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.millis
    }
}

impl From<Duration> for std::time::Duration {
    fn from(d: Duration) -> Self {
        Self::from_millis(d.millis)
    }
}

impl FromStr for Duration {
    type Err = BadDuration;

    fn from_str(text: &str) -> Result<Self, BadDuration> {
        let bad = || BadDuration {
            text: text.to_owned(),
        };
        let mut rest = text;
        let mut millis = 0_u64;
        // Each unit at most once and from the longest to the shortest.
        let mut next_unit = 0;
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = &rest[..letters];
            rest = &rest[letters..];
            let at = UNITS.iter().position(|(u, _)| *u == unit).ok_or_else(bad)?;
            if at < next_unit {
                return Err(bad());
            }
            next_unit = at + 1;
            millis = number
                .checked_mul(UNITS[at].1)
                .and_then(|n| millis.checked_add(n))
                .ok_or_else(bad)?;
        }
        Ok(Self { millis })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.millis;
        // Days are read but never written: `24h` stays `24h`.
        for (unit, length) in &UNITS[1..] {
            if rest >= *length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl prost::Message for Duration {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.millis != 0 {
            encoding::uint64::encode(1, &self.millis, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::uint64::merge(wire_type, &mut self.millis, buf, ctx),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        if self.millis == 0 {
            0
        } else {
            encoding::uint64::encoded_len(1, &self.millis)
        }
    }

    fn clear(&mut self) {
        self.millis = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_form_is_read_back() {
        for text in ["500ms", "30s", "5m", "24h", "1m30s", "2h3m4s5ms", "0s"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
        assert_eq!("1d".parse::<Duration>().unwrap().to_string(), "24h");
        assert_eq!("90s".parse::<Duration>().unwrap().to_string(), "1m30s");
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            "1s1m",
            "1s1s",
            "1 s",
            "1y",
            "99999999999999999999s",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text:?} was accepted");
        }
    }
}
