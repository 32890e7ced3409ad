//! [`Known`]: what the store says of nodes and certificates, in memory.

use std::collections::{HashMap, HashSet};

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    clock::now_ms,
    store::{Store, StoreError, identity::CertificateRow},
};

/// Nodes that have joined, and the certificates that count.
pub(super) struct Known {
    rows: RwLock<Rows>,
    /// One reads the store at a time.
    turn: tokio::sync::Mutex<()>,
    /// Counts changes.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Rows {
    version: u64,
    joined: HashSet<String>,
    /// By serial number.
    certificates: HashMap<String, CertificateRow>,
    /// By node id: until when its newest good one is.
    expires_ms: HashMap<String, u64>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            rows: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Known {
    /// Takes over what is new in the store.
    pub(super) async fn refresh(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let version = self.rows.read().version;
        let news = store.identities_since(version, now_ms()).await?;
        if news.version == version {
            return Ok(());
        }
        if news.version < version {
            // The database was set back: all of it is read again, and what was known
            // counts until then.
            let all = store.identities_since(0, now_ms()).await?;
            let mut rows = Rows::default();
            rows.take(all);
            *self.rows.write() = rows;
        } else {
            self.rows.write().take(news);
        }
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Hears of every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn certificate(&self, serial: &str) -> Option<CertificateRow> {
        self.rows.read().certificates.get(serial).cloned()
    }

    pub(super) fn has_joined(&self, node_id: &str) -> bool {
        self.rows.read().joined.contains(node_id)
    }

    pub(super) fn expires_ms(&self, node_id: &str) -> Option<u64> {
        self.rows.read().expires_ms.get(node_id).copied()
    }

    /// Drops certificates that have expired and are no reason to refuse anybody.
    pub(super) fn forget(&self, at_ms: u64) {
        let mut rows = self.rows.write();
        rows.certificates.retain(|_, row| row.expires_ms > at_ms);
        rows.expires_ms.retain(|_, expires_ms| *expires_ms > at_ms);
    }
}

impl Rows {
    fn take(&mut self, news: crate::store::identity::IdentityNews) {
        self.version = news.version;
        self.joined.extend(news.joined);
        let mut nodes = HashSet::new();
        for row in news.certificates {
            nodes.insert(row.node_id.clone());
            self.certificates.insert(row.serial.clone(), row);
        }
        if nodes.is_empty() {
            return;
        }
        self.expires_ms
            .retain(|node_id, _| !nodes.contains(node_id));
        for row in self.certificates.values() {
            if row.revoked_ms.is_none() && nodes.contains(&row.node_id) {
                let end = self.expires_ms.entry(row.node_id.clone()).or_default();
                *end = row.expires_ms.max(*end);
            }
        }
    }
}
