//! Log messages of backends: how severe they are, and who is to see them.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::{
    call::{Call, Era},
    envelope::{self, Message, Span},
};

/// Names of severities, the least first.
pub const SEVERITIES: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// How severe a log message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Severity(u8);

impl Severity {
    /// What is of use to who has asked for nothing in particular.
    pub const INFO: Self = Self(1);

    /// The severity that a JSON text in `src` names.
    #[must_use]
    pub fn parse(src: &[u8], span: Span) -> Option<Self> {
        let name = envelope::string_value(src, span)?;
        let place = SEVERITIES.iter().position(|known| *known == name)?;
        u8::try_from(place).ok().map(Self)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        SEVERITIES[usize::from(self.0)]
    }
}

/// The least severity that somebody wants to hear of, if anybody has said so.
#[derive(Debug)]
pub struct Level(AtomicU8);

const UNSAID: u8 = u8::MAX;

impl Default for Level {
    fn default() -> Self {
        Self(AtomicU8::new(UNSAID))
    }
}

impl Level {
    /// The level.
    #[must_use]
    pub fn get(&self) -> Option<Severity> {
        match self.0.load(Ordering::Relaxed) {
            UNSAID => None,
            place => Some(Severity(place)),
        }
    }

    /// Somebody says another one.
    pub fn set(&self, level: Severity) {
        self.0.store(level.0, Ordering::Relaxed);
    }

    /// One more wants to hear of what is this severe. Whether that is more than before.
    pub fn includes(&self, level: Severity) -> bool {
        self.0.load(Ordering::Relaxed) > level.0
            && self.0.fetch_min(level.0, Ordering::Relaxed) > level.0
    }
}

/// Which log messages the client of a call is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// It has asked for none.
    None,
    /// What is as severe.
    AtLeast(Severity),
    /// What the backend likes to say.
    Any,
}

impl Logs {
    /// Those of this call: in the modern era it says so itself, in the legacy era its session.
    #[must_use]
    pub fn of(call: &Call) -> Self {
        match call.version.era() {
            Era::Modern => {
                let level = call.message.log_level;
                let level = level.and_then(|level| Severity::parse(&call.body, level));
                level.map_or(Self::None, Self::AtLeast)
            }
            Era::Legacy => {
                let level = call.session.as_ref().and_then(|s| s.log_level());
                level.map_or(Self::Any, Self::AtLeast)
            }
        }
    }

    /// The level that its backend is to have.
    #[must_use]
    pub const fn level(self) -> Option<Severity> {
        match self {
            Self::AtLeast(level) => Some(level),
            Self::None | Self::Any => None,
        }
    }
}

/// Whether a client is to see a log message of a call: in the modern era only one that
/// asked for it. A backend of the legacy era says more where another one wants more.
#[must_use]
pub fn wants_log(call: &Call, from: Era, data: &[u8], message: &Message) -> bool {
    if call.version.era() == Era::Legacy {
        return true;
    }
    match (call.message.log_level, from) {
        (None, _) => false,
        (Some(_), Era::Modern) => true,
        (Some(least), Era::Legacy) => {
            let least = Severity::parse(&call.body, least);
            severity(data, message) >= least
        }
    }
}

/// That of a log message.
#[must_use]
pub fn severity(data: &[u8], message: &Message) -> Option<Severity> {
    message.level.and_then(|level| Severity::parse(data, level))
}

/// Whether a server declares, in its `InitializeResult`, that it has a level to be set.
#[must_use]
pub fn are_declared(initialized: &[u8]) -> bool {
    let whole = Span::new(0, initialized.len());
    let capabilities = envelope::member(initialized, whole, "capabilities");
    let logging = capabilities.and_then(|all| envelope::member(initialized, all, "logging"));
    logging.is_some_and(|logging| logging.of(initialized) != b"null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_only_goes_down_for_one_more() {
        let parse = |name: &str| Severity::parse(name.as_bytes(), Span::new(0, name.len()));
        let (debug, error) = (parse(r#""debug""#).unwrap(), parse(r#""error""#).unwrap());
        assert_eq!(parse(r#""loud""#), None);
        let level = Level::default();
        assert_eq!(level.get(), None);
        assert!(level.includes(error) && !level.includes(error));
        assert!(level.includes(debug) && !level.includes(error));
        assert_eq!(level.get().map(Severity::name), Some("debug"));
    }

    #[test]
    fn logging_is_declared_by_an_object() {
        let declares = |capabilities: &str| {
            are_declared(format!(r#"{{"capabilities":{capabilities}}}"#).as_bytes())
        };
        assert!(declares(r#"{"tools":{},"logging":{}}"#));
        assert!(!declares(r#"{"logging":null}"#) && !declares("{}"));
        assert!(!are_declared(b"{}"));
    }
}
