//! `mcpctl version`.

use crate::{failure::Failure, output};

/// Prints it.
pub(crate) fn run() -> Result<(), Failure> {
    output::data(concat!("mcpctl ", env!("CARGO_PKG_VERSION")))
}
