//! `mcpctl validate`: files -> every problem, without a control plane.

use clap::Args;

use crate::{args::FileFlags, failure::Failure, output, sources};

/// Flags of `validate`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    files: FileFlags,
}

/// Validates.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    let documents = sources::documents(&sources::read(&flags.files.files)?);
    sources::require_some(&documents, &flags.files.files)?;
    match documents.check() {
        Ok((_, valid)) => output::data(&match valid.len() {
            1 => "1 resource is valid".to_owned(),
            n => format!("{n} resources are valid"),
        }),
        Err(problems) => Err(Failure::Invalid(
            problems.iter().map(ToString::to_string).collect(),
        )),
    }
}
