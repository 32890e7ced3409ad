//! The command line: the tree of verbs. `flags` has what several of them share.

mod flags;

use clap::{Parser, Subcommand};

pub(crate) use self::flags::{
    AdminFlags, FileFlags, GatewayFlags, WaitFlags, WriteFlags, duration, no_context, percent,
    read_ca, read_contexts,
};
use crate::{
    failure::Failure,
    verbs::{
        apply, call, completion, connect, context, delete, demo_server, describe, diff, edit,
        explain, export, get, history, login, logs, node, nodes, prompts, resources, revisions,
        revoke, rollback, schema, secret, session_keys, status, token, tools, trust, up, validate,
        version, wait,
    },
};

/// One endpoint for many MCP servers.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 invalid configuration,
/// 4 conflict, 5 timed out waiting, 6 refused by a node, 7 not allowed,
/// 8 unreachable.
#[derive(Debug, Parser)]
#[command(
    name = "mcpctl",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// What to log to stderr, such as `info` or `mcp_dataplane=debug`.
    #[arg(long, global = true, value_name = "FILTER", env = "MCP_FLEET_LOG")]
    pub(crate) log: Option<String>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run everything on this machine: control plane and data plane in one process.
    Up(up::Flags),
    /// Write the resources of files to the control plane, as one revision.
    Apply(apply::Flags),
    /// Show what `apply` would change. Exits with 0: nothing, 1: something, 2: it failed.
    Diff(diff::Flags),
    /// Check files without a control plane.
    Validate(validate::Flags),
    /// Show resources.
    Get(get::Flags),
    /// Show resources in full, who uses them, and how they do on the data planes; or a data plane.
    Describe(describe::Flags),
    /// Edit a resource in $VISUAL or $EDITOR.
    Edit(edit::Flags),
    /// Remove resources.
    Delete(delete::Flags),
    /// Write everything that is stored as files take it.
    Export(export::Flags),
    /// Say what a kind, or a field of it, means.
    Explain(explain::Flags),
    /// Print the JSON Schema of documents, for editors.
    Schema(schema::Flags),
    /// Show the revisions, newest first, or who changed a resource.
    History(history::Flags),
    /// Show the revisions, newest first.
    Revisions(revisions::Flags),
    /// Make the state of an older revision the newest one.
    Rollback(rollback::Flags),
    /// Show the fleet on one screen.
    Status(status::Flags),
    /// Show the data planes and what each of them serves.
    Nodes(nodes::Flags),
    /// Follow the log of a data plane.
    Logs(logs::Flags),
    /// Let data planes join with a certificate of their own, and keep them out again.
    Node(node::Flags),
    /// Wait until the data planes serve a revision in full.
    Wait(wait::Flags),
    /// List the tools that a gateway offers.
    Tools(tools::Flags),
    /// Call a tool through a gateway.
    Call(call::Flags),
    /// List the resources that a gateway offers.
    Resources(resources::ListFlags),
    /// Read a resource through a gateway.
    Read(resources::ReadFlags),
    /// List the prompts that a gateway offers.
    Prompts(prompts::ListFlags),
    /// Get a prompt through a gateway.
    Prompt(prompts::GetFlags),
    /// Give a client that speaks MCP over stdio a gateway.
    Connect(connect::Flags),
    /// Save the address and the token of a control plane as a context.
    Login(login::Flags),
    /// List, choose, show and forget contexts.
    Context(context::Flags),
    /// Make, list and revoke tokens for the control plane.
    Token(token::Flags),
    /// Print the CA of the fleet, for --ca-file and for data planes.
    Trust(trust::Flags),
    /// Write values that backends need and nobody is to read.
    Secret(secret::Flags),
    /// Refuse a client's bearer token from now on, everywhere.
    Revoke(revoke::Flags),
    /// Take a revocation back.
    Unrevoke(revoke::BackFlags),
    /// Show the tokens that are revoked, newest first.
    Revocations(revoke::ListFlags),
    /// Rotate the keys of sessions.
    SessionKeys(session_keys::Flags),
    /// Run a small MCP server to try things with.
    DemoServer(demo_server::Flags),
    /// Print a completion script for a shell.
    Completion(completion::Flags),
    /// Print the version.
    Version,
}

impl Verb {
    /// What it logs when nothing else is said.
    pub(crate) const fn log_filter(&self) -> &'static str {
        match self {
            // It says itself what does not work on its node.
            Self::Up(_) => "warn,mcp_dataplane::table=error,mcp_controlplane::sync=error",
            _ => "warn",
        }
    }

    /// Does it.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        // Boxed: a verb's state would be as large as that of the largest.
        match self {
            Self::Up(flags) => Box::pin(up::run(flags)).await,
            Self::Apply(flags) => Box::pin(apply::run(flags)).await,
            Self::Diff(flags) => Box::pin(diff::run(flags)).await,
            Self::Validate(flags) => validate::run(&flags),
            Self::Get(flags) => Box::pin(get::run(flags)).await,
            Self::Describe(flags) => Box::pin(describe::run(flags)).await,
            Self::Edit(flags) => Box::pin(edit::run(flags)).await,
            Self::Delete(flags) => Box::pin(delete::run(flags)).await,
            Self::Export(flags) => Box::pin(export::run(flags)).await,
            Self::Explain(flags) => explain::run(&flags),
            Self::Schema(flags) => schema::run(&flags),
            Self::History(flags) => Box::pin(history::run(flags)).await,
            Self::Revisions(flags) => Box::pin(revisions::run(flags)).await,
            Self::Rollback(flags) => Box::pin(rollback::run(flags)).await,
            Self::Status(flags) => Box::pin(status::run(flags)).await,
            Self::Nodes(flags) => Box::pin(nodes::run(flags)).await,
            Self::Logs(flags) => Box::pin(logs::run(flags)).await,
            Self::Node(flags) => Box::pin(node::run(flags)).await,
            Self::Wait(flags) => Box::pin(wait::run(flags)).await,
            Self::Tools(flags) => Box::pin(tools::run(flags)).await,
            Self::Call(flags) => Box::pin(call::run(flags)).await,
            Self::Resources(flags) => Box::pin(resources::list(flags)).await,
            Self::Read(flags) => Box::pin(resources::read(flags)).await,
            Self::Prompts(flags) => Box::pin(prompts::list(flags)).await,
            Self::Prompt(flags) => Box::pin(prompts::get(flags)).await,
            Self::Connect(flags) => Box::pin(connect::run(flags)).await,
            Self::Login(flags) => Box::pin(login::run(flags)).await,
            Self::Context(flags) => context::run(flags),
            Self::Token(flags) => Box::pin(token::run(flags)).await,
            Self::Trust(flags) => Box::pin(trust::run(flags)).await,
            Self::Secret(flags) => Box::pin(secret::run(flags)).await,
            Self::Revoke(flags) => Box::pin(revoke::revoke(flags)).await,
            Self::Unrevoke(flags) => Box::pin(revoke::unrevoke(flags)).await,
            Self::Revocations(flags) => Box::pin(revoke::list(flags)).await,
            Self::SessionKeys(flags) => Box::pin(session_keys::run(flags)).await,
            Self::DemoServer(flags) => Box::pin(demo_server::run(flags)).await,
            Self::Completion(flags) => completion::run(&flags),
            Self::Version => version::run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_of_verbs_holds_together() {
        Cli::command().debug_assert();
    }
}
