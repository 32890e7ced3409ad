//! `mcpctl token`: who may use the API, and what for.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use fleet_proto::v1::{
    CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, Token, TokenRole,
};

use crate::{
    args::{self, AdminFlags},
    client, clock,
    failure::Failure,
    output::{self, Listing},
};

/// Flags of `token`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
enum What {
    /// Make a token and print it, once.
    Create {
        /// Its name: the author of what is written with it.
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        role: Role,
        /// Only in this project. May be repeated; left out: in all.
        #[arg(long = "project", short, value_name = "NAME")]
        projects: Vec<String>,
        /// How long it is good for. Left out: until it is revoked.
        #[arg(long, value_name = "DURATION", value_parser = args::duration)]
        expires: Option<Duration>,
        #[command(flatten)]
        admin: AdminFlags,
    },
    /// List the tokens that are good; never their values.
    List {
        /// Also those that are revoked or expired.
        #[arg(long, short)]
        all: bool,
        /// How to show them.
        #[arg(long, short, value_enum, default_value_t = Listing::Table)]
        output: Listing,
        #[command(flatten)]
        admin: AdminFlags,
    },
    /// Make a token void from now on.
    Revoke {
        /// Its name.
        name: String,
        #[command(flatten)]
        admin: AdminFlags,
    },
}

/// What a token may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Read configuration, revisions, nodes and the audit log.
    Viewer,
    /// Also write configuration.
    Editor,
    /// Also make and revoke tokens.
    Admin,
}

impl From<Role> for TokenRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Editor => Self::Editor,
            Role::Admin => Self::Admin,
        }
    }
}

/// The word for a role.
pub(crate) const fn role_word(role: TokenRole) -> &'static str {
    match role {
        TokenRole::Unspecified => "no role",
        TokenRole::Viewer => "viewer",
        TokenRole::Editor => "editor",
        TokenRole::Admin => "admin",
    }
}

/// Does it.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    match flags.what {
        What::Create {
            name,
            role,
            projects,
            expires,
            admin,
        } => {
            let request = CreateTokenRequest {
                name,
                role: TokenRole::from(role).into(),
                projects,
                expires_in: expires.map(to_wire),
            };
            let mut client = client::connect(&admin.resolve()?).await?;
            let made = client.create_token(request).await?.into_inner();
            output::note("note: this is the token; it is shown only now");
            output::data(&made.value)
        }
        What::List { all, output, admin } => {
            let mut client = client::connect(&admin.resolve()?).await?;
            let answer = client.list_tokens(ListTokensRequest { all }).await?;
            let tokens = answer.into_inner().tokens;
            if tokens.is_empty() {
                output::note("no token has been made: see `mcpctl token create`");
            }
            let table = |tokens: &[Token], wide| table(tokens, wide, clock::now_ms());
            output::data(&output::listing(
                output,
                &tokens,
                &tokens,
                |token| token.name.clone(),
                table,
            )?)
        }
        What::Revoke { name, admin } => {
            let mut client = client::connect(&admin.resolve()?).await?;
            let request = RevokeTokenRequest { name: name.clone() };
            client.revoke_token(request).await?;
            output::data(&format!("token {name} revoked"))
        }
    }
}

/// A length for a request.
pub(crate) fn to_wire(length: Duration) -> fleet_proto::duration::Duration {
    let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    fleet_proto::duration::Duration::from_millis(millis)
}

fn table(tokens: &[Token], wide: bool, now: u64) -> String {
    let mut head = vec!["NAME", "ROLE", "PROJECTS", "CREATED", "EXPIRES", "STATE"];
    if wide {
        head.extend(["CREATED BY", "ID"]);
    }
    let row = |t: &Token| {
        let state = match (t.revoked_ms, t.expires_ms) {
            (1.., _) => "revoked",
            (0, 1..) if t.expires_ms <= now => "expired",
            _ => "good",
        };
        let projects = match t.projects.is_empty() {
            true => "*".to_owned(),
            false => t.projects.join(","),
        };
        let expires = match t.expires_ms {
            0 => "never".to_owned(),
            ms => clock::rfc3339(ms),
        };
        let mut cells = vec![
            t.name.clone(),
            role_word(t.role()).to_owned(),
            projects,
            clock::rfc3339(t.created_ms),
            expires,
            state.to_owned(),
        ];
        if wide {
            cells.extend([t.created_by.clone(), t.id.clone()]);
        }
        cells
    };
    output::table(&head, &tokens.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bench::Bench,
        client::{Client, ControlPlane},
    };

    #[test]
    fn a_token_is_one_line_that_says_whether_it_is_good() {
        let token = |name: &str, expires_ms, revoked_ms| Token {
            name: name.to_owned(),
            role: TokenRole::Editor.into(),
            expires_ms,
            revoked_ms,
            ..Token::default()
        };
        let tokens = [
            token("ci", 0, 0),
            token("old", 1_000, 0),
            token("lost", 9_000, 1),
        ];
        assert_eq!(
            table(&tokens, false, 5_000),
            "NAME   ROLE     PROJECTS   CREATED                EXPIRES                STATE\n\
             ci     editor   *          1970-01-01T00:00:00Z   never                  good\n\
             old    editor   *          1970-01-01T00:00:00Z   1970-01-01T00:00:01Z   expired\n\
             lost   editor   *          1970-01-01T00:00:00Z   1970-01-01T00:00:09Z   revoked\n"
        );
    }

    async fn client_of(bench: &Bench, token: &str) -> Client {
        let target = ControlPlane {
            token: token.to_owned(),
            ..bench.target.clone()
        };
        client::connect(&target).await.unwrap()
    }

    #[tokio::test]
    async fn a_viewer_cannot_write_and_a_revoked_token_nothing() {
        let mut bench = Bench::new().await;
        let request = CreateTokenRequest {
            name: "eyes".to_owned(),
            role: TokenRole::from(Role::Viewer).into(),
            ..CreateTokenRequest::default()
        };
        let made = bench.client.create_token(request).await.unwrap();
        let mut eyes = client_of(&bench, &made.into_inner().value).await;
        eyes.nodes(fleet_proto::v1::NodesRequest {}).await.unwrap();
        let write = fleet_proto::v1::ApplyRequest::default();
        let refused = Failure::from(eyes.apply(write).await.unwrap_err());
        assert_eq!(refused.exit_code(), 7);
        let request = RevokeTokenRequest {
            name: "eyes".to_owned(),
        };
        bench.client.revoke_token(request).await.unwrap();
        let refused = eyes.nodes(fleet_proto::v1::NodesRequest {}).await;
        assert_eq!(Failure::from(refused.unwrap_err()).exit_code(), 7);
        drop(eyes);
        bench.stop().await;
    }
}
