//! What is kept and pushed beside the revisions: values of Secrets, session keys,
//! revocations. No revision holds them and no rollback touches them.
//!
//! On the config way beside `publish`: [`Sets`] holds them opened, in memory, and the
//! streams look here before they send a revision (`sync/sets.rs`). In the database
//! they are sealed ([`Vault`]). `sets/keys` has the rules of session keys, `sets/view`
//! says what of all this a node is to have.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use fleet_proto::{
    secret::{Name, Value},
    v1::{SetKind, SetVersion},
};
use zeroize::Zeroizing;

use crate::{
    clock::now_ms,
    store::{
        AuditRow, Store, StoreError, Write,
        sets::{RevocationRow, SessionKeyRow, SetChanges, SetRows, ValueRow},
    },
    vault::{Vault, VaultError},
};

pub(crate) mod keys;
#[cfg(test)]
mod tests;
pub(crate) mod view;

pub(crate) use view::Shown;

/// One of the sets at a version.
#[derive(Clone, Debug)]
pub(crate) struct Set<T> {
    pub(crate) version: SetVersion,
    pub(crate) entries: Arc<T>,
}

impl<T: Default> Set<T> {
    /// Nothing was ever in it.
    fn none(kind: SetKind) -> Self {
        Self {
            version: SetVersion {
                set: kind.into(),
                ..SetVersion::default()
            },
            entries: Arc::default(),
        }
    }
}

impl<T> Set<T> {
    fn newer_of(&self, other: &Self) -> Self
    where
        T: Clone,
    {
        let newer = if other.version.version > self.version.version {
            other
        } else {
            self
        };
        Self {
            version: newer.version.clone(),
            entries: Arc::clone(&newer.entries),
        }
    }

    /// The version after this one.
    pub(crate) fn next_version(&self) -> Result<SetVersion, SetsError> {
        let mut tag = vec![0; 16];
        getrandom::fill(&mut tag).map_err(|_| SetsError::Random)?;
        Ok(SetVersion {
            set: self.version.set,
            version: self.version.version + 1,
            tag,
        })
    }
}

/// A session key.
#[derive(Clone)]
pub(crate) struct SessionKey {
    pub(crate) id: String,
    pub(crate) key: Zeroizing<[u8; 32]>,
    pub(crate) created_ms: u64,
    pub(crate) seals_from_ms: u64,
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session key {}", self.id)
    }
}

/// The sets, opened.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) secrets: Set<BTreeMap<Name, Arc<Value>>>,
    /// Newest first.
    pub(crate) session_keys: Set<Vec<SessionKey>>,
    /// Newest first.
    pub(crate) revocations: Set<Vec<RevocationRow>>,
}

impl Default for Current {
    fn default() -> Self {
        Self {
            secrets: Set::none(SetKind::Secrets),
            session_keys: Set::none(SetKind::SessionKeys),
            revocations: Set::none(SetKind::Revocations),
        }
    }
}

impl Current {
    fn versions(&self) -> [&SetVersion; 3] {
        [
            &self.secrets.version,
            &self.session_keys.version,
            &self.revocations.version,
        ]
    }

    /// Whether it is what the store has at these versions.
    fn is_at(&self, stored: &[SetVersion]) -> bool {
        self.versions().into_iter().all(|own| {
            let found = stored.iter().find(|version| version.set == own.set);
            found.map_or(own.version == 0, |found| found == own)
        })
    }
}

/// The sets could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored does not open, or nothing can be sealed.
    #[error("{what}: {error}")]
    Vault { what: String, error: VaultError },
    #[error("the system gives no random numbers")]
    Random,
    /// There are as many session keys as may be.
    #[error(
        "there are {0} session keys: old ones go by themselves, a day after they were replaced; try \
         again later, or end all sessions"
    )]
    Keys(usize),
}

/// Keeps the sets, and shows them.
pub(crate) struct Sets {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    shown: Arc<Shown>,
}

