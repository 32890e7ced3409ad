//! Client tokens that are refused: added and taken back.

use std::sync::Arc;

use super::{Current, Set, Sets, SetsError};
use crate::store::{
    AuditRow,
    sets::{RevocationRow, SetChanges},
};

impl Sets {
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
}
