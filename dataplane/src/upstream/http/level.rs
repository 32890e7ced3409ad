//! Which log messages a legacy backend is asked for: `logging/setLevel` in its upstream sessions.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::timeout;

use super::Http;
use crate::{
    call::{Call, WorkerId},
    session::Session,
    upstream::{
        message::logs::{Logs, Severity},
        slot::Live,
    },
};

/// Longest time that a call waits for a level to be set: logs are no reason to wait for long.
pub(super) const LEVEL_TIMEOUT: Duration = Duration::from_secs(1);

impl Http {
    /// Has the backend say as much as the client of a call of the modern era asks for. In a
    /// session that many share it says as much as any of them has asked for, and the rest is
    /// kept from the others.
    pub(super) async fn logs_for(&self, call: &Call, live: &Live) {
        let Some(wanted) = Logs::of(call).level() else {
            return;
        };
        let is_own = call.session.as_deref().is_some_and(Session::is_leased);
        let setting = async {
            let mut level = live.level.lock().await;
            if level.is_none_or(|has| has != wanted && (is_own || has > wanted)) {
                *level = Some(wanted);
                self.set_level(call.worker, live, wanted).await;
            }
        };
        let _ = timeout(LEVEL_TIMEOUT, setting).await;
    }

    /// Passes on the level that a client has set last, one at a time.
    pub(crate) async fn set_newest_level(&self, worker: WorkerId, live: &Live, session: &Session) {
        let mut now = live.level.lock().await;
        live.level_waits.store(false, Ordering::Release);
        if let Some(level) = session.log_level() {
            *now = Some(level);
            self.set_level(worker, live, level).await;
        }
    }

    /// Passes a client's log level on; a backend that has no logging says so,
    /// and that is no error.
    pub(crate) async fn set_level(&self, worker: WorkerId, live: &Live, level: Severity) {
        let params = format!(r#"{{"level":"{}"}}"#, level.name());
        self.tell(worker, live, "logging/setLevel", &params).await;
    }
}
