//! Where configuration is kept: the [`Store`] trait and its rows.
//!
//! On the config way this sits between `change` (which decides what a write
//! results in) and `publish` (which shows it to nodes). A store knows keys,
//! bytes and hashes, not what they mean.

use std::collections::BTreeMap;

use fleet_proto::{
    hash::Hash,
    key::Key,
    v1::{Action, AuditChange, Problem, SetVersion},
};
use futures_util::future::BoxFuture;

use crate::api::auth::{Access, Role};

pub(crate) mod identity;
pub(crate) mod postgres;
pub(crate) mod sets;
pub(crate) mod shared;
pub(crate) mod sqlite;
#[cfg(test)]
mod tests;

use identity::IdentityStore;
use sets::{SetChanges, SetRows};
use shared::{NodeChange, Saved, Shared};

/// A database of configuration. Implementations differ in SQL only; what they
/// must do is asserted by one suite (`store/tests.rs`).
pub(crate) trait Store: IdentityStore + Send + Sync + 'static {
    /// Starts a write: locks the head until the write is committed or dropped.
    fn write(&self) -> BoxFuture<'_, Result<Box<dyn Write>, StoreError>>;

    /// All resources as they were at a revision.
    fn resources_at(&self, revision: u64) -> BoxFuture<'_, Result<Vec<ResourceRow>, StoreError>>;

    /// At most `limit` revisions, newest first.
    fn revisions(&self, limit: u32) -> BoxFuture<'_, Result<Vec<RevisionRow>, StoreError>>;

    /// A revision; `None`: there is none of this number.
    fn revision(&self, number: u64) -> BoxFuture<'_, Result<Option<RevisionRow>, StoreError>>;

    /// At most `limit` revisions that changed something in these projects, newest
    /// first, with the counts of these projects.
    fn revisions_of(
        &self,
        projects: Vec<String>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<RevisionRow>, StoreError>>;

    /// What a revision did to which keys, in no order.
    fn changes_of(&self, revision: u64) -> BoxFuture<'_, Result<Vec<(Key, Action)>, StoreError>>;

    /// At most `limit` entries of the audit log before this one (0: the end),
    /// newest first.
    fn audit(&self, before: u64, limit: u32) -> BoxFuture<'_, Result<Vec<AuditRow>, StoreError>>;

    /// All tokens of the API, also revoked ones, by name and time.
    fn api_tokens(&self) -> BoxFuture<'_, Result<Vec<ApiTokenRow>, StoreError>>;

    /// Adds a token and an entry of the audit log. One of the same name that has
    /// expired when the new one is made is revoked. `false`, and nothing is
    /// written: one of the same name is good.
    fn put_api_token(
        &self,
        token: ApiTokenRow,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Revokes the token of this id, and adds an entry of the audit log. `false`,
    /// and nothing is written: it is revoked already, or there is none.
    fn revoke_api_token(
        &self,
        id: String,
        at_ms: u64,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// All tokens.
    fn tokens(&self) -> BoxFuture<'_, Result<Vec<TokenRow>, StoreError>>;

    /// Adds a token; one of the same role and label is replaced.
    fn put_token(&self, token: TokenRow) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Adds a token unless there is one of its role and label; whether it did.
    fn add_token(&self, token: TokenRow) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Removes the token of this role and label, if there is one.
    fn remove_token<'a>(
        &'a self,
        role: Role,
        label: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// All nodes, by id.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeRow>, StoreError>>;

    /// Writes some nodes and removes others, in one transaction.
    fn save_nodes(
        &self,
        changed: Vec<NodeChange>,
        gone: Vec<String>,
    ) -> BoxFuture<'_, Result<Saved, StoreError>>;

    /// Versions of the sets in which something ever was.
    fn set_versions(&self) -> BoxFuture<'_, Result<Vec<SetVersion>, StoreError>>;

    /// All sets, as they are at one moment.
    fn sets(&self) -> BoxFuture<'_, Result<SetRows, StoreError>>;

    /// The check value of the store key; `None`: there is none yet.
    fn vault_check(&self) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;

    /// Keeps a check value unless there is one; gives back the one that is kept.
    fn add_vault_check(&self, value: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, StoreError>>;

    /// Keeps a check value instead of the one before.
    fn put_vault_check(&self, value: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What control planes that share this store tell each other; `None`: only one
    /// process can use it.
    fn shared(&self) -> Option<&dyn Shared>;

    /// Ends all connections.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A write under the locked head. Dropped without [`commit`](Write::commit), it
/// changes nothing.
pub(crate) trait Write: Send {
    /// The head that is locked.
    fn head(&self) -> &Head;

    /// All resources, in no order.
    fn resources(&mut self) -> BoxFuture<'_, Result<Vec<ResourceRow>, StoreError>>;

    /// Adds an entry of the audit log, kept if the write is committed.
    fn record(&mut self, audit: AuditRow) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Versions of the sets in which something ever was.
    fn set_versions(&mut self) -> BoxFuture<'_, Result<Vec<SetVersion>, StoreError>>;

    /// All sets.
    fn sets(&mut self) -> BoxFuture<'_, Result<SetRows, StoreError>>;

    /// Changes the sets, if the write is committed.
    fn change_sets(&mut self, changes: SetChanges) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Commits what was recorded and what was changed of the sets, without a revision.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Makes `changes` the revision after the head.
    fn commit(
        self: Box<Self>,
        revision: RevisionRow,
        changes: Vec<ChangeRow>,
    ) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// The newest revision of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// UUID of the store.
    pub(crate) lineage: String,
    /// 0 where nothing was written yet.
    pub(crate) revision: u64,
    /// Over all resources.
    pub(crate) root_hash: Hash,
}

/// A stored resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceRow {
    pub(crate) key: Key,
    /// Prost encoding of the `Resource`.
    pub(crate) body: Vec<u8>,
}

/// A revision without its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevisionRow {
    pub(crate) number: u64,
    pub(crate) root_hash: Hash,
    pub(crate) created_ms: u64,
    pub(crate) author: String,
    pub(crate) message: String,
    pub(crate) created: u32,
    pub(crate) configured: u32,
    pub(crate) deleted: u32,
}

/// What a revision does to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangeRow {
    pub(crate) key: Key,
    pub(crate) change: Stored,
}

/// What becomes of a stored resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Created { body: Vec<u8>, hash: Hash },
    Configured { body: Vec<u8>, hash: Hash },
    Deleted,
}

impl Stored {
    /// Its name in the database.
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Configured { .. } => "configured",
            Self::Deleted => "deleted",
        }
    }

    /// What the resource is now; `None`: nothing.
    pub(crate) fn body(&self) -> Option<(&[u8], Hash)> {
        match self {
            Self::Created { body, hash } | Self::Configured { body, hash } => Some((body, *hash)),
            Self::Deleted => None,
        }
    }
}

