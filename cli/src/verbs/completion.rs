//! `mcpctl completion`: a script for a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::{args::Cli, failure::Failure, output};

/// Flags of `completion`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// The shell.
    shell: Shell,
}

/// Prints it.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(flags.shell, &mut Cli::command(), "mcpctl", &mut script);
    output::data(&String::from_utf8_lossy(&script))
}
