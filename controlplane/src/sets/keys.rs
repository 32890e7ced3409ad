//! Session keys: when a new one is made, when it begins to seal, and when it goes.
//!
//! Every key opens; the newest whose time has come seals. A new key seals a while
//! after it was made, so that every node has it before any node uses it, and a key
//! stays for longer than a session lives after it has sealed for the last time:
//! nobody is logged out.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use zeroize::Zeroizing;

use super::{Current, SessionKey, Set, Sets, SetsError, in_vault};
use crate::{
    clock::now_ms,
    store::{
        AuditRow,
        sets::{SessionKeyRow, SetChanges},
    },
};

/// A key is replaced after so long.
const AGE: Duration = Duration::from_hours(24);
/// A new key begins to seal after so long.
const SEALS_AFTER: Duration = Duration::from_mins(5);
/// A key stays so long after it has sealed for the last time: a session lives for
/// 24 hours.
const KEPT: Duration = Duration::from_hours(25);
/// Between two looks at the clock.
const LOOK: Duration = Duration::from_secs(60);
/// Keys there may be: somebody rotates in a loop.
const MOST: usize = 64;

/// What the vault is told of a key.
pub(super) fn about(id: &str) -> [&str; 2] {
    ["session key", id]
}

/// Whether the ring needs a new key.
fn is_due(keys: &[SessionKey], now: u64) -> bool {
    let newest = keys.iter().map(|key| key.created_ms).max();
    newest.is_none_or(|made| made.saturating_add(millis(AGE)) <= now)
}

/// Whether this key, by its place in the ring, opens nothing any more that is still
/// good.
fn is_over(keys: &[SessionKey], place: usize, now: u64) -> bool {
    let newer = place.checked_sub(1).map(|newer| keys[newer].seals_from_ms);
    newer.is_some_and(|from| from.saturating_add(millis(KEPT)) <= now)
}

const fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

impl Sets {
    /// Makes a new key. `end_sessions`: it seals at once, and all others go. Returns
    /// the version of the ring and how many keys it has.
    pub(crate) async fn rotate(
        &self,
        end_sessions: bool,
        audit: AuditRow,
        now: u64,
    ) -> Result<(u64, usize), SetsError> {
        let keep = |_: &[SessionKey], _| !end_sessions;
        let made = self.turn(Some(audit), keep, now).await?;
        let ring = &made.session_keys;
        Ok((ring.version.version, ring.entries.len()))
    }

    /// Does what the clock says: a new key each day, old keys and revocations that
    /// are over go. Of several control planes one does it.
    pub(crate) async fn tend(&self, now: u64) -> Result<(), SetsError> {
        let is_over_now = |row: &super::RevocationRow| row.until_ms != 0 && row.until_ms <= now;
        let current = self.current();
        if current.revocations.entries.iter().any(is_over_now) {
            self.unrevoke(is_over_now, None).await?;
        }
        let keys = &current.session_keys.entries;
        let over = (0..keys.len()).any(|place| is_over(keys, place, now));
        if is_due(keys, now) || over {
            let keep = |keys: &[SessionKey], place| !is_over(keys, place, now);
            self.turn(None, keep, now).await?;
        }
        Ok(())
    }

    /// Tends the sets until the control plane stops.
    pub(crate) async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = shutdown.wait_for(|down| *down) => return,
            }
            let tended = self.tend(now_ms()).await;
            match &tended {
                Err(error) if !failing => {
                    tracing::error!(%error, "session keys and revocations are not renewed; trying again");
                }
                _ => {}
            }
            failing = tended.is_err();
        }
    }

    /// One change of the ring. `wanted`: somebody asks for a new key; `None`: there is
    /// one if it is time, and nobody's deed to log.
    async fn turn(
        &self,
        wanted: Option<AuditRow>,
        keep: impl Fn(&[SessionKey], usize) -> bool,
        now: u64,
    ) -> Result<Current, SetsError> {
        let mut write = self.store.write().await?;
        let mut current = Current::clone(&*self.base(write.as_mut()).await?);
        let before = &current.session_keys.entries;
        let makes = wanted.is_some() || is_due(before, now);
        let mut ring = Vec::with_capacity(before.len() + 1);
        let mut changes = SetChanges::default();
        for (place, key) in before.iter().enumerate() {
            if keep(before, place) {
                ring.push(key.clone());
            } else {
                changes.drop_session_keys.push(key.id.clone());
            }
        }
        if makes {
            if ring.len() >= MOST {
                return Err(SetsError::Keys(ring.len()));
            }
            // The first key of all, and one that ends sessions, has nothing to wait for.
            let at_once = ring.is_empty();
            let seals_from_ms = if at_once {
                now
            } else {
                now + millis(SEALS_AFTER)
            };
            let (key, row) = self.new_key(now, seals_from_ms)?;
            ring.insert(0, key);
            changes.put_session_keys.push(row);
        }
        if !makes && changes.drop_session_keys.is_empty() {
            // Another control plane was faster.
            drop(write);
            self.publish(&current);
            return Ok(current);
        }
        current.session_keys = Set {
            version: current.session_keys.next_version()?,
            entries: Arc::new(ring),
        };
        changes.versions.push(current.session_keys.version.clone());
        let (made, dropped) = (makes, changes.drop_session_keys.len());
        if let Some(audit) = wanted {
            write.record(audit).await?;
        }
        write.change_sets(changes).await?;
        write.finish().await?;
        self.publish(&current);
        tracing::info!(
            new = made,
            dropped,
            keys = current.session_keys.entries.len(),
            "session keys changed"
        );
        Ok(current)
    }

    fn new_key(
        &self,
        now: u64,
        seals_from_ms: u64,
    ) -> Result<(SessionKey, SessionKeyRow), SetsError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut_slice()).map_err(|_| SetsError::Random)?;
        let id = uuid::Uuid::new_v4().to_string();
        let sealed = self.vault().seal(&about(&id), key.as_slice());
        let sealed = sealed.map_err(|error| in_vault("a session key".to_owned(), error))?;
        let row = SessionKeyRow {
            id: id.clone(),
            sealed,
            created_ms: now,
            seals_from_ms,
        };
        let key = SessionKey {
            id,
            key,
            created_ms: now,
            seals_from_ms,
        };
        Ok((key, row))
    }
}
