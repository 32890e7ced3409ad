//! `mcpctl revisions`: the history, newest first.

use clap::Args;
use fleet_proto::v1::{Revision, RevisionsRequest};

use crate::{
    args::AdminFlags,
    client, clock,
    failure::Failure,
    output::{self, Listing},
};

/// Flags of `revisions`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// At most this many.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,
    /// How to show them.
    #[arg(long, short, value_enum, default_value_t = Listing::Table)]
    pub(super) output: Listing,
    #[command(flatten)]
    pub(super) admin: AdminFlags,
}

/// Shows them.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let mut client = client::connect(&flags.admin.resolve()?).await?;
    let answer = client
        .revisions(RevisionsRequest { limit: flags.limit })
        .await?
        .into_inner();
    if answer.revisions.is_empty() {
        output::note("nothing has been written yet");
    }
    output::data(&output::listing(
        flags.output,
        &answer,
        &answer.revisions,
        |revision| revision.number.to_string(),
        table,
    )?)
}

fn table(revisions: &[Revision], wide: bool) -> String {
    let mut head = vec!["REVISION", "CREATED", "AUTHOR", "CHANGES", "MESSAGE"];
    if wide {
        head.push("ROOT HASH");
    }
    let row = |r: &Revision| {
        let mut cells = vec![
            r.number.to_string(),
            clock::rfc3339(r.created_ms),
            r.author.clone(),
            format!("+{} ~{} -{}", r.created, r.configured, r.deleted),
            r.message.clone(),
        ];
        if wide {
            cells.push(r.root_hash.iter().map(|b| format!("{b:02x}")).collect());
        }
        cells
    };
    output::table(&head, &revisions.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_one_line() {
        let revision = Revision {
            number: 3,
            root_hash: vec![0xab, 0x01],
            author: "admin".to_owned(),
            message: "why\nnot".to_owned(),
            created: 2,
            deleted: 1,
            ..Default::default()
        };
        assert_eq!(
            table(&[revision], true),
            "REVISION   CREATED                AUTHOR   CHANGES    MESSAGE   ROOT HASH\n\
             3          1970-01-01T00:00:00Z   admin    +2 ~0 -1   why not   ab01\n"
        );
    }
}
