//! `mcpctl demo-server`: a small MCP server to try things with.

use std::net::SocketAddr;

use clap::Args;

use crate::{demo, failure::Failure, output};

/// Flags of `demo-server`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Flags {
    /// Speak MCP over stdin and stdout.
    #[arg(long)]
    stdio: bool,
    /// Serve streamable HTTP at `/mcp` of this loopback address; port 0: a free one. Prints the URL.
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddr>,
}

/// Serves until stdin ends, or until the process is told to stop.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let Some(address) = flags.http else {
        return demo::serve_stdio()
            .await
            .map_err(|e| Failure::other(format!("demo server: {e}")));
    };
    if !address.ip().is_loopback() {
        return Err(Failure::Usage(format!(
            "{address} is not a loopback address: the demo server asks for no token"
        )));
    }
    let server = demo::serve_http(address).await.map_err(|e| {
        Failure::other(format!(
            "cannot listen on {address}: {e}; choose another address with --http"
        ))
    })?;
    output::data(&server.url())?;
    server
        .finished()
        .await
        .map_err(|e| Failure::other(format!("demo server: {e}")))
}
