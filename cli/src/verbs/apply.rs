//! `mcpctl apply`: files -> one revision, and who serves it.

use clap::Args;
use fleet_proto::{key::Key, read::Documents, v1::ApplyResponse};

use crate::{
    applyset,
    args::{AdminFlags, FileFlags, WriteFlags},
    change::{self, How},
    client::{self, Client},
    failure::Failure,
    sources,
};

/// How often a set is compared with the store again when others write meanwhile.
const ATTEMPTS: u32 = 10;

/// Flags of `apply`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    set: SetFlags,
    #[command(flatten)]
    write: WriteFlags,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Which set the files are.
#[derive(Debug, Args)]
pub(crate) struct SetFlags {
    /// Mark what is written as members of this set, with the label `mcp-fleet/applyset`.
    #[arg(long, value_name = "NAME", value_parser = applyset::name)]
    pub(crate) applyset: Option<String>,
    /// Remove members of the set that the files do not hold, in the same revision.
    #[arg(long, requires = "applyset")]
    pub(crate) prune: bool,
    /// Let files without any document prune the whole set.
    #[arg(long, requires = "prune")]
    pub(crate) allow_empty: bool,
}

impl SetFlags {
    /// Checks that there is something to do, and marks the documents.
    pub(crate) fn prepare(
        &self,
        documents: &mut Documents,
        files: &FileFlags,
    ) -> Result<(), Failure> {
        if !self.allow_empty {
            sources::require_some(documents, &files.files).map_err(|failure| match failure {
                Failure::Invalid(mut lines) if self.prune => {
                    lines.push("to prune the whole set, say --allow-empty".to_owned());
                    Failure::Invalid(lines)
                }
                other => other,
            })?;
        }
        match &self.applyset {
            Some(set) => applyset::mark(documents, set),
            None => Ok(()),
        }
    }
}

/// Applies.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let mut documents = sources::documents(&sources::read(&flags.files.files)?);
    flags.set.prepare(&mut documents, &flags.files)?;
    let target = match flags.admin.resolve() {
        Ok(target) => target,
        // Wrong files are wrong wherever they would have gone.
        Err(failure) => return Err(own_problems(&documents).unwrap_or(failure)),
    };
    let mut client = match client::connect(&target).await {
        Ok(client) => client,
        Err(failure) => return Err(own_problems(&documents).unwrap_or(failure)),
    };
    let write = flags.write;
    let how = How {
        dry_run: write.dry_run,
        message: write.message,
        expect_revision: write.expect_revision,
        remove: Vec::new(),
    };
    let dry_run = how.dry_run;
    let done = submit(&mut client, &documents, &flags.set, how).await?;
    change::print(&done.changes, done.revision, dry_run)?;
    if dry_run {
        return Ok(());
    }
    let keys: Vec<Key> = done
        .changes
        .iter()
        .filter_map(|c| Key::from_wire(c.key.as_ref()?))
        .collect();
    write.wait.until_applied(&mut client, &done, &keys).await
}

/// Writes the documents; what leaves a set leaves on top of exactly the revision
/// in which that was found out.
async fn submit(
    client: &mut Client,
    documents: &Documents,
    set: &SetFlags,
    mut how: How,
) -> Result<ApplyResponse, Failure> {
    let Some(name) = &set.applyset else {
        return change::submit(client, documents, &how).await;
    };
    // A set that cannot be read completely has lost no members.
    if let Some(failure) = own_problems(documents) {
        return Err(failure);
    }
    let expected = how.expect_revision;
    let mut attempt = 1;
    loop {
        let base = applyset::base(client, documents, name).await?;
        how.expect_revision = expected.or(Some(base.revision));
        how.remove = if set.prune { base.gone } else { Vec::new() };
        match change::submit(client, documents, &how).await {
            Err(Failure::Conflict(_)) if expected.is_none() && attempt < ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

fn own_problems(documents: &Documents) -> Option<Failure> {
    (!documents.problems.is_empty()).then(|| change::located(documents, &[]))
}

#[cfg(test)]
mod tests;
