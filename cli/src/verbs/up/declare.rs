//! The file is the truth for what it declared: new and changed documents are
//! written, documents that are gone from it are deleted, and whatever else is
//! stored stays.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use fleet_proto::{
    key::Key,
    v1::{Action, ApplyRequest, ApplyResponse, Change, DeleteRequest, Resource, resource},
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
    let (leaving, kept): (Vec<Resource>, Vec<Resource>) = stored
        .into_iter()
        .partition(|r| Key::of(r).is_some_and(|key| gone.contains(&key)));
    change::check_with(&documents, kept)?;

    // Both sets, until the change is done: after a crash nothing is forgotten.
    places.declare(before.iter().chain(keys.iter()).collect::<BTreeSet<_>>())?;
    let how = How {
        message: format!("mcpctl up -f {}", path.display()),
        ..How::default()
    };
    let request = change::request(&documents, &how);
    let after = match client.apply(request.clone()).await {
        Err(status) if status.code() == Code::InvalidArgument && !leaving.is_empty() => {
            apply_beside(client, request, leaving).await?
        }
        answer => answer?.into_inner(),
    };
    let (mut changes, mut revision) = (after.changes, after.revision);
    if !gone.is_empty() {
        let request = DeleteRequest {
            keys: gone.iter().map(Key::to_wire).collect(),
            message: how.message.clone(),
            ..DeleteRequest::default()
        };
        let done = client.delete(request).await?.into_inner();
        changes.extend(done.changes);
        revision = done.revision;
    }
    places.declare(&keys)?;
    changes.retain(|c| c.action() != Action::Unchanged);
    Ok(Declared {
        revision,
        changes,
        keys,
    })
}

/// Applies documents of which one takes the path of a gateway that is to go.
/// Deleting that one first could leave no gateway for a moment, which means an
/// open one: it steps aside instead, with its policy.
async fn apply_beside(
    client: &mut Client,
    request: ApplyRequest,
    leaving: Vec<Resource>,
) -> Result<ApplyResponse, Failure> {
    let gateways: Vec<Resource> = leaving
        .into_iter()
        .filter(|r| matches!(r.kind, Some(resource::Kind::Gateway(_))))
        .collect();
    let write = |resources| ApplyRequest {
        resources,
        message: request.message.clone(),
        ..ApplyRequest::default()
    };
    client
        .apply(write(gateways.iter().cloned().map(aside).collect()))
        .await?;
    match client.apply(request.clone()).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => {
            // Where they were; the reason for all this matters more than a failure here.
            let _ = client.apply(write(gateways)).await;
            Err(status.into())
        }
    }
}

/// A gateway at a path of its own.
fn aside(mut resource: Resource) -> Resource {
    if let Some(resource::Kind::Gateway(gateway)) = &mut resource.kind {
        gateway.path = format!("/mcpctl-removing/{}/{}", gateway.project, gateway.name);
    }
    resource
}
