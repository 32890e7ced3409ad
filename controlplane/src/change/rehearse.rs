//! Dry runs: what a write would do to the newest revision, without a lock, so that no
//! writer waits for them.

use fleet_proto::validate::Valid;

use super::{ChangeError, Changes, Given, Outcome, Target, expect, loaded, planned};
use crate::store::Head;

impl Changes {
    /// What a write would do to the newest revision.
    pub(super) async fn rehearse(
        &self,
        work: Target,
        given: Given,
        projects: Vec<String>,
        expected: Option<u64>,
    ) -> Result<Outcome, ChangeError> {
        let (head, base) = self.newest(&projects).await?;
        expect(expected, head.revision)?;
        let (plan, ..) = planned(work, given, base, &self.sets.current(), projects).await?;
        let changed = plan.valid.root_hash() != head.root_hash;
        Ok(Outcome {
            revision: head.revision + u64::from(changed),
            changed,
            changes: plan.changes,
            secrets_version: 0,
        })
    }

    /// The newest revision as it is read, without a lock: the published one, unless
    /// another control plane has written since.
    async fn newest(&self, projects: &[String]) -> Result<(Head, Valid), ChangeError> {
        let Some(shared) = self.store.shared() else {
            let newest = self.publisher.newest();
            let head = Head {
                lineage: newest.lineage.to_string(),
                revision: newest.revision,
                root_hash: newest.root_hash(),
            };
            return Ok((head, newest.resources.clone()));
        };
        let head = shared.head().await?;
        if let Some(published) = self.published(&head) {
            return Ok((head, published));
        }
        let (head, rows) = shared.newest().await?;
        let base = loaded(&head, rows, projects).await?;
        Ok((head, base))
    }
}
