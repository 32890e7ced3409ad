//! `mcpctl wait`: until the data planes serve a revision in full.

use std::time::Duration;

use clap::Args;
use fleet_proto::v1::NodesRequest;

use crate::{
    args::{self, AdminFlags},
    client,
    failure::Failure,
    wait::{self, Wanted},
};

/// Flags of `wait`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// The revision, which need not be there yet. Left out: the newest one.
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// How many percent of the connected data planes must serve it.
    #[arg(long, value_name = "PERCENT", default_value = "100", value_parser = args::percent)]
    percent: u8,
    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = args::duration)]
    timeout: Duration,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Waits.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let mut client = client::connect(&flags.admin.resolve()?).await?;
    let revision = match flags.revision {
        Some(revision) => revision,
        None => client.nodes(NodesRequest {}).await?.into_inner().revision,
    };
    let wanted = Wanted {
        revision,
        secrets: 0,
        keys: None,
        percent: flags.percent,
        timeout: flags.timeout,
        progress: true,
    };
    wait::until_served(&mut client, wanted).await
}
