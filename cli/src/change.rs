//! Writing documents to a control plane, and saying what that did.

use std::collections::HashSet;

use fleet_proto::{
    key::Key,
    read::Documents,
    v1::{Action, ApplyRequest, ApplyResponse, Change, ListRequest, Resource},
    validate::Problem,
};

use crate::{
    client::Client,
    failure::{Failure, problems_of},
    kinds, output, sources, values,
};

/// How to write.
#[derive(Clone, Debug, Default)]
pub(crate) struct How {
    /// Do everything but the writing.
    pub(crate) dry_run: bool,
    /// Why, for the history.
    pub(crate) message: String,
    /// Only on top of this revision.
    pub(crate) expect_revision: Option<u64>,
    /// What goes in the same revision; absent ones are fine.
    pub(crate) remove: Vec<Key>,
}

/// Writes all documents, and removes what is to go, as one revision.
///
/// # Errors
/// `Invalid` with every problem of the files and of the set they would make,
/// each at its place; nothing is written then. `Conflict`, `NotAllowed` and
/// `Unreachable` as the control plane says.
pub(crate) async fn submit(
    client: &mut Client,
    documents: &Documents,
    how: &How,
) -> Result<ApplyResponse, Failure> {
    // A file may name what is stored only. Where it does not, there is no need to ask.
    if documents.clone().check().is_err() {
        let remove: HashSet<&Key> = how.remove.iter().collect();
        let mut kept = stored(client).await?;
        kept.retain(|r| Key::of(r).is_none_or(|key| !remove.contains(&key)));
        check_with(documents, kept)?;
    }
    match client.apply(request(documents, how)?).await {
        Ok(response) => Ok(response.into_inner()),
        // Only the store shows it, or somebody else has written in between.
        Err(status) => match problems_of(&status) {
            problems if problems.is_empty() => Err(status.into()),
            problems => Err(located(documents, &problems)),
        },
    }
}

/// The message that does it: the only place where values of Secrets are resolved.
fn request(documents: &Documents, how: &How) -> Result<ApplyRequest, Failure> {
    Ok(ApplyRequest {
        resources: values::resolved(documents)?,
        dry_run: how.dry_run,
        message: how.message.clone(),
        expect_revision: how.expect_revision,
        remove: how.remove.iter().map(Key::to_wire).collect(),
    })
}

/// Everything that is stored.
pub(crate) async fn stored(client: &mut Client) -> Result<Vec<Resource>, Failure> {
    Ok(client
        .list(ListRequest::default())
        .await?
        .into_inner()
        .resources)
}

/// Checks documents as a change to what is stored.
fn check_with(documents: &Documents, stored: Vec<Resource>) -> Result<(), Failure> {
    match documents.clone().check_with(stored) {
        Ok(_) => Ok(()),
        Err(problems) => Err(Failure::Invalid(
            problems.iter().map(ToString::to_string).collect(),
        )),
    }
}

/// Problems at their places in the files, with those of the files themselves.
pub(crate) fn located(documents: &Documents, problems: &[Problem]) -> Failure {
    let mut all = documents.problems.clone();
    all.extend(problems.iter().map(|p| documents.locate(p)));
    Failure::Invalid(sources::lines(all))
}

/// One line per resource, as `kubectl` writes them, then the revision.
pub(crate) fn print(changes: &[Change], revision: u64, dry_run: bool) -> Result<(), Failure> {
    let suffix = if dry_run { " (dry run)" } else { "" };
    let mut text = String::new();
    for change in changes {
        text.push_str(&format!(
            "{} {}{suffix}\n",
            name(change),
            verb(change.action())
        ));
    }
    text.push_str(&format!("revision {revision}{suffix}\n"));
    output::data(&text)
}

/// `backend/files`.
pub(crate) fn name(change: &Change) -> String {
    let key = change.key.clone().unwrap_or_default();
    Key::from_wire(&key).map_or_else(
        || format!("{}/{}", key.kind, key.name),
        |key| kinds::slashed(&key),
    )
}

/// What happened, in one word.
pub(crate) const fn verb(action: Action) -> &'static str {
    match action {
        Action::Created => "created",
        Action::Configured => "configured",
        Action::Deleted => "deleted",
        Action::Unchanged => "unchanged",
        Action::Unspecified => "handled",
    }
}
