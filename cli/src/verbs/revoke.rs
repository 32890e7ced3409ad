//! `mcpctl revoke`, `unrevoke`, `revocations`: bearer tokens of clients that must
//! stop working at once.

use std::time::Duration;

use clap::Args;
use fleet_proto::{
    hash::Hash,
    v1::{ListRevocationsRequest, RevocationEntry, RevokeRequest, UnrevokeRequest},
};

use super::{secret::from_stdin, token::to_wire};
use crate::{
    args::{self, AdminFlags},
    client, clock,
    failure::Failure,
    output::{self, Listing},
};

/// What a hash begins with, and its digits.
const HASHED: &str = "sha256:";
/// Shortest token of an AuthPolicy.
const SHORTEST: usize = 8;

/// Which token.
#[derive(Debug, Args)]
struct Which {
    /// `sha256:` and 64 hex digits, as `describe` shows the tokens of a policy; or `-` for the
    /// token itself on stdin, of which only the hash leaves this machine.
    #[arg(value_name = "sha256:HASH|-")]
    given: String,
    /// In this project only; left out: in all.
    #[arg(long, short, value_name = "NAME", default_value = "")]
    project: String,
}

/// Flags of `revoke`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    which: Which,
    /// For how long. Left out: until it is taken back.
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    expires: Option<Duration>,
    /// Why; kept with the revocation.
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    message: String,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Flags of `unrevoke`.
#[derive(Debug, Args)]
pub(crate) struct BackFlags {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Flags of `revocations`.
#[derive(Debug, Args)]
pub(crate) struct ListFlags {
    /// How to show them.
    #[arg(long, short, value_enum, default_value_t = Listing::Table)]
    output: Listing,
    #[command(flatten)]
    admin: AdminFlags,
}

impl Which {
    /// The hash, for the request.
    fn bearer(&self) -> Result<String, Failure> {
        if self.given != "-" {
            return hashed(&self.given);
        }
        let token = from_stdin("the token")?;
        if token.starts_with(HASHED) {
            return hashed(&token);
        }
        if token.len() < SHORTEST {
            return Err(Failure::Usage(format!(
                "the token on stdin has fewer than {SHORTEST} characters, which none has"
            )));
        }
        Ok(format!("{HASHED}{}", Hash::of(token.as_bytes())))
    }
}

/// A hash as it is. What is none is not repeated: it may be a token.
fn hashed(text: &str) -> Result<String, Failure> {
    let is_hash = text
        .strip_prefix(HASHED)
        .is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if is_hash {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Failure::Usage(
        "the token must be given as `sha256:` and 64 hex digits, or as `-` and on stdin: other users \
         of this machine can read a command line"
            .to_owned(),
    ))
}

/// Revokes.
pub(crate) async fn revoke(flags: Flags) -> Result<(), Failure> {
    let target = flags.admin.resolve()?;
    let request = RevokeRequest {
        bearer: flags.which.bearer()?,
        project: flags.which.project,
        expires_in: flags.expires.map(to_wire),
        message: flags.message,
    };
    let mut client = client::security(&target).await?;
    let made = client.revoke(request).await?.into_inner();
    let entry = made.revocation.unwrap_or_default();
    output::data(&format!("{} revoked", entry.bearer))
}

/// Takes a revocation back.
pub(crate) async fn unrevoke(flags: BackFlags) -> Result<(), Failure> {
    let target = flags.admin.resolve()?;
    let bearer = flags.which.bearer()?;
    let request = UnrevokeRequest {
        bearer: bearer.clone(),
        project: flags.which.project,
    };
    let mut client = client::security(&target).await?;
    client.unrevoke(request).await?;
    output::data(&format!("{bearer} accepted again"))
}

/// Lists them.
pub(crate) async fn list(flags: ListFlags) -> Result<(), Failure> {
    let mut client = client::security(&flags.admin.resolve()?).await?;
    let answer = client.list_revocations(ListRevocationsRequest {}).await?;
    let entries = answer.into_inner().revocations;
    if entries.is_empty() {
        output::note("nothing is revoked");
    }
    output::data(&output::listing(
        flags.output,
        &entries,
        &entries,
        |entry| entry.bearer.clone(),
        |entries, _| table(entries),
    )?)
}

fn table(entries: &[RevocationEntry]) -> String {
    let head = ["TOKEN", "PROJECT", "REVOKED", "BY", "UNTIL", "MESSAGE"];
    let row = |entry: &RevocationEntry| {
        vec![
            entry.bearer.clone(),
            if entry.project.is_empty() {
                "*".to_owned()
            } else {
                entry.project.clone()
            },
            clock::rfc3339(entry.created_ms),
            entry.created_by.clone(),
            match entry.until_ms {
                0 => "taken back".to_owned(),
                until => clock::rfc3339(until),
            },
            entry.message.clone(),
        ]
    };
    output::table(&head, &entries.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_on_the_command_line_is_refused_without_repeating_it() {
        let digits = "A1".repeat(32);
        assert_eq!(
            hashed(&format!("sha256:{digits}")).unwrap(),
            format!("sha256:{}", digits.to_lowercase())
        );
        for bad in ["my-secret-token", "sha256:12", ""] {
            let failure = hashed(bad).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(bad.is_empty() || !failure.to_string().contains(bad));
        }
    }

    #[test]
    fn the_list_says_where_since_when_and_until_when() {
        let entry = RevocationEntry {
            bearer: "sha256:ab".to_owned(),
            created_by: "admin".to_owned(),
            message: "leaked".to_owned(),
            ..RevocationEntry::default()
        };
        assert_eq!(
            table(&[entry]),
            "TOKEN       PROJECT   REVOKED                BY      UNTIL        MESSAGE\n\
             sha256:ab   *         1970-01-01T00:00:00Z   admin   taken back   leaked\n"
        );
    }
}
