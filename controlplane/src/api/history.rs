//! Revisions and the audit log, as far as a caller sees what they changed.

use fleet_proto::{
    key::Key,
    v1::{self, AuditChange},
};
use prost::Message;

use super::{Api, ApiError, Caller, wire};
use crate::store::{AuditRow, RevisionRow};

/// Entries listed when the caller does not say.
const SOME: u32 = 50;
const MOST: u32 = 1000;
/// Batches looked through for a caller who is limited to projects.
const BATCHES: usize = 50;
/// Changes shown of one entry of the audit log.
const CHANGES: usize = 1000;

const fn limit(wanted: u32) -> u32 {
    match wanted {
        0 => SOME,
        MOST.. => MOST,
        _ => wanted,
    }
}

impl Api {
    /// Revisions, newest first. A caller who is limited to projects sees those that
    /// changed something there.
    pub(crate) async fn revisions(
        &self,
        caller: &Caller,
        request: v1::RevisionsRequest,
    ) -> Result<v1::RevisionsResponse, ApiError> {
        let limit = limit(request.limit);
        let rows = if caller.is_limited() {
            let projects = caller.projects().to_vec();
            self.store.revisions_of(projects, limit).await?
        } else {
            self.store.revisions(limit).await?
        };
        Ok(v1::RevisionsResponse {
            revisions: rows.into_iter().map(revision).collect(),
            lineage: self.newest().lineage.to_string(),
        })
    }

    /// One revision.
    pub(crate) async fn revision(
        &self,
        caller: &Caller,
        request: v1::GetRevisionRequest,
    ) -> Result<v1::GetRevisionResponse, ApiError> {
        let number = request.number;
        let none = || ApiError::NotFound(format!("there is no revision {number}"));
        let mut row = self.store.revision(number).await?.ok_or_else(none)?;
        let mut changes = self.store.changes_of(number).await?;
        changes.sort();
        if caller.is_limited() {
            changes.retain(|(key, _)| caller.sees(&key.project));
            if changes.is_empty() {
                return Err(none());
            }
            recount(&mut row, &changes);
        }
        let resources = if request.resources {
            self.resources_at(caller, number).await?
        } else {
            Vec::new()
        };
        Ok(v1::GetRevisionResponse {
            revision: Some(revision(row)),
            changes: wire(&changes),
            resources,
        })
    }

    /// What a revision holds in the projects of the caller: what is damaged in others is
    /// none of theirs.
    async fn resources_at(
        &self,
        caller: &Caller,
        number: u64,
    ) -> Result<Vec<v1::Resource>, ApiError> {
        let mut rows = self.store.resources_at(number).await?;
        rows.retain(|row| caller.sees(&row.key.project));
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        let decoded = rows.iter().map(|row| {
            v1::Resource::decode(row.body.as_slice()).map_err(|error| {
                ApiError::Internal(format!(
                    "the stored bytes of {} at revision {number} are damaged: {error}",
                    row.key
                ))
            })
        });
        decoded.collect()
    }

    /// Entries of the audit log, newest first. A caller who is limited to projects
    /// sees those that changed something there.
    pub(crate) async fn audit(
        &self,
        caller: &Caller,
        request: v1::AuditRequest,
    ) -> Result<v1::AuditResponse, ApiError> {
        let limit = limit(request.limit);
        let mut before = request.before;
        let mut entries = Vec::new();
        // Who sees little must not make many queries of it.
        let batch = if caller.is_limited() { MOST } else { limit };
        for _ in 0..BATCHES {
            if entries.len() >= limit as usize {
                break;
            }
            let rows = self.store.audit(before, batch).await?;
            let Some(last) = rows.last() else { break };
            before = last.id;
            entries.extend(rows.into_iter().filter_map(|row| entry(caller, row)));
            // The first entry of all: nothing is before it.
            if before <= 1 {
                break;
            }
        }
        entries.truncate(limit as usize);
        Ok(v1::AuditResponse { entries })
    }
}

fn revision(row: RevisionRow) -> v1::Revision {
    v1::Revision {
        number: row.number,
        root_hash: row.root_hash.0.to_vec(),
        created_ms: row.created_ms,
        author: row.author,
        message: row.message,
        created: row.created,
        configured: row.configured,
        deleted: row.deleted,
    }
}

fn recount(row: &mut RevisionRow, changes: &[(Key, v1::Action)]) {
    let count = |action| changes.iter().filter(|(_, a)| *a == action).count() as u32;
    row.created = count(v1::Action::Created);
    row.configured = count(v1::Action::Configured);
    row.deleted = count(v1::Action::Deleted);
}

fn entry(caller: &Caller, row: AuditRow) -> Option<v1::AuditEntry> {
    let mut changes = row.changes;
    if caller.is_limited() {
        let sees = |change: &AuditChange| {
            let key = change.key.as_ref();
            key.is_some_and(|key| caller.sees(&key.project))
        };
        changes.retain(sees);
        if changes.is_empty() {
            return None;
        }
    }
    let left_out = changes.len().saturating_sub(CHANGES);
    changes.truncate(CHANGES);
    Some(v1::AuditEntry {
        id: row.id,
        at_ms: row.at_ms,
        author: row.author,
        peer: row.peer,
        action: row.action,
        message: row.message,
        revision: row.revision,
        token: row.token,
        changes,
        changes_left_out: left_out as u32,
        rolled_back_to: row.rolled_back_to,
    })
}
