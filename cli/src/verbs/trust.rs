//! `mcpctl trust`: the CA that the certificates of a fleet are of.

use clap::Args;
use fleet_proto::v1::GetTrustRequest;

use crate::{args::AdminFlags, client, failure::Failure, output};

/// Flags of `trust`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    admin: AdminFlags,
}

/// Shows it.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let mut client = client::identity(&flags.admin.resolve()?).await?;
    let trust = client.get_trust(GetTrustRequest {}).await?.into_inner();
    output::note(&format!("SHA-256 {}", trust.ca_sha256));
    output::data(trust.ca_pem.trim_end())
}
