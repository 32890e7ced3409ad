//! What a write results in: the set as it will be, checked whole, as a revision.
//!
//! On the config way: between `api` and `store`. Everything happens inside one
//! transaction that holds the head; a dry run does the same to the newest revision as it
//! is read, and holds up no writer.

use std::{collections::BTreeMap, sync::Arc};

use fleet_proto::{
    key::{Key, Kind},
    secret::{Name, Value},
    v1::{Action, AuditChange, Resource},
    validate::{Problem, Valid},
};
use tokio::sync::Mutex;

use crate::{
    api::strict::is_newer,
    clock::now_ms,
    publish::{Publisher, Snapshot},
    sets::{Current, Sets, SetsError},
    store::{AuditRow, ChangeRow, Head, ResourceRow, RevisionRow, Store, StoreError, Write},
};

mod difference;
mod plan;
mod rehearse;
mod scope;
mod values;

use difference::differences;
pub(crate) use plan::load;
use plan::{Plan, rewritten};
use scope::{of_projects, within};
use values::Values;

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
    /// What leads there from a set. Secrets stay as they are: their values are of no
    /// revision, and who may use them was decided for the values that there are.
    fn on(self, base: &Valid) -> Edit {
        let state = match self {
            Self::Edit(edit) => return edit,
            Self::State(state) => state,
        };
        let differs = |key: &Key, hash| base.get(key).is_none_or(|old| old.hash() != hash);
        let put = state
            .iter()
            .filter(|(key, entry)| key.kind != Kind::Secret && differs(key, entry.hash()))
            .map(|(_, entry)| entry.resource().clone());
        let gone = base
            .iter()
            .map(|(key, _)| key)
            .filter(|key| key.kind != Kind::Secret);
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
    /// The version of the secrets after the write; 0: it changed no value.
    pub(crate) secrets_version: u64,
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
    /// The values of Secrets could not be read or kept.
    #[error(transparent)]
    Sets(SetsError),
    /// The write was cut off, by a panic or by shutdown.
    #[error("the write was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl From<SetsError> for ChangeError {
    fn from(error: SetsError) -> Self {
        match error {
            SetsError::Store(error) => Self::Store(error),
            other => Self::Sets(other),
        }
    }
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
    sets: Arc<Sets>,
    /// Writers wait here, in order, and not for the database.
    turn: Mutex<()>,
}

