//! `mcpctl connect`: a gateway as an MCP server on stdin and stdout.

use clap::Args;
use tokio::{
    io::{BufReader, stdin, stdout},
    signal::unix::{SignalKind, signal},
};

use crate::{args::GatewayFlags, failure::Failure, mcp::Bridge};

/// Flags of `connect`.
#[derive(Debug, Args)]
#[command(after_help = "\
For a client that only starts MCP servers, such as:

  {\"mcpServers\": {\"fleet\": {\"command\": \"mcpctl\", \"args\": [\"connect\", \"http://127.0.0.1:8080/mcp\"]}}}

Which revision of MCP they speak, and how long they wait, is between client and gateway: --protocol and --timeout have
no meaning here.")]
pub(crate) struct Flags {
    /// MCP endpoint of the gateway; otherwise that of the context file.
    #[arg(value_name = "GATEWAY-URL", conflicts_with = "url")]
    gateway: Option<String>,
    #[command(flatten)]
    target: GatewayFlags,
}

/// Bridges until stdin ends.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let target = flags.target.resolve(flags.gateway)?;
    let bridge = Bridge::new(&target, stdout())?;
    let mut ended =
        signal(SignalKind::terminate()).map_err(|error| Failure::other(error.to_string()))?;
    let mut broken =
        signal(SignalKind::interrupt()).map_err(|error| Failure::other(error.to_string()))?;
    let stop = async {
        tokio::select! {
            _ = ended.recv() => {}
            _ = broken.recv() => {}
        }
    };
    let done = bridge.run(BufReader::new(stdin()), stop).await;
    done.map_err(|error| Failure::other(format!("cannot read stdin: {error}")))
}
