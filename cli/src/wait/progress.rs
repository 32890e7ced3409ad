//! How far a wait is: one line that is written over on a terminal, else plain
//! lines, few of them.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use tokio::time::Instant;

use super::Verdict;
use crate::output;

/// Where the lines are not written over, one comes no sooner than this after the last.
const PAUSE: Duration = Duration::from_secs(5);
/// So many names fit on a line.
const NAMES: usize = 3;

/// Tells how far a wait is.
pub(super) struct Progress {
    place: Place,
    last: String,
}

/// Where it is told.
enum Place {
    Nowhere,
    /// On one line of a terminal.
    Terminal,
    /// In a log; when the last line came.
    Lines(Option<Instant>),
}

impl Progress {
    /// Tells on stderr, if at all.
    pub(super) fn new(wanted: bool) -> Self {
        let dumb = || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let place = match wanted {
            false => Place::Nowhere,
            true if io::stderr().is_terminal() && !dumb() => Place::Terminal,
            true => Place::Lines(None),
        };
        Self {
            place,
            last: String::new(),
        }
    }

    /// Tells how it stands, if that is news.
    pub(super) fn show(&mut self, verdict: &Verdict, revision: u64) {
        let text = line(verdict, revision);
        if text == self.last {
            return;
        }
        match &mut self.place {
            Place::Nowhere => {}
            Place::Terminal => {
                // To the start of the line, and what was on it away. There is
                // nowhere to report that stderr is closed.
                let mut stderr = io::stderr().lock();
                let _ = write!(stderr, "\r\u{1b}[K{}", output::one_line(&text));
                let _ = stderr.flush();
            }
            Place::Lines(before) => {
                if before.is_some_and(|before| before.elapsed() < PAUSE) {
                    return;
                }
                *before = Some(Instant::now());
                output::note(&output::one_line(&text));
            }
        }
        self.last = text;
    }

    /// Leaves the terminal as it was.
    pub(super) fn end(&mut self) {
        if matches!(self.place, Place::Terminal) && !self.last.is_empty() {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\u{1b}[K");
            let _ = stderr.flush();
        }
    }
}

fn line(verdict: &Verdict, revision: u64) -> String {
    if !verdict.known {
        return format!("waiting for revision {revision}");
    }
    let mut names = verdict.pending[..verdict.pending.len().min(NAMES)].join(", ");
    if verdict.pending.len() > NAMES {
        names.push_str(&format!(" and {} more", verdict.pending.len() - NAMES));
    }
    format!(
        "revision {revision}: {} of {} data planes, waiting for {names}",
        verdict.served.len(),
        verdict.connected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_few_who_are_late() {
        let mut verdict = Verdict {
            served: vec!["a".to_owned()],
            pending: ["b", "c", "d"].map(str::to_owned).into(),
            connected: 4,
            known: true,
            ..Verdict::default()
        };
        assert_eq!(
            line(&verdict, 7),
            "revision 7: 1 of 4 data planes, waiting for b, c, d"
        );
        verdict.pending.push("e".to_owned());
        assert!(line(&verdict, 7).ends_with("b, c, d and 1 more"));
        verdict.known = false;
        assert_eq!(line(&verdict, 7), "waiting for revision 7");
    }
}
