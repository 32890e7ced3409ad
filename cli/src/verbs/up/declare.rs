//! The file is the truth for what it declared: new and changed documents are
//! written, documents that are gone from it are deleted, and whatever else is
//! stored stays. All of that is one revision: no data plane ever serves a set
//! between two files, such as one without its gateway.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use fleet_proto::{
    key::Key,
    v1::{Action, Change},
};

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
    /// The version of the secrets that holds their new values; 0: there are none.
    pub(crate) secrets_version: u64,
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
    let before = places.declared()?;
    let gone = before.iter().filter(|k| !declared.contains(k));
    let how = How {
        message: format!("mcpctl up -f {}", path.display()),
        remove: gone.cloned().collect(),
        ..How::default()
    };

    // Both sets, until the change is done: after a crash nothing is forgotten.
    places.declare(before.iter().chain(&keys).collect::<BTreeSet<_>>())?;
    let done = match change::submit(client, &documents, &how).await {
        Err(refused @ Failure::Invalid(_)) => {
            places.declare(&before)?;
            return Err(refused);
        }
        done => done?,
    };
    places.declare(&keys)?;
    let mut changes = done.changes;
    changes.retain(|c| c.action() != Action::Unchanged);
    Ok(Declared {
        revision: done.revision,
        secrets_version: done.secrets_version,
        changes,
        keys,
    })
}
