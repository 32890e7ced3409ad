//! What the control plane does for people and CI, whichever door they come by.
//!
//! Both doors (`api/grpc`, `api/rest`) only decode, call one method here and
//! encode. Reads are answered from the published snapshot: it is the newest
//! revision in full, and a write is published before it is answered.

use std::sync::Arc;

use fleet_proto::{
    key::{Key, Kind},
    v1::{self, ResourceKey},
    validate::Problem,
};
use tokio::sync::watch;

use crate::{
    change::{Author, Changes, Edit, Outcome, Request, Work},
    identity::Identities,
    listen::tls::Shown,
    publish::Snapshot,
    reports::Reports,
    store::Store,
    sync::node::Registry,
};

pub(crate) mod auth;
mod error;
pub(crate) mod grpc;
mod history;
mod identity;
mod metrics;
mod nodes;
mod reports;
pub(crate) mod rest;
mod security;
pub(crate) mod strict;
mod tokens;

use auth::{Access, Caller, Tokens};
pub(crate) use error::ApiError;
use metrics::Writes;

/// Longest message kept with a revision, in bytes.
const LONGEST_MESSAGE: usize = 4096;

/// The service behind the doors.
pub(crate) struct Api {
    pub(crate) changes: Arc<Changes>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) nodes: Arc<Registry>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) identities: Arc<Identities>,
    /// What the listeners show; `None`: they have no TLS.
    pub(crate) certificate: Option<Arc<Shown>>,
    pub(crate) shutdown: watch::Receiver<bool>,
    pub(crate) writes: Writes,
}

impl Api {
    fn newest(&self) -> Arc<Snapshot> {
        self.changes.publisher().newest()
    }

    /// What would be refused of a write of these resources.
    pub(crate) async fn validate(
        &self,
        caller: &Caller,
        request: v1::ValidateRequest,
    ) -> Result<v1::ValidateResponse, ApiError> {
        let put = request.resources;
        caller.may_touch(&put.iter().filter_map(Key::of).collect::<Vec<_>>())?;
        let edit = Edit {
            put,
            ..Edit::default()
        };
        let projects = caller.projects().to_vec();
        let problems = match self.changes.check(edit, projects).await.map_err(Into::into) {
            Ok(()) => Vec::new(),
            Err(ApiError::Invalid(problems)) => problems,
            Err(error) => return Err(error),
        };
        let problems = problems.iter().map(Problem::to_wire).collect();
        Ok(v1::ValidateResponse { problems })
    }

    /// Writes and removes.
    pub(crate) async fn apply(
        &self,
        caller: &Caller,
        request: v1::ApplyRequest,
    ) -> Result<v1::ApplyResponse, ApiError> {
        let edit = Edit {
            put: request.resources,
            remove: parse_keys(&request.remove)?,
            must_exist: false,
        };
        let request = Request {
            work: Work::Apply(edit),
            dry_run: request.dry_run,
            author: author(caller),
            message: request.message,
            expect_revision: request.expect_revision,
        };
        Ok(applied(&self.write(caller, request).await?))
    }

    /// Removes what exists.
    pub(crate) async fn delete(
        &self,
        caller: &Caller,
        request: v1::DeleteRequest,
    ) -> Result<v1::DeleteResponse, ApiError> {
        let edit = Edit {
            put: Vec::new(),
            remove: parse_keys(&request.keys)?,
            must_exist: true,
        };
        let request = Request {
            work: Work::Delete(edit),
            dry_run: request.dry_run,
            author: author(caller),
            message: request.message,
            expect_revision: request.expect_revision,
        };
        let outcome = self.write(caller, request).await?;
        Ok(v1::DeleteResponse {
            revision: outcome.revision,
            changes: wire(&outcome.changes),
        })
    }

    /// Goes back to an older revision, as a new one.
    pub(crate) async fn rollback(
        &self,
        caller: &Caller,
        request: v1::RollbackRequest,
    ) -> Result<v1::ApplyResponse, ApiError> {
        let number = request.revision;
        let message = if request.message.is_empty() {
            format!("rollback to revision {number}")
        } else {
            request.message
        };
        let request = Request {
            work: Work::Rollback(number),
            dry_run: request.dry_run,
            author: author(caller),
            message,
            expect_revision: request.expect_revision,
        };
        Ok(applied(&self.write(caller, request).await?))
    }

    async fn write(&self, caller: &Caller, request: Request) -> Result<Outcome, ApiError> {
        let dry_run = request.dry_run;
        let result = self.permitted(caller, request).await;
        if !dry_run {
            self.writes.count(&result);
        }
        result
    }

    async fn permitted(&self, caller: &Caller, request: Request) -> Result<Outcome, ApiError> {
        if !request.dry_run {
            caller.needs(Access::Editor)?;
        }
        if let Work::Apply(edit) | Work::Delete(edit) = &request.work {
            caller.may_touch(&edit.remove)?;
            caller.may_touch(&edit.put.iter().filter_map(Key::of).collect::<Vec<_>>())?;
        }
        if request.message.len() > LONGEST_MESSAGE {
            return Err(ApiError::Bad(format!(
                "the message is {} bytes long: at most {LONGEST_MESSAGE} are kept",
                request.message.len()
            )));
        }
        Ok(self.changes.write(request).await?)
    }

    /// One resource.
    pub(crate) fn get(
        &self,
        caller: &Caller,
        request: &v1::GetRequest,
    ) -> Result<v1::GetResponse, ApiError> {
        let key = request.key.as_ref();
        let key = key.ok_or_else(|| ApiError::Bad("no key: say kind and name".to_owned()))?;
        let key = parse_key(key)?;
        let newest = self.newest();
        let visible = Some(&key).filter(|key| caller.sees(&key.project));
        match visible.and_then(|key| newest.resources.get(key)) {
            Some(entry) => Ok(v1::GetResponse {
                resource: Some(entry.resource().clone()),
                revision: newest.revision,
            }),
            None => Err(ApiError::NotFound(format!("not found: {key}"))),
        }
    }

    /// Resources in order. Empty: any.
    pub(crate) fn list(
        &self,
        caller: &Caller,
        request: &v1::ListRequest,
    ) -> Result<v1::ListResponse, ApiError> {
        let (kind, project) = (&request.kind, &request.project);
        let kind = if kind.is_empty() {
            None
        } else {
            Some(parse_kind(kind)?)
        };
        let newest = self.newest();
        let wanted = newest.resources.iter().filter(|(key, _)| {
            kind.is_none_or(|kind| key.kind == kind)
                && (project.is_empty() || key.project == *project)
                && caller.sees(&key.project)
        });
        Ok(v1::ListResponse {
            resources: wanted.map(|(_, entry)| entry.resource().clone()).collect(),
            revision: newest.revision,
        })
    }
}

fn author(caller: &Caller) -> Author {
    Author {
        name: caller.name().to_owned(),
        peer: caller.peer.clone(),
        projects: caller.projects().to_vec(),
    }
}

fn applied(outcome: &Outcome) -> v1::ApplyResponse {
    v1::ApplyResponse {
        revision: outcome.revision,
        changed: outcome.changed,
        changes: wire(&outcome.changes),
        problems: Vec::new(),
        secrets_version: outcome.secrets_version,
    }
}

fn wire(changes: &[(Key, v1::Action)]) -> Vec<v1::Change> {
    let change = |(key, action): &(Key, v1::Action)| v1::Change {
        key: Some(key.to_wire()),
        action: (*action).into(),
    };
    changes.iter().map(change).collect()
}

/// Keys of a removal.
fn parse_keys(keys: &[ResourceKey]) -> Result<Vec<Key>, ApiError> {
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
