//! The file is the truth for what it declared: new and changed documents are
//! written, documents that are gone from it are deleted, and whatever else is
//! stored stays.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use fleet_proto::{
    key::Key,
    v1::{Action, Change, DeleteRequest},
};
use tonic::Code;

use super::places::Places;
use crate::{
    change::{self, How},
    client::Client,
    failure::Failure,
    sources::{self, Source},
};

/// What declaring a file did.
#[derive(Debug)]
pub(crate) struct Declared {
    /// The revision that holds the result.
    pub(crate) revision: u64,
    /// What was not as declared before.
    pub(crate) changes: Vec<Change>,
    /// Everything the file declares.
    pub(crate) keys: Vec<Key>,
}

/// Makes the store hold what the file says.
///
/// # Errors
/// `Invalid` with every problem at its place; nothing is changed then.
pub(crate) async fn declare(
    client: &mut Client,
    places: &Places,
    path: &Path,
    sources: &[Source],
) -> Result<Declared, Failure> {
    let documents = sources::documents(sources);
    sources::require_some(&documents, &[PathBuf::from(path)])?;
    let keys: Vec<Key> = documents
        .documents
        .iter()
        .filter_map(|d| Key::of(&d.resource))
        .collect();
    let declared: BTreeSet<&Key> = keys.iter().collect();

    let stored = change::stored(client).await?;
    let present: BTreeSet<Key> = stored.iter().filter_map(Key::of).collect();
    let before = places.declared()?;
    let gone: Vec<Key> = before
        .iter()
        .filter(|k| !declared.contains(k) && present.contains(k))
        .cloned()
        .collect();
    let kept = stored
        .into_iter()
        .filter(|r| Key::of(r).is_none_or(|key| !gone.contains(&key)))
        .collect();
    change::check_with(&documents, kept)?;

    // Both sets, until the change is done: after a crash nothing is forgotten.
    places.declare(before.iter().chain(keys.iter()).collect::<BTreeSet<_>>())?;
    let how = How {
        message: format!("mcpctl up -f {}", path.display()),
        ..How::default()
    };
    let (mut changes, mut revision) = (Vec::new(), 0);
    // A document that takes the place of a removed one (its path, say) fits in
    // only after the removal.
    let after = match client.apply(change::request(&documents, &how)).await {
        Err(status) if status.code() == Code::InvalidArgument && !gone.is_empty() => {
            revision = delete(client, &gone, &how, &mut changes).await?;
            client.apply(change::request(&documents, &how)).await?
        }
        answer => answer?,
    }
    .into_inner();
    changes.extend(after.changes);
    if revision == 0 && !gone.is_empty() {
        revision = delete(client, &gone, &how, &mut changes).await?;
    }
    places.declare(&keys)?;
    changes.retain(|c| c.action() != Action::Unchanged);
    Ok(Declared {
        revision: revision.max(after.revision),
        changes,
        keys,
    })
}

async fn delete(
    client: &mut Client,
    keys: &[Key],
    how: &How,
    changes: &mut Vec<Change>,
) -> Result<u64, Failure> {
    let request = DeleteRequest {
        keys: keys.iter().map(Key::to_wire).collect(),
        message: how.message.clone(),
        ..DeleteRequest::default()
    };
    let done = client.delete(request).await?.into_inner();
    changes.extend(done.changes);
    Ok(done.revision)
}
