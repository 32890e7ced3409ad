//! `mcpctl rollback`: the state of an older revision as the newest one.

use clap::Args;
use fleet_proto::{key::Key, v1::RollbackRequest};

use crate::{
    args::{AdminFlags, WriteFlags},
    change, client,
    failure::Failure,
};

/// Flags of `rollback`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// The revision to go back to; `mcpctl history` lists them.
    #[arg(value_name = "REVISION")]
    revision: u64,
    #[command(flatten)]
    write: WriteFlags,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Rolls back.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let mut client = client::connect(&flags.admin.resolve()?).await?;
    let write = flags.write;
    let request = RollbackRequest {
        revision: flags.revision,
        dry_run: write.dry_run,
        message: write.message,
        expect_revision: write.expect_revision,
    };
    let done = client.rollback(request).await?.into_inner();
    change::print(&done.changes, done.revision, write.dry_run)?;
    if write.dry_run {
        return Ok(());
    }
    let keys: Vec<Key> = done
        .changes
        .iter()
        .filter_map(|c| Key::from_wire(c.key.as_ref()?))
        .collect();
    write
        .wait
        .until_served(&mut client, done.revision, &keys)
        .await
}
