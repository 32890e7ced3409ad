//! How a node stands towards its source of configuration: for probes and metrics.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

/// How a node stands towards its source of configuration.
#[derive(Debug, Default)]
pub struct Status {
    from_disk: AtomicBool,
    /// `None`: nothing is to be kept on disk.
    saved: Mutex<Option<bool>>,
    missing: Mutex<Missing>,
    /// The address of the control plane whose stream is open.
    connected: watch::Sender<Option<String>>,
}

/// What is wrong, as far as it is known; empty: nothing.
#[derive(Debug, Default)]
struct Missing {
    disk: String,
    control_plane: String,
    refused: String,
    sets: String,
}

impl Status {
    /// Whether what is served was read from disk, and no control plane has been
    /// reached since the start.
    #[must_use]
    pub fn is_from_disk(&self) -> bool {
        self.from_disk.load(Ordering::Relaxed)
    }

    /// Whether what is served is on disk; `None` where nothing is kept.
    #[must_use]
    pub fn is_saved(&self) -> Option<bool> {
        *self.saved.lock()
    }

    /// Why nothing is served yet, without addresses, paths and contents: for
    /// everybody who can ask.
    #[must_use]
    pub fn why_not_ready(&self) -> String {
        let missing = self.missing.lock();
        let control_plane = if !missing.refused.is_empty() {
            "what the control plane sent was refused"
        } else if !missing.control_plane.is_empty() {
            "no control plane can be reached"
        } else {
            "nothing has come yet"
        };
        let disk = match *self.saved.lock() {
            None => "nothing is kept on disk",
            Some(_) if missing.disk.is_empty() => "nothing is on disk yet",
            Some(_) => "what is on disk is damaged or does not fit this version",
        };
        format!("{control_plane}; {disk}")
    }

    /// What is known about control plane, refusals and files, in detail.
    #[must_use]
    pub fn details(&self) -> [(&'static str, String); 4] {
        let missing = self.missing.lock();
        [
            ("control_plane", missing.control_plane.clone()),
            ("refused", missing.refused.clone()),
            ("disk", missing.disk.clone()),
            ("sets", missing.sets.clone()),
        ]
    }

    pub(super) fn restored(&self, found: bool, stale: bool, problems: &[String]) {
        self.from_disk.store(found, Ordering::Relaxed);
        *self.saved.lock() = Some(found && !stale);
        self.missing.lock().disk = problems.join("; ");
    }

    /// What is wrong with secrets, session keys or revocations; empty: nothing.
    pub(super) fn sets(&self, problem: String) {
        self.missing.lock().sets = problem;
    }

    pub(super) fn saved(&self, is_saved: bool) {
        *self.saved.lock() = Some(is_saved);
    }

    /// The address of the control plane whose stream is open, now and at every change.
    pub(super) fn connected(&self) -> watch::Receiver<Option<String>> {
        self.connected.subscribe()
    }

    /// The stream has ended.
    pub(super) fn disconnected(&self) {
        self.connected.send_replace(None);
    }

    /// A control plane has said something. Returns whether it is the first.
    pub(super) fn reached(&self, url: &str) -> bool {
        self.missing.lock().control_plane.clear();
        self.connected.send_if_modified(|connected| {
            let news = connected.as_deref() != Some(url);
            if news {
                *connected = Some(url.to_owned());
            }
            news
        });
        self.from_disk.swap(false, Ordering::Relaxed)
    }

    pub(super) fn not_reached(&self, reason: String) {
        self.missing.lock().control_plane = reason;
    }

    /// A set was refused; empty: the one after it was not.
    pub(super) fn refused(&self, reason: String) {
        self.missing.lock().refused = reason;
    }
}
