//! [`Epoch`]: counts changes of what is served, and tells who waits for one.

use std::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

/// Grows with every change of any catalogue. Read as a plain number by those who only
/// want to know whether what they have made is still right.
#[derive(Debug, Default)]
pub struct Epoch {
    now: AtomicU64,
    told: watch::Sender<()>,
}

impl Epoch {
    /// Something has changed.
    pub fn turn(&self) {
        self.now.fetch_add(1, Ordering::Release);
        self.told.send_replace(());
    }

    /// Tells of every change from now on, of several at once where they come together.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.told.subscribe()
    }
}

impl Deref for Epoch {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        &self.now
    }
}
