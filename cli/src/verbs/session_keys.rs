//! `mcpctl session-keys rotate`: a new key for session ids.

use clap::{Args, Subcommand};
use fleet_proto::v1::RotateSessionKeysRequest;

use crate::{args::AdminFlags, client, failure::Failure, output};

/// Flags of `session-keys`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

/// What to do with session keys.
#[derive(Debug, Subcommand)]
enum What {
    /// Make a new key. Every data plane gets it at once, and seals with it a few minutes later;
    /// sessions live on. The control plane does this by itself once a day.
    Rotate {
        /// Drop all keys that there were: every session ends at once. For keys that may have become
        /// known.
        #[arg(long)]
        end_sessions: bool,
        #[command(flatten)]
        admin: AdminFlags,
    },
}

/// Does it.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let What::Rotate {
        end_sessions,
        admin,
    } = flags.what;
    let mut client = client::security(&admin.resolve()?).await?;
    let request = RotateSessionKeysRequest { end_sessions };
    let done = client.rotate_session_keys(request).await?.into_inner();
    let what = if end_sessions {
        "all sessions end".to_owned()
    } else {
        format!("{} keys open sessions", done.keys)
    };
    output::data(&format!("session keys rotated: {what}"))
}