impl Sets {
    /// Loads the sets of a store, seals under the first store key what another one
    /// has sealed, and makes the first session key.
    pub(crate) async fn open(store: Arc<dyn Store>, vault: Arc<Vault>) -> Result<Self, SetsError> {
        let sets = Self {
            store,
            vault,
            shown: Arc::default(),
        };
        sets.renew().await?;
        let rows = sets.store.sets().await?;
        sets.shown.replace(Arc::new(sets.read(rows)?));
        sets.tend(now_ms()).await?;
        Ok(sets)
    }

    /// The sets now.
    pub(crate) fn current(&self) -> Arc<Current> {
        self.shown.current()
    }

    /// Where streams look.
    pub(crate) fn shown(&self) -> &Arc<Shown> {
        &self.shown
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The sets under the locked head.
    pub(crate) async fn base(&self, write: &mut dyn Write) -> Result<Arc<Current>, SetsError> {
        let current = self.current();
        if current.is_at(&write.set_versions().await?) {
            return Ok(current);
        }
        Ok(Arc::new(self.read(write.sets().await?)?))
    }

    /// Shows what was committed. Of each set the newest version stays, in whatever
    /// order writes come here.
    pub(crate) fn publish(&self, new: &Current) {
        self.shown.newest(new);
    }

    /// Takes over what other control planes have written.
    pub(crate) async fn follow(&self) -> Result<(), StoreError> {
        let before = self.current();
        if before.is_at(&self.store.set_versions().await?) {
            return Ok(());
        }
        match self.read(self.store.sets().await?) {
            Ok(new) => {
                self.shown.follow(&before, new);
                Ok(())
            }
            Err(SetsError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::Sealed(error.to_string())),
        }
    }

    /// Adds a revocation, or replaces the one of its token and project. Returns the
    /// version that holds it.
    pub(crate) async fn revoke(
        &self,
        row: RevocationRow,
        audit: AuditRow,
    ) -> Result<u64, SetsError> {
        let mut write = self.store.write().await?;
        let mut current = Current::clone(&*self.base(write.as_mut()).await?);
        let same = |old: &RevocationRow| old.project == row.project && old.bearer == row.bearer;
        let mut rows = Vec::clone(&current.revocations.entries);
        rows.retain(|old| !same(old));
        rows.insert(0, row.clone());
        current.revocations = Set {
            version: current.revocations.next_version()?,
            entries: Arc::new(rows),
        };
        let changes = SetChanges {
            versions: vec![current.revocations.version.clone()],
            put_revocations: vec![row],
            ..SetChanges::default()
        };
        write.record(audit).await?;
        write.change_sets(changes).await?;
        write.finish().await?;
        self.publish(&current);
        Ok(current.revocations.version.version)
    }

    /// Takes revocations of tokens back. Returns the version without them; `None`:
    /// none of them is there.
    pub(crate) async fn unrevoke(
        &self,
        is_meant: impl Fn(&RevocationRow) -> bool,
        audit: Option<AuditRow>,
    ) -> Result<Option<u64>, SetsError> {
        let mut write = self.store.write().await?;
        let mut current = Current::clone(&*self.base(write.as_mut()).await?);
        let (gone, kept): (Vec<_>, Vec<_>) = current
            .revocations
            .entries
            .iter()
            .cloned()
            .partition(is_meant);
        if gone.is_empty() {
            return Ok(None);
        }
        current.revocations = Set {
            version: current.revocations.next_version()?,
            entries: Arc::new(kept),
        };
        let changes = SetChanges {
            versions: vec![current.revocations.version.clone()],
            drop_revocations: gone
                .into_iter()
                .map(|row| (row.project, row.bearer))
                .collect(),
            ..SetChanges::default()
        };
        if let Some(audit) = audit {
            write.record(audit).await?;
        }
        write.change_sets(changes).await?;
        write.finish().await?;
        self.publish(&current);
        Ok(Some(current.revocations.version.version))
    }

    /// A value as it is stored.
    pub(crate) fn seal_value(&self, name: &Name, value: &Value) -> Result<ValueRow, SetsError> {
        let sealed = self
            .vault
            .seal(&about_value(name), value.expose().as_bytes());
        Ok(ValueRow {
            name: name.clone(),
            sealed: sealed.map_err(|error| in_vault(value_of(name), error))?,
            updated_ms: now_ms(),
        })
    }

    /// Rows, opened. A value that was damaged is left out: what needs it is
    /// degraded, and writing it again mends it.
    fn read(&self, rows: SetRows) -> Result<Current, SetsError> {
        let mut current = Current::default();
        for version in rows.versions {
            match version.set() {
                SetKind::Secrets => current.secrets.version = version,
                SetKind::SessionKeys => current.session_keys.version = version,
                SetKind::Revocations => current.revocations.version = version,
                SetKind::Peers | SetKind::Unspecified => {}
            }
        }
        let mut values = BTreeMap::new();
        for row in rows.values {
            if let Some(value) = self.open_value(&row)? {
                values.insert(row.name, Arc::new(value));
            }
        }
        let mut keys = Vec::with_capacity(rows.session_keys.len());
        for row in rows.session_keys {
            keys.extend(self.open_key(row)?);
        }
        keys.sort_by_key(|key| Reverse((key.seals_from_ms, key.created_ms, key.id.clone())));
        let mut revocations = rows.revocations;
        revocations.sort_by_key(|row| (Reverse(row.created_ms), row.project.clone(), row.bearer.0));
        current.secrets.entries = Arc::new(values);
        current.session_keys.entries = Arc::new(keys);
        current.revocations.entries = Arc::new(revocations);
        Ok(current)
    }

    fn open_value(&self, row: &ValueRow) -> Result<Option<Value>, SetsError> {
        let opened = self.vault.open(&about_value(&row.name), &row.sealed);
        let Some(plain) = undamaged(value_of(&row.name), opened)? else {
            return Ok(None);
        };
        let text = String::from_utf8(plain.to_vec());
        Ok(text.ok().map(Value::new))
    }

    fn open_key(&self, row: SessionKeyRow) -> Result<Option<SessionKey>, SetsError> {
        let opened = self.vault.open(&keys::about(&row.id), &row.sealed);
        let Some(plain) = undamaged("a session key".to_owned(), opened)? else {
            return Ok(None);
        };
        let Ok(key) = <[u8; 32]>::try_from(plain.as_slice()) else {
            return Ok(None);
        };
        Ok(Some(SessionKey {
            id: row.id,
            key: Zeroizing::new(key),
            created_ms: row.created_ms,
            seals_from_ms: row.seals_from_ms,
        }))
    }

    /// Seals under the first store key what another one has sealed. What it holds
    /// stays the same, and so does its version.
    async fn renew(&self) -> Result<(), SetsError> {
        let mut write = self.store.write().await?;
        let rows = write.sets().await?;
        let mut changes = SetChanges::default();
        for mut row in rows.values {
            let renewed = self.vault.renew(&about_value(&row.name), &row.sealed);
            if let Some(Some(sealed)) = undamaged(value_of(&row.name), renewed)? {
                row.sealed = sealed;
                changes.put_values.push(row);
            }
        }
        for mut row in rows.session_keys {
            let renewed = self.vault.renew(&keys::about(&row.id), &row.sealed);
            if let Some(Some(sealed)) = undamaged("a session key".to_owned(), renewed)? {
                row.sealed = sealed;
                changes.put_session_keys.push(row);
            }
        }
        let count = changes.put_values.len() + changes.put_session_keys.len();
        if count > 0 {
            write.change_sets(changes).await?;
            write.finish().await?;
            tracing::info!(count, "sealed anew under the first store key");
        }
        Ok(())
    }
}

fn about_value(name: &Name) -> [&str; 3] {
    ["secret", &name.0, &name.1]
}

fn value_of((project, name): &Name) -> String {
    format!("the value of Secret {name} of project {project}")
}

fn in_vault(what: String, error: VaultError) -> SetsError {
    SetsError::Vault { what, error }
}

/// What was damaged is said and left out; with the wrong store key nothing goes on.
fn undamaged<T>(what: String, opened: Result<T, VaultError>) -> Result<Option<T>, SetsError> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error @ VaultError::Damaged) => {
            tracing::error!(%error, "{what} cannot be used: write it again");
            Ok(None)
        }
        Err(error) => Err(in_vault(what, error)),
    }
}
