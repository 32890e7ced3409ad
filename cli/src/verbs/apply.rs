//! `mcpctl apply`: files -> one revision, and who serves it.

use clap::Args;
use fleet_proto::key::Key;

use crate::{
    args::{AdminFlags, FileFlags, WriteFlags},
    change::{self, How},
    client,
    failure::Failure,
    sources, wait,
};

/// Flags of `apply`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    write: WriteFlags,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Applies.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let paths = flags.files.files;
    let documents = sources::documents(&sources::read(&paths)?);
    sources::require_some(&documents, &paths)?;
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
    let done = change::submit(&mut client, &documents, &how).await?;
    change::print(&done.changes, done.revision, how.dry_run)?;
    if !write.wait || how.dry_run {
        return Ok(());
    }
    let keys: Vec<Key> = documents.resources().iter().filter_map(Key::of).collect();
    wait::until_served(
        &mut client,
        wait::Wanted {
            revision: done.revision,
            keys: &keys,
            timeout: write.timeout,
        },
    )
    .await
}

fn own_problems(documents: &fleet_proto::read::Documents) -> Option<Failure> {
    (!documents.problems.is_empty()).then(|| change::located(documents, &[]))
}
