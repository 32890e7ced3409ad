//! The command line: the tree of verbs, and the flags that several of them share.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use fleet_proto::key::Key;

use crate::{
    client::{Client, ControlPlane},
    context::{self, Context, Contexts},
    failure::Failure,
    mcp::{Protocol, Target},
    verbs::{
        apply, call, completion, context as contexts, delete, demo_server, describe, diff, edit,
        explain, export, get, history, login, nodes, prompts, resources, revisions, rollback,
        schema, status, token, tools, up, validate, version, wait as waiting,
    },
    wait::{self, Wanted},
};

/// Where `up` and a control plane listen when nothing else is said.
const DEFAULT_CONTROL_PLANE: &str = "http://127.0.0.1:8182";
const DEFAULT_GATEWAY: &str = "http://127.0.0.1:8080/mcp";

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
    /// Show resources in full, who uses them, and how they do on the data planes.
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
    /// Wait until the data planes serve a revision in full.
    Wait(waiting::Flags),
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
    /// Save the address and the token of a control plane as a context.
    Login(login::Flags),
    /// List, choose, show and forget contexts.
    Context(contexts::Flags),
    /// Make, list and revoke tokens for the control plane.
    Token(token::Flags),
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
            Self::Wait(flags) => Box::pin(waiting::run(flags)).await,
            Self::Tools(flags) => Box::pin(tools::run(flags)).await,
            Self::Call(flags) => Box::pin(call::run(flags)).await,
            Self::Resources(flags) => Box::pin(resources::list(flags)).await,
            Self::Read(flags) => Box::pin(resources::read(flags)).await,
            Self::Prompts(flags) => Box::pin(prompts::list(flags)).await,
            Self::Prompt(flags) => Box::pin(prompts::get(flags)).await,
            Self::Login(flags) => Box::pin(login::run(flags)).await,
            Self::Context(flags) => contexts::run(flags),
            Self::Token(flags) => Box::pin(token::run(flags)).await,
            Self::DemoServer(flags) => Box::pin(demo_server::run(flags)).await,
            Self::Completion(flags) => completion::run(&flags),
            Self::Version => version::run(),
        }
    }
}

/// Which control plane.
#[derive(Debug, Args)]
pub(crate) struct AdminFlags {
    /// Take address and token from this context, whatever else says them; see `mcpctl context`.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// gRPC address of the control plane; otherwise that of the context file.
    #[arg(long, value_name = "URL", env = "MCP_FLEET_CONTROL_PLANE")]
    control_plane: Option<String>,
    /// Admin token; otherwise that of the context file.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "MCP_FLEET_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
}

impl AdminFlags {
    /// A named context; else flags and environment first, then the chosen context.
    pub(crate) fn resolve(self) -> Result<ControlPlane, Failure> {
        if let Some(name) = &self.context {
            return choose(None, None, load_context(Some(name))?);
        }
        let (url, token) = (set(self.control_plane), set(self.token));
        if let (Some(url), Some(token)) = (&url, &token) {
            return Ok(ControlPlane {
                url: url.clone(),
                token: token.clone(),
            });
        }
        choose(url, token, load_context(None)?)
    }
}

/// The context's token goes to the context's control plane only.
fn choose(
    url: Option<String>,
    token: Option<String>,
    context: Context,
) -> Result<ControlPlane, Failure> {
    let known = context
        .control_plane
        .as_deref()
        .unwrap_or(DEFAULT_CONTROL_PLANE)
        .to_owned();
    let url = url.unwrap_or_else(|| known.clone());
    match token.or(context.admin_token.filter(|_| url == known)) {
        Some(token) => Ok(ControlPlane { url, token }),
        None => Err(Failure::NotAllowed(format!(
            "there is no admin token for {url}: run `mcpctl login {url}`, set MCP_FLEET_TOKEN, or start `mcpctl up`, which writes one to the context file"
        ))),
    }
}

/// Which gateway.
#[derive(Debug, Args)]
pub(crate) struct GatewayFlags {
    /// Take the address from this context, whatever else says it; see `mcpctl context`.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// MCP endpoint of the gateway; otherwise that of the context file.
    #[arg(long, value_name = "URL", env = "MCP_FLEET_GATEWAY")]
    url: Option<String>,
    /// Bearer token for the gateway.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "MCP_FLEET_GATEWAY_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// Revision of MCP to speak.
    #[arg(long, value_name = "REVISION", default_value = "2025-11-25")]
    protocol: Protocol,
    /// Longest time for one answer.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration)]
    timeout: Duration,
}