/// A token, hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRow {
    pub(crate) role: Role,
    /// Where it came from; the author of what is written with it.
    pub(crate) label: String,
    /// SHA-256 of the token.
    pub(crate) hash: Hash,
    pub(crate) created_ms: u64,
}

/// A token of the API, hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiTokenRow {
    /// Tells apart tokens that had the same name one after the other.
    pub(crate) id: String,
    /// The author of what is written with it.
    pub(crate) name: String,
    pub(crate) access: Access,
    /// Empty: all.
    pub(crate) projects: Vec<String>,
    /// SHA-256 of the token.
    pub(crate) hash: Hash,
    pub(crate) created_ms: u64,
    pub(crate) created_by: String,
    /// `None`: never.
    pub(crate) expires_ms: Option<u64>,
    /// `None`: it is not.
    pub(crate) revoked_ms: Option<u64>,
}

/// An entry of the audit log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AuditRow {
    /// Given by the store; in a new one it says nothing.
    pub(crate) id: u64,
    pub(crate) at_ms: u64,
    pub(crate) author: String,
    /// Address and port of the caller.
    pub(crate) peer: String,
    pub(crate) action: String,
    pub(crate) message: String,
    /// The revision it made; 0: none.
    pub(crate) revision: u64,
    /// 0: it was no rollback.
    pub(crate) rolled_back_to: u64,
    /// Name of the token it is about; empty: none.
    pub(crate) token: String,
    pub(crate) changes: Vec<AuditChange>,
}

/// What is known of a data plane, connected or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeRow {
    pub(crate) node_id: String,
    pub(crate) boot_id: String,
    pub(crate) version: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Acked; 0: none of this lineage.
    pub(crate) revision: u64,
    /// Acked; `None`: nothing of this lineage.
    pub(crate) root_hash: Option<Hash>,
    /// Refused since the last ack; 0: none.
    pub(crate) nacked_revision: u64,
    pub(crate) nacked_root: Option<Hash>,
    pub(crate) errors: Vec<Problem>,
    pub(crate) degraded: Vec<Problem>,
    pub(crate) apply_us: u64,
    pub(crate) last_seen_ms: u64,
    /// Versions of the sets in use.
    pub(crate) sets: Vec<SetVersion>,
    /// Why newer ones are not.
    pub(crate) set_problems: Vec<Problem>,
    /// Where its peer listener is; empty: nowhere.
    pub(crate) peer_address: String,
}

/// The store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database refused or is out of reach.
    #[error("database {database}: {source}")]
    Database {
        database: String,
        source: sqlx::Error,
    },
    /// The schema could not be brought up to date.
    #[error("database {database}: cannot migrate: {source}")]
    Migrate {
        database: String,
        source: sqlx::migrate::MigrateError,
    },
    /// It cannot be reached, or does not answer.
    #[error(
        "database {database} is out of reach: {reason}: nothing was changed; what is stored is still \
         served, and writes work again once the database does: see that it runs and can be reached, \
         then try again"
    )]
    Unreachable { database: String, reason: String },
    /// The connection was lost between a commit and its answer.
    #[error(
        "database {database} was lost while revision {revision} was committed: {reason}: it may have \
         been made or not: look at the revisions once the database is back, or write the same again, \
         which changes nothing twice"
    )]
    InDoubt {
        database: String,
        revision: u64,
        reason: String,
    },
    /// What is stored has more in it than this version knows.
    #[error(
        "revision {revision} was written by another version, and this one would lose a part of it: \
         upgrade this control plane"
    )]
    OtherVersion { revision: u64 },
    /// What is sealed in it does not open here.
    #[error("{0}")]
    Sealed(String),
    /// It holds what no version of this program writes.
    #[error(
        "database {database}: {what}: restore it from a backup, or use the program version that wrote it"
    )]
    Damaged { database: String, what: String },
}

impl StoreError {
    /// Whether the same may work later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::InDoubt { .. })
    }
}
