//! What the control plane does for people and CI, whichever door they come by.
//!
//! Reads are answered from the published snapshot: it is the newest revision in
//! full, and a write is published before it is answered.

use std::sync::Arc;

use fleet_proto::{
    key::{Key, Kind},
    v1::{self, Resource, ResourceKey},
    validate::Problem,
};

use crate::{
    change::{ChangeError, Changes, Edit, Outcome, Request},
    publish::Snapshot,
    store::{Store, StoreError},
    sync::node::Registry,
};

pub(crate) mod auth;
pub(crate) mod grpc;
pub(crate) mod strict;

/// Longest message kept with a revision, in bytes.
const LONGEST_MESSAGE: usize = 4096;
/// Revisions listed when the caller does not say.
const REVISIONS: u32 = 50;
const MOST_REVISIONS: u32 = 1000;

/// The service behind the doors.
pub(crate) struct Api {
    pub(crate) changes: Arc<Changes>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) nodes: Arc<Registry>,
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The request makes no sense.
    #[error("{0}")]
    Bad(String),
    /// Nothing is stored under this key.
    #[error("not found: {0}")]
    NotFound(Key),
}

impl Api {
    fn newest(&self) -> Arc<Snapshot> {
        self.changes.publisher().newest()
    }

    /// What would be refused of a write of these resources.
    pub(crate) async fn validate(&self, put: Vec<Resource>) -> Result<Vec<Problem>, ApiError> {
        let edit = Edit {
            put,
            ..Edit::default()
        };
        match self.changes.check(edit).await {
            Ok(()) => Ok(Vec::new()),
            Err(ChangeError::Invalid(problems)) => Ok(problems),
            Err(error) => Err(error.into()),
        }
    }

    /// Carries out a write.
    pub(crate) async fn write(&self, request: Request) -> Result<Outcome, ApiError> {
        if request.message.len() > LONGEST_MESSAGE {
            return Err(ApiError::Bad(format!(
                "the message is {} bytes long: at most {LONGEST_MESSAGE} are kept",
                request.message.len()
            )));
        }
        Ok(self.changes.write(request).await?)
    }

    /// One resource, and the revision it is of.
    pub(crate) fn get(&self, key: Option<&ResourceKey>) -> Result<(Resource, u64), ApiError> {
        let key = key.ok_or_else(|| ApiError::Bad("no key: say kind and name".to_owned()))?;
        let key = parse_key(key)?;
        let newest = self.newest();
        match newest.resources.get(&key) {
            Some(entry) => Ok((entry.resource().clone(), newest.revision)),
            None => Err(ApiError::NotFound(key)),
        }
    }

    /// Resources in order, and the revision they are of. Empty: any.
    pub(crate) fn list(&self, kind: &str, project: &str) -> Result<(Vec<Resource>, u64), ApiError> {
        let kind = if kind.is_empty() {
            None
        } else {
            Some(parse_kind(kind)?)
        };
        let newest = self.newest();
        let wanted = newest.resources.iter().filter(|(key, _)| {
            kind.is_none_or(|kind| key.kind == kind)
                && (project.is_empty() || key.project == project)
        });
        Ok((
            wanted.map(|(_, entry)| entry.resource().clone()).collect(),
            newest.revision,
        ))
    }

    /// Revisions, newest first; 0: some.
    pub(crate) async fn revisions(&self, limit: u32) -> Result<v1::RevisionsResponse, ApiError> {
        let limit = if limit == 0 {
            REVISIONS
        } else {
            limit.min(MOST_REVISIONS)
        };
        let rows = self.store.revisions(limit).await?;
        let revisions = rows.into_iter().map(|row| v1::Revision {
            number: row.number,
            root_hash: row.root_hash.0.to_vec(),
            created_ms: row.created_ms,
            author: row.author,
            message: row.message,
            created: row.created,
            configured: row.configured,
            deleted: row.deleted,
        });
        let lineage = self.newest().lineage.to_string();
        Ok(v1::RevisionsResponse {
            revisions: revisions.collect(),
            lineage,
        })
    }

    /// The nodes and how they stand towards the newest revision.
    pub(crate) fn nodes(&self) -> v1::NodesResponse {
        let newest = self.newest();
        v1::NodesResponse {
            nodes: self.nodes.view(&newest),
            revision: newest.revision,
        }
    }
}

/// Keys of a removal.
pub(crate) fn parse_keys(keys: &[ResourceKey]) -> Result<Vec<Key>, ApiError> {
    keys.iter().map(parse_key).collect()
}

fn parse_key(key: &ResourceKey) -> Result<Key, ApiError> {
    if key.name.is_empty() {
        return Err(ApiError::Bad(
            "a key has no name: say kind and name".to_owned(),
        ));
    }
    Ok(Key::new(&key.project, parse_kind(&key.kind)?, &key.name))
}

fn parse_kind(kind: &str) -> Result<Kind, ApiError> {
    Kind::parse(kind).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::as_str).join(", ");
        ApiError::Bad(format!("there is no kind `{kind}`: use one of {known}"))
    })
}