impl GatewayFlags {
    /// A given address first, then a named context, then flag and environment,
    /// then the chosen context.
    pub(crate) fn resolve(self, given: Option<String>) -> Result<Target, Failure> {
        let other = || set(self.url).filter(|_| self.context.is_none());
        let url = match set(given).or_else(other) {
            Some(url) => url,
            None => load_context(self.context.as_deref())?
                .gateway
                .unwrap_or_else(|| DEFAULT_GATEWAY.to_owned()),
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::Usage(format!(
                "the gateway's address {url:?} must start with http:// or https://"
            )));
        }
        Ok(Target {
            url,
            token: set(self.token),
            protocol: self.protocol,
            limit: self.timeout,
        })
    }
}

/// Which files.
#[derive(Debug, Args)]
pub(crate) struct FileFlags {
    /// A file, a directory (its .yaml, .yml and .json files), or `-` for stdin. May be repeated.
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// How to write.
#[derive(Debug, Args)]
pub(crate) struct WriteFlags {
    /// Do everything but the writing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Why; kept with the revision.
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    pub(crate) message: String,
    /// Refuse unless the newest revision is this one.
    #[arg(long, value_name = "N")]
    pub(crate) expect_revision: Option<u64>,
    #[command(flatten)]
    pub(crate) wait: WaitFlags,
}

/// Whether to wait for the data planes.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitFlags {
    /// Wait until every connected data plane serves the result, or this share of them. More that
    /// refuse it are warnings then.
    #[arg(
        long = "wait",
        value_name = "PERCENT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "100",
        value_parser = percent
    )]
    percent: Option<u8>,
    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

impl WaitFlags {
    /// Waits, if that is asked for, until a revision is served in which `keys`
    /// were written.
    pub(crate) async fn until_served(
        self,
        client: &mut Client,
        revision: u64,
        keys: &[Key],
    ) -> Result<(), Failure> {
        let Some(percent) = self.percent else {
            return Ok(());
        };
        let wanted = Wanted {
            revision,
            keys: Some(keys),
            percent,
            timeout: self.timeout,
            progress: true,
        };
        wait::until_served(client, wanted).await
    }
}

/// `1` to `100`, with or without a sign.
pub(crate) fn percent(text: &str) -> Result<u8, String> {
    match text.strip_suffix('%').unwrap_or(text).parse() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err("must be a share from 1 to 100".to_owned()),
    }
}

/// `500ms`, `30s`, `1m30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<fleet_proto::duration::Duration>() {
        Ok(d) if d.as_millis() > 0 => Ok(d.into()),
        Ok(_) => Err("must be longer than zero".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// A context by its name, which must then be there, or the chosen one.
fn load_context(name: Option<&str>) -> Result<Context, Failure> {
    let contexts = match context::path() {
        Some(path) => read_contexts(&path)?,
        None => Contexts::default(),
    };
    match (contexts.get(name), name) {
        (Some((_, context)), _) => Ok(context.clone()),
        (None, None) => Ok(Context::default()),
        (None, Some(name)) => Err(no_context(name)),
    }
}

/// The contexts of a file.
pub(crate) fn read_contexts(path: &Path) -> Result<Contexts, Failure> {
    context::load(path).map_err(|e| match e {
        context::ContextError::Exposed { .. } => Failure::NotAllowed(e.to_string()),
        _ => Failure::other(e.to_string()),
    })
}

/// There is no context of this name.
pub(crate) fn no_context(name: &str) -> Failure {
    Failure::Usage(format!(
        "there is no context {name:?}: see `mcpctl context list`"
    ))
}

/// An empty variable counts as unset.
fn set(value: Option<String>) -> Option<String> {
    value.filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_of_verbs_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_contexts_token_goes_to_its_own_control_plane_only() {
        let context = || Context {
            control_plane: Some("http://127.0.0.1:1".to_owned()),
            admin_token: Some("mine".to_owned()),
            gateway: None,
        };
        assert_eq!(choose(None, None, context()).unwrap().token, "mine");
        let elsewhere = Some("http://example.com:2".to_owned());
        assert_eq!(
            choose(elsewhere.clone(), None, context())
                .unwrap_err()
                .exit_code(),
            7
        );
        assert_eq!(
            choose(elsewhere, Some("t".to_owned()), context())
                .unwrap()
                .token,
            "t"
        );
        assert_eq!(
            choose(None, Some("flag".to_owned()), context())
                .unwrap()
                .token,
            "flag"
        );
    }

    #[test]
    fn durations_need_a_unit_and_a_length() {
        assert_eq!(duration("1m30s").unwrap(), Duration::from_secs(90));
        assert!(duration("0s").is_err());
        assert!(duration("60").is_err());
    }
}
