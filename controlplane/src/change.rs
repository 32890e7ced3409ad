//! What a write results in: the set as it will be, checked whole, as a revision.
//!
//! On the config way: between `api` and `store`. Everything happens inside one
//! transaction that holds the head; a dry run does the same to the newest revision as it
//! is read, and holds up no writer.

use std::sync::Arc;

use fleet_proto::{
    key::Key,
    v1::{Action, Resource},
    validate::{Problem, Valid},
};
use tokio::sync::Mutex;

use crate::{
    api::strict::is_newer,
    clock::now_ms,
    publish::{Publisher, Snapshot},
    store::{AuditRow, ChangeRow, Head, ResourceRow, RevisionRow, Store, StoreError, Write},
};

mod difference;
mod plan;
mod rehearse;
mod scope;

use difference::differences;
pub(crate) use plan::load;
use plan::rewritten;
use scope::{of_projects, within};

/// A write that somebody asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) work: Work,
    /// Everything but the writing.
    pub(crate) dry_run: bool,
    pub(crate) author: Author,
    /// Why.
    pub(crate) message: String,
    /// Refuse unless this is the newest revision.
    pub(crate) expect_revision: Option<u64>,
}

/// Who asks for a write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Author {
    pub(crate) name: String,
    /// Address and port.
    pub(crate) peer: String,
    /// Must change nothing outside of these projects; empty: may change all.
    pub(crate) projects: Vec<String>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Work {
    Apply(Edit),
    Delete(Edit),
    /// Go back to the state of this revision.
    Rollback(u64),
}

impl Work {
    /// Its name in the audit log.
    const fn action(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Delete(_) => "delete",
            Self::Rollback(_) => "rollback",
        }
    }
}

/// What is to be done to the stored set, at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edit {
    /// Added or replaced, whole.
    pub(crate) put: Vec<Resource>,
    /// Removed.
    pub(crate) remove: Vec<Key>,
    /// Refuse where something to be removed does not exist.
    pub(crate) must_exist: bool,
}

/// What a write is to result in.
enum Target {
    Edit(Edit),
    /// Just this.
    State(Valid),
}

impl Target {
    /// What leads there from a set.
    fn on(self, base: &Valid) -> Edit {
        let state = match self {
            Self::Edit(edit) => return edit,
            Self::State(state) => state,
        };
        let differs = |key: &Key, hash| base.get(key).is_none_or(|old| old.hash() != hash);
        let put = state
            .iter()
            .filter(|(key, entry)| differs(key, entry.hash()))
            .map(|(_, entry)| entry.resource().clone());
        let gone = base.iter().map(|(key, _)| key);
        Edit {
            put: put.collect(),
            remove: gone
                .filter(|key| state.get(key).is_none())
                .cloned()
                .collect(),
            must_exist: false,
        }
    }
}

/// What a write did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The revision that holds the result.
    pub(crate) revision: u64,
    /// Whether that is a new one.
    pub(crate) changed: bool,
    /// What happened to each key of the request, in its order.
    pub(crate) changes: Vec<(Key, Action)>,
}

/// Why a write changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// The result would not fit together.
    #[error("{}", problems(.0))]
    Invalid(Vec<Problem>),
    /// Keys to be removed that do not exist.
    #[error("not found: {}", keys(.0))]
    Missing(Vec<Key>),
    /// Somebody else was faster.
    #[error(
        "revision {expected} was expected to be the newest, but revision {newest} is: \
         look at what changed, and try again"
    )]
    Conflict { expected: u64, newest: u64 },
    /// There is no revision to go back to.
    #[error("there is no revision {0}")]
    NoRevision(u64),
    /// It would change what the author may not.
    #[error("the write would change other projects than {}", .0.join(", "))]
    Beyond(Vec<String>),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The write was cut off, by a panic or by shutdown.
    #[error("the write was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

fn problems(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        [] => "invalid".to_owned(),
    }
}

