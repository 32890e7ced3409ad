//! Log lines for who follows them: what goes to stderr, on its way to the control plane.
//!
//! [`Tap`] sits beside the layer that writes to stderr, under the same filter, and so sees
//! nothing that is not logged. While nobody follows it costs one atomic load per line. It
//! never waits: what does not fit into a follower's buffer is counted and left out.

use std::{
    collections::VecDeque,
    fmt::{self, Write},
    mem,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use fleet_proto::v1::{LogLine, LogLines};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Lines that wait for a follower, and their bytes.
const LINES: usize = 1_000;
const BYTES: usize = 256 << 10;
/// Longest text of a line, in bytes.
const LONGEST: usize = 4 << 10;
/// What carries the lines away has lines of its own: following these would never end.
const CARRIERS: [&str; 5] = ["h2", "hyper", "tonic", "tower", "rustls"];

/// The most that any follower wants; 0: there is none.
static WANTED: AtomicU8 = AtomicU8::new(0);
static FOLLOWERS: RwLock<Vec<Arc<Buffer>>> = RwLock::new(Vec::new());

/// The layer for the program's subscriber.
pub struct Tap;

impl<S: Subscriber> Layer<S> for Tap {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let severity = severity(*event.metadata().level());
        if severity <= WANTED.load(Relaxed) {
            offer(severity, event);
        }
    }
}

/// How much of the log: each level includes those before it. 0 is nothing.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        // No control plane asks for these.
        Level::TRACE => u8::MAX,
    }
}

/// A level as the contract writes it.
#[must_use]
pub fn level(name: &str) -> Option<Level> {
    match name {
        "error" => Some(Level::ERROR),
        "warn" => Some(Level::WARN),
        "info" => Some(Level::INFO),
        "debug" => Some(Level::DEBUG),
        _ => None,
    }
}

fn offer(severity: u8, event: &Event<'_>) {
    let target = event.metadata().target();
    let of_carrier = |crate_name: &str| target.split("::").next() == Some(crate_name);
    if CARRIERS.into_iter().any(of_carrier) {
        return;
    }
    let mut text = Text::default();
    event.record(&mut text);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let line = LogLine {
        at_ms: since.map_or(0, |since| since.as_millis() as u64),
        level: event.metadata().level().as_str().to_ascii_lowercase(),
        target: target.to_owned(),
        text: text.whole(),
    };
    for follower in FOLLOWERS.read().iter() {
        if severity <= follower.severity {
            follower.push(line.clone());
        }
    }
}

/// Message, then fields, as on stderr.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn whole(mut self) -> String {
        self.message.push_str(&self.fields);
        let end = self.message.floor_char_boundary(LONGEST);
        if end < self.message.len() {
            self.message.truncate(end);
            self.message.push('…');
        }
        self.message
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

struct Buffer {
    severity: u8,
    kept: Mutex<Kept>,
    arrived: Notify,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    bytes: usize,
    dropped: u64,
}

impl Buffer {
    fn push(&self, line: LogLine) {
        let mut kept = self.kept.lock();
        if kept.lines.len() < LINES && kept.bytes < BYTES {
            kept.bytes += line.text.len();
            kept.lines.push_back(line);
        } else {
            kept.dropped += 1;
        }
        drop(kept);
        self.arrived.notify_one();
    }
}

/// Follows the log of this process from its creation until it is dropped.
pub struct Follower(Arc<Buffer>);

impl Follower {
    /// Lines of this level and those before it.
    #[must_use]
    pub fn new(level: Level) -> Self {
        let buffer = Arc::new(Buffer {
            severity: severity(level),
            kept: Mutex::default(),
            arrived: Notify::new(),
        });
        change(|followers| followers.push(buffer.clone()));
        Self(buffer)
    }

    /// Resolves when there are lines.
    pub async fn arrived(&self) {
        loop {
            if !self.0.kept.lock().lines.is_empty() {
                return;
            }
            self.0.arrived.notified().await;
        }
    }

    /// The lines that have come, and how many have not found room.
    #[must_use]
    pub fn take(&self) -> LogLines {
        let kept = mem::take(&mut *self.0.kept.lock());
        LogLines {
            lines: kept.lines.into(),
            dropped: kept.dropped,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        change(|followers| followers.retain(|other| !Arc::ptr_eq(other, &self.0)));
    }
}

fn change(how: impl FnOnce(&mut Vec<Arc<Buffer>>)) {
    let mut followers = FOLLOWERS.write();
    how(&mut followers);
    let wanted = followers.iter().map(|f| f.severity).max();
    WANTED.store(wanted.unwrap_or(0), Relaxed);
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{EnvFilter, layer::SubscriberExt};

    use super::*;

    /// Of this test only: others of this process log as well.
    fn texts(lines: &LogLines, target: &str) -> Vec<String> {
        let own = lines.lines.iter().filter(|line| line.target == target);
        own.map(|line| format!("{} {}", line.level, line.text))
            .collect()
    }

    fn logging(filter: &str, log: impl FnOnce()) {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_writer(std::io::sink)
            .finish()
            .with(Tap);
        tracing::subscriber::with_default(subscriber, log);
    }

    #[test]
    fn a_follower_gets_the_lines_that_are_logged_up_to_its_level() {
        let (all, few) = (Follower::new(Level::DEBUG), Follower::new(Level::WARN));
        logging("info", || {
            tracing::warn!(target: "own", path = "http.url", n = 7, "does not {}", "work");
            tracing::info!(target: "own", "news");
            tracing::debug!(target: "own", "the filter leaves this out");
            tracing::error!(target: "h2::codec", "of what carries the lines");
        });
        let lines = all.take();
        let warning = "warn does not work path=\"http.url\" n=7";
        assert_eq!(texts(&lines, "own"), [warning, "info news"]);
        assert!(texts(&lines, "h2::codec").is_empty());
        assert_eq!(texts(&few.take(), "own"), [warning]);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_left_out() {
        let follower = Follower::new(Level::INFO);
        logging("info", || {
            for n in 0..LINES + 10 {
                tracing::info!(target: "full", n, "line");
            }
        });
        let lines = follower.take();
        assert!(lines.lines.len() <= LINES && lines.dropped >= 10);
        logging("info", || {
            for _ in 0..100 {
                tracing::info!(target: "full", text = "x".repeat(1 << 20), "large");
            }
        });
        let lines = follower.take();
        let bytes: usize = lines.lines.iter().map(|line| line.text.len()).sum();
        assert!(bytes <= BYTES + 2 * LONGEST, "{bytes}");
        assert!(lines.dropped > 0);
    }

    #[tokio::test]
    async fn a_follower_is_woken() {
        let follower = Follower::new(Level::INFO);
        let lines = async {
            loop {
                follower.arrived().await;
                let lines = texts(&follower.take(), "woken");
                if !lines.is_empty() {
                    return lines;
                }
            }
        };
        let log = async { logging("info", || tracing::info!(target: "woken", "now")) };
        let (lines, ()) = tokio::join!(lines, log);
        assert_eq!(lines, ["info now"]);
    }
}