impl Changes {
    /// Loads the newest revision of a store and publishes it.
    pub(crate) async fn open(store: Arc<dyn Store>, sets: Arc<Sets>) -> Result<Self, ChangeError> {
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
            sets,
            turn: Mutex::new(()),
        })
    }

    pub(crate) fn publisher(&self) -> &Arc<Publisher> {
        &self.publisher
    }

    /// The values of Secrets, and what is kept beside them.
    pub(crate) fn sets(&self) -> &Arc<Sets> {
        &self.sets
    }

    /// What would be refused of an edit of the newest revision by somebody who is
    /// limited to these projects; empty: to none.
    pub(crate) async fn check(&self, edit: Edit, projects: Vec<String>) -> Result<(), ChangeError> {
        let base = self.publisher.newest().resources.clone();
        let mut edit = edit;
        let (given, found) = values::take(&mut edit.put);
        let found = values::missing(&edit.put, &given, found, &self.sets.current());
        let planned = blocking(move || within(&base, edit, &projects)).await?;
        also(found, planned).map(drop)
    }

    /// Carries out a write and publishes its revision, also when the caller has
    /// gone meanwhile: what is committed must be published.
    pub(crate) async fn write(self: &Arc<Self>, request: Request) -> Result<Outcome, ChangeError> {
        let changes = Arc::clone(self);
        tokio::spawn(async move { changes.transact(request).await }).await?
    }

    async fn transact(&self, request: Request) -> Result<Outcome, ChangeError> {
        let (mut work, mut audit) = self.prepare(request.work, &request.author).await?;
        let given = match &mut work {
            Target::Edit(edit) => values::take(&mut edit.put),
            Target::State(_) => Default::default(),
        };
        let projects = request.author.projects;
        if request.dry_run {
            let expected = request.expect_revision;
            return self.rehearse(work, given, projects, expected).await;
        }
        let _turn = self.turn.lock().await;
        let mut write = self.store.write().await?;
        let head = write.head().clone();
        expect(request.expect_revision, head.revision)?;
        let base = self.base(&head, write.as_mut(), &projects).await?;
        let current = self.sets.base(write.as_mut()).await?;
        let (mut plan, differences, values) =
            planned(work, given, base, &current, projects).await?;

        let changed = plan.valid.root_hash() != head.root_hash;
        let revision = head.revision + u64::from(changed);
        let mut outcome = Outcome {
            revision,
            changed,
            changes: std::mem::take(&mut plan.changes),
            secrets_version: 0,
        };
        if !changed && values.is_empty() {
            return Ok(outcome);
        }
        let after = if values.is_empty() {
            None
        } else {
            let (after, changes) = values.apply(&self.sets, &current)?;
            write.change_sets(changes).await?;
            outcome.secrets_version = after.secrets.version.version;
            Some(after)
        };
        audit.at_ms = now_ms();
        audit.message = request.message;
        audit.revision = if changed { revision } else { 0 };
        audit.changes = differences;
        if changed {
            self.commit(write, &head, plan, audit, after).await?;
        } else if let Some(after) = after {
            let (author, why) = (&audit.author, &audit.message);
            tracing::info!(author, action = audit.action, why, "new values of Secrets");
            write.record(audit).await?;
            write.finish().await?;
            self.sets.publish(&after);
        }
        Ok(outcome)
    }

    /// Makes a plan the next revision and shows it, after the values that it names: no
    /// node is to have the one without the other.
    async fn commit(
        &self,
        mut write: Box<dyn Write>,
        head: &Head,
        plan: Plan,
        audit: AuditRow,
        after: Option<Current>,
    ) -> Result<(), ChangeError> {
        let (author, message) = (audit.author.clone(), audit.message.clone());
        let row = revision_row(head, &plan.valid, &plan.rows, author, message);
        let revision = row.number;
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
        write.record(audit).await?;
        write.commit(row, plan.rows).await?;
        if let Some(after) = &after {
            self.sets.publish(after);
        }
        self.publisher.publish(Snapshot {
            lineage: head.lineage.as_str().into(),
            revision,
            resources: plan.valid,
        });
        Ok(())
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

/// The values that a write gives, by the names of their Secrets, and what is wrong with
/// them.
type Given = (BTreeMap<Name, Value>, Vec<Problem>);

/// What a write does to a set and to the values of its Secrets, and what to say of it.
async fn planned(
    work: Target,
    (given, mut found): Given,
    base: Valid,
    current: &Current,
    projects: Vec<String>,
) -> Result<(Plan, Vec<AuditChange>, Values), ChangeError> {
    if let Target::Edit(edit) = &work {
        found = values::missing(&edit.put, &given, found, current);
    }
    let planned = blocking(move || {
        let plan = within(&base, work.on(&base), &projects)?;
        let differences = differences(&base, &plan);
        Ok::<_, ChangeError>((plan, differences))
    })
    .await?;
    let (mut plan, mut differences) = also(found, planned)?;
    let values = Values::of(given, &plan, current);
    values.show(&mut plan, &mut differences);
    Ok((plan, differences, values))
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

/// What planning has found, together with what was found before.
fn also<T>(mut found: Vec<Problem>, planned: Result<T, ChangeError>) -> Result<T, ChangeError> {
    match planned {
        Ok(plan) if found.is_empty() => Ok(plan),
        Ok(_) => Err(ChangeError::Invalid(found)),
        Err(ChangeError::Invalid(problems)) => {
            found.extend(problems);
            Err(ChangeError::Invalid(found))
        }
        Err(error) => Err(error),
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