/// `Backend a, Backend b`, cut where it gets long.
pub(crate) fn keys(keys: &[Key]) -> String {
    const SHOWN: usize = 10;
    let mut text = keys
        .iter()
        .take(SHOWN)
        .map(Key::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more) = keys.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Carries out writes, one after the other.
pub(crate) struct Changes {
    store: Arc<dyn Store>,
    publisher: Arc<Publisher>,
    /// Writers wait here, in order, and not for the database.
    turn: Mutex<()>,
}

impl Changes {
    /// Loads the newest revision of a store and publishes it.
    pub(crate) async fn open(store: Arc<dyn Store>) -> Result<Self, ChangeError> {
        let mut write = store.write().await?;
        let head = write.head().clone();
        let rows = write.resources().await?;
        if rows.iter().any(|row| is_newer(&row.body)) {
            let revision = head.revision;
            return Err(StoreError::OtherVersion { revision }.into());
        }
        let base = blocking(move || load(rows))
            .await?
            .map_err(ChangeError::Invalid)?;
        let (valid, rows) = base;
        let lineage: Arc<str> = head.lineage.as_str().into();
        let revision = if valid.root_hash() == head.root_hash {
            head.revision
        } else {
            // This version writes the same resources with other bytes.
            tracing::info!(
                revision = head.revision + 1,
                "resources rewritten by a new version"
            );
            let message = format!("rewritten by version {}", env!("CARGO_PKG_VERSION"));
            let changes = rewritten(&rows, &valid);
            let row = revision_row(&head, &valid, &changes, "control plane".to_owned(), message);
            write.commit(row, changes).await?;
            head.revision + 1
        };
        let publisher = Arc::new(Publisher::new(Snapshot {
            lineage,
            revision,
            resources: valid,
        }));
        Ok(Self {
            store,
            publisher,
            turn: Mutex::new(()),
        })
    }

    pub(crate) fn publisher(&self) -> &Arc<Publisher> {
        &self.publisher
    }

    /// What would be refused of an edit of the newest revision by somebody who is
    /// limited to these projects; empty: to none.
    pub(crate) async fn check(&self, edit: Edit, projects: Vec<String>) -> Result<(), ChangeError> {
        let base = self.publisher.newest().resources.clone();
        blocking(move || within(&base, edit, &projects)).await??;
        Ok(())
    }

    /// Carries out a write and publishes its revision, also when the caller has
    /// gone meanwhile: what is committed must be published.
    pub(crate) async fn write(self: &Arc<Self>, request: Request) -> Result<Outcome, ChangeError> {
        let changes = Arc::clone(self);
        tokio::spawn(async move { changes.transact(request).await }).await?
    }

    async fn transact(&self, request: Request) -> Result<Outcome, ChangeError> {
        let (work, mut audit) = self.prepare(request.work, &request.author).await?;
        if request.dry_run {
            let projects = request.author.projects;
            return self.rehearse(work, projects, request.expect_revision).await;
        }
        let _turn = self.turn.lock().await;
        let mut write = self.store.write().await?;
        let head = write.head().clone();
        expect(request.expect_revision, head.revision)?;
        let projects = request.author.projects;
        let base = self.base(&head, write.as_mut(), &projects).await?;
        let (plan, differences) = blocking(move || {
            let plan = within(&base, work.on(&base), &projects)?;
            let differences = differences(&base, &plan);
            Ok::<_, ChangeError>((plan, differences))
        })
        .await??;

        let changed = plan.valid.root_hash() != head.root_hash;
        let revision = head.revision + u64::from(changed);
        if changed {
            let (author, message) = (request.author.name, request.message);
            let row = revision_row(&head, &plan.valid, &plan.rows, author, message);
            tracing::info!(
                revision,
                author = row.author,
                action = audit.action,
                why = row.message,
                created = row.created,
                configured = row.configured,
                deleted = row.deleted,
                "new revision"
            );
            audit.at_ms = row.created_ms;
            audit.message.clone_from(&row.message);
            audit.revision = revision;
            audit.changes = differences;
            write.record(audit).await?;
            write.commit(row, plan.rows).await?;
            let lineage = head.lineage.as_str().into();
            self.publisher.publish(Snapshot {
                lineage,
                revision,
                resources: plan.valid,
            });
        }
        Ok(Outcome {
            revision,
            changed,
            changes: plan.changes,
        })
    }

    /// What can be read before the head is locked: revisions do not change.
    async fn prepare(
        &self,
        work: Work,
        author: &Author,
    ) -> Result<(Target, AuditRow), ChangeError> {
        let mut audit = AuditRow {
            action: work.action().to_owned(),
            author: author.name.clone(),
            peer: author.peer.clone(),
            ..AuditRow::default()
        };
        let target = match work {
            Work::Apply(edit) | Work::Delete(edit) => Target::Edit(edit),
            Work::Rollback(number) => {
                if self.store.revision(number).await?.is_none() {
                    return Err(ChangeError::NoRevision(number));
                }
                audit.rolled_back_to = number;
                let rows = self.store.resources_at(number).await?;
                let loaded = blocking(move || load(rows)).await?;
                let (state, _) = loaded.map_err(|problems| {
                    ChangeError::Invalid(of_projects(problems, &author.projects))
                })?;
                Target::State(state)
            }
        };
        Ok((target, audit))
    }

    /// The set at the head: the published one, unless somebody else has written.
    async fn base(
        &self,
        head: &Head,
        write: &mut dyn Write,
        projects: &[String],
    ) -> Result<Valid, ChangeError> {
        if let Some(published) = self.published(head) {
            return Ok(published);
        }
        let rows = write.resources().await?;
        loaded(head, rows, projects).await
    }

    /// The published set, if it is the one at the head.
    fn published(&self, head: &Head) -> Option<Valid> {
        let newest = self.publisher.newest();
        let same = newest.revision == head.revision && newest.root_hash() == head.root_hash;
        same.then(|| newest.resources.clone())
    }
}

/// Stored rows as the set at the head. What is wrong with others' is not for authors who
/// are limited to projects.
async fn loaded(
    head: &Head,
    rows: Vec<ResourceRow>,
    projects: &[String],
) -> Result<Valid, ChangeError> {
    let (valid, _) = blocking(move || load(rows))
        .await?
        .map_err(|problems| ChangeError::Invalid(of_projects(problems, projects)))?;
    if valid.root_hash() != head.root_hash {
        let revision = head.revision;
        return Err(StoreError::OtherVersion { revision }.into());
    }
    Ok(valid)
}

fn expect(expected: Option<u64>, newest: u64) -> Result<(), ChangeError> {
    match expected {
        Some(expected) if expected != newest => Err(ChangeError::Conflict { expected, newest }),
        _ => Ok(()),
    }
}

/// Validation of a large set would hold up the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ChangeError> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

fn revision_row(
    head: &Head,
    valid: &Valid,
    rows: &[ChangeRow],
    author: String,
    message: String,
) -> RevisionRow {
    let count = |action| {
        rows.iter()
            .filter(|row| row.change.action() == action)
            .count() as u32
    };
    RevisionRow {
        number: head.revision + 1,
        root_hash: valid.root_hash(),
        created_ms: now_ms(),
        author,
        message,
        created: count("created"),
        configured: count("configured"),
        deleted: count("deleted"),
    }
}
