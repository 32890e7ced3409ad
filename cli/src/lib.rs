//! `mcpctl`: the command line of mcp-fleet, as a library so that tests can embed it.
//!
//! In the order in which a command meets them: `args` (what was asked), `verbs`
//! (one file each), then what verbs share: `context` (where the control plane
//! is), `client` (how to speak to it), `trust` (who it says it is), `sources` (files),
//! `kinds` (names), `model` (what kinds hold), `hide` (what is not shown), `values` (what
//! Secrets hold),
//! `change`, `applyset` and `wait` (writing, and who serves it), `mcp` (speaking to a
//! gateway), `output`, `clock` and `failure` (what people and scripts see).
//! [`demo`] is the MCP server that the quickstart uses.

mod applyset;
mod args;
#[cfg(test)]
mod bench;
mod change;
mod client;
mod clock;
mod context;
pub mod demo;
mod failure;
mod hide;
mod kinds;
#[cfg(test)]
mod manual;
mod mcp;
mod model;
mod output;
mod sources;
mod trust;
mod values;
mod verbs;
mod wait;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::failure::Failure;

/// Runs the command line of this process and returns its exit code.
///
/// A binary that embeds this must first call
/// [`guard::main_if_asked`](mcp_dataplane::upstream::guard::main_if_asked).
#[must_use]
pub fn main() -> ExitCode {
    // Prints help and version itself; a usage error exits with 2.
    let cli = args::Cli::parse();
    start_logging(cli.log.as_deref(), cli.verb.log_filter());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            output::note(&format!("error: cannot start the runtime: {e}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(cli.verb.run());
    // A blocking read of stdin must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    let text = failure.to_string();
    if !text.is_empty() {
        output::note(&text);
    }
    ExitCode::from(failure.exit_code())
}

/// Logs go to stderr: `--log`, else `RUST_LOG`, else what the verb likes.
fn start_logging(given: Option<&str>, default: &str) {
    let filter = given
        .filter(|f| !f.is_empty())
        .map(EnvFilter::new)
        .or_else(|| EnvFilter::try_from_default_env().ok())
        .unwrap_or_else(|| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    // An embedding test may have installed its own.
    let _ = builder
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .finish()
        .with(mcp_dataplane::logs::Tap)
        .try_init();
}
