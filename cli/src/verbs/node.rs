//! `mcpctl node`: which data planes may join, and which are let in no longer.

use std::time::Duration;

use clap::{Args, Subcommand};
use fleet_proto::v1::{
    CreateJoinTokenRequest, JoinToken, ListJoinTokensRequest, RevokeJoinTokenRequest,
    RevokeNodeRequest,
};

use super::token::to_wire;
use crate::{
    args::{self, AdminFlags},
    client, clock,
    failure::Failure,
    output::{self, Listing},
};

/// Flags of `node`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum What {
    /// Make a token with which one data plane can join, and print it, once.
    JoinToken {
        /// The node that may use it; it may have joined before. Left out: any that has not.
        #[arg(long, value_name = "ID")]
        node_id: Option<String>,
        /// How long it is good for, at most 168h.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = args::duration)]
        expires: Duration,
        #[command(flatten)]
        admin: AdminFlags,
    },
    /// List the join tokens that can be used; never their values.
    JoinTokens {
        /// Also those that are used, revoked or expired.
        #[arg(long, short)]
        all: bool,
        /// How to show them.
        #[arg(long, short, value_enum, default_value_t = Listing::Table)]
        output: Listing,
        #[command(flatten)]
        admin: AdminFlags,
    },
    /// Make a join token void.
    RevokeJoinToken {
        /// Its id, as in the list.
        id: String,
        #[command(flatten)]
        admin: AdminFlags,
    },
    /// Make the certificates of a data plane void and end its streams. It may join again, with a
    /// new join token.
    Revoke {
        /// The node's id, as in `mcpctl nodes`.
        node_id: String,
        #[command(flatten)]
        admin: AdminFlags,
    },
}

/// Does it.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    match flags.what {
        What::JoinToken {
            node_id,
            expires,
            admin,
        } => {
            let request = CreateJoinTokenRequest {
                node_id: node_id.unwrap_or_default(),
                expires_in: Some(to_wire(expires)),
            };
            let mut client = client::identity(&admin.resolve()?).await?;
            let made = client.create_join_token(request).await?.into_inner();
            let token = made.token.unwrap_or_default();
            output::note(&format!(
                "note: this is join token {} for {}, good once until {}; it is shown only now",
                token.id,
                whose(&token),
                clock::rfc3339(token.expires_ms)
            ));
            output::data(&made.value)
        }
        What::JoinTokens { all, output, admin } => {
            let mut client = client::identity(&admin.resolve()?).await?;
            let answer = client
                .list_join_tokens(ListJoinTokensRequest { all })
                .await?;
            let tokens = answer.into_inner().tokens;
            if tokens.is_empty() {
                output::note("there is no join token: see `mcpctl node join-token`");
            }
            let table = |tokens: &[JoinToken], wide| table(tokens, wide, clock::now_ms());
            output::data(&output::listing(
                output,
                &tokens,
                &tokens,
                |token| token.id.clone(),
                table,
            )?)
        }
        What::RevokeJoinToken { id, admin } => {
            let mut client = client::identity(&admin.resolve()?).await?;
            let request = RevokeJoinTokenRequest { id: id.clone() };
            client.revoke_join_token(request).await?;
            output::data(&format!("join token {id} revoked"))
        }
        What::Revoke { node_id, admin } => {
            let mut client = client::identity(&admin.resolve()?).await?;
            let request = RevokeNodeRequest {
                node_id: node_id.clone(),
            };
            let revoked = client.revoke_node(request).await?.into_inner();
            let count = revoked.certificates;
            output::data(&format!(
                "node {node_id} revoked ({count} certificate{} had not expired)",
                if count == 1 { "" } else { "s" }
            ))
        }
    }
}

fn whose(token: &JoinToken) -> String {
    match token.node_id.as_str() {
        "" => "any new node".to_owned(),
        node_id => format!("node {node_id}"),
    }
}

fn table(tokens: &[JoinToken], wide: bool, now: u64) -> String {
    let mut head = vec!["ID", "FOR", "CREATED", "EXPIRES", "STATE"];
    if wide {
        head.push("CREATED BY");
    }
    let row = |t: &JoinToken| {
        let state = match (t.revoked_ms, t.used_ms) {
            (1.., _) => "revoked".to_owned(),
            (0, 1..) => format!("used by {}", t.used_by),
            _ if t.expires_ms <= now => "expired".to_owned(),
            _ => "good".to_owned(),
        };
        let mut cells = vec![
            t.id.clone(),
            whose(t),
            clock::rfc3339(t.created_ms),
            clock::rfc3339(t.expires_ms),
            state,
        ];
        if wide {
            cells.push(t.created_by.clone());
        }
        cells
    };
    output::table(&head, &tokens.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    #[test]
    fn a_join_token_is_one_line_that_says_what_has_become_of_it() {
        let token = |id: &str, node_id: &str| JoinToken {
            id: id.to_owned(),
            node_id: node_id.to_owned(),
            expires_ms: 9_000,
            ..JoinToken::default()
        };
        let used = JoinToken {
            used_ms: 1,
            used_by: "n1".to_owned(),
            ..token("b", "")
        };
        let revoked = JoinToken {
            revoked_ms: 1,
            ..token("c", "n1")
        };
        let tokens = [token("a", ""), used, revoked];
        assert_eq!(
            table(&tokens, false, 5_000),
            "ID   FOR            CREATED                EXPIRES                STATE\n\
             a    any new node   1970-01-01T00:00:00Z   1970-01-01T00:00:09Z   good\n\
             b    any new node   1970-01-01T00:00:00Z   1970-01-01T00:00:09Z   used by n1\n\
             c    node n1        1970-01-01T00:00:00Z   1970-01-01T00:00:09Z   revoked\n"
        );
        assert!(table(&tokens[..1], false, 9_000).ends_with("expired\n"));
    }

    #[tokio::test]
    async fn without_tls_a_join_token_is_refused_with_what_to_do() {
        let bench = Bench::new().await;
        let mut client = client::identity(&bench.target).await.unwrap();
        let request = CreateJoinTokenRequest::default();
        let refused = client.create_join_token(request).await.unwrap_err();
        assert!(refused.message().contains("--tls-name"), "{refused}");
        drop(client);
        bench.stop().await;
    }
}
