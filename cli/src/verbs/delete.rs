//! `mcpctl delete`: resources -> a revision without them.

use std::path::PathBuf;

use clap::Args;
use fleet_proto::{key::Key, v1::DeleteRequest};

use crate::{
    args::{AdminFlags, WriteFlags},
    change, client,
    failure::Failure,
    kinds::{self, Selection},
    sources,
};

/// Flags of `delete`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// `KIND NAME...` or `KIND/NAME...`, where KIND is backend, gateway or auth-policy.
    #[arg(
        value_name = "KIND NAME",
        required_unless_present = "files",
        conflicts_with = "files"
    )]
    what: Vec<String>,
    /// Remove what a file, a directory or `-` (stdin) describes. May be repeated.
    #[arg(short, long = "file", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Project of the names; `default` when left out.
    #[arg(long, short, value_name = "NAME")]
    project: Option<String>,
    #[command(flatten)]
    write: WriteFlags,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Deletes.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let keys = if flags.files.is_empty() {
        match kinds::select(&flags.what, flags.project.as_deref())? {
            Selection::Keys(keys) => keys,
            // Everything of a kind is too much to lose to a forgotten word.
            Selection::All | Selection::Kind(_) => {
                return Err(Failure::Usage(
                    "name what to delete: KIND NAME, or -f FILE".to_owned(),
                ));
            }
        }
    } else {
        keys_in(&flags.files)?
    };
    let mut client = client::connect(&flags.admin.resolve()?).await?;
    let write = flags.write;
    let request = DeleteRequest {
        keys: keys.iter().map(Key::to_wire).collect(),
        dry_run: write.dry_run,
        message: write.message,
        expect_revision: write.expect_revision,
    };
    let done = client.delete(request).await?.into_inner();
    change::print(&done.changes, done.revision, write.dry_run)?;
    if write.dry_run {
        return Ok(());
    }
    write
        .wait
        .until_served(&mut client, done.revision, &keys)
        .await
}

fn keys_in(files: &[PathBuf]) -> Result<Vec<Key>, Failure> {
    let documents = sources::documents(&sources::read(files)?);
    sources::require_some(&documents, files)?;
    if !documents.problems.is_empty() {
        return Err(change::located(&documents, &[]));
    }
    Ok(documents.resources().iter().filter_map(Key::of).collect())
}
