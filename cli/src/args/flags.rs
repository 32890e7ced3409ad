//! Flags that several verbs share: which control plane, which gateway, which
//! files, how to write, whether to wait.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, builder::BoolishValueParser};
use fleet_proto::{key::Key, v1::ApplyResponse};

use crate::{
    client::{Client, ControlPlane},
    context::{self, Context, Contexts},
    failure::Failure,
    mcp::{Protocol, Target},
    wait::{self, Wanted},
};

/// Where `up` and a control plane listen when nothing else is said.
const DEFAULT_CONTROL_PLANE: &str = "http://127.0.0.1:8182";
const DEFAULT_GATEWAY: &str = "http://127.0.0.1:8080/mcp";

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
    /// File (PEM) with the authorities that the certificate of the control plane may come from;
    /// otherwise those of the context, or of the system.
    #[arg(long, value_name = "FILE", env = "MCP_FLEET_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Send the token over http:// also to other machines.
    #[arg(long, env = "MCP_FLEET_INSECURE", value_parser = BoolishValueParser::new())]
    insecure: bool,
}

impl AdminFlags {
    /// A named context; else flags and environment first, then the chosen context.
    pub(crate) fn resolve(self) -> Result<ControlPlane, Failure> {
        let ca = match self.ca_file.filter(|file| !file.as_os_str().is_empty()) {
            Some(file) => Some(read_ca(&file)?),
            None => None,
        };
        let mut target = if let Some(name) = &self.context {
            choose(None, None, load_context(Some(name))?)?
        } else {
            match (set(self.control_plane), set(self.token)) {
                (Some(url), Some(token)) if ca.is_some() || url.starts_with("http://") => {
                    ControlPlane {
                        url,
                        token,
                        ..ControlPlane::default()
                    }
                }
                (url, token) => choose(url, token, load_context(None)?)?,
            }
        };
        if ca.is_some() {
            target.ca = ca;
        }
        target.insecure |= self.insecure;
        Ok(target)
    }
}

/// The authorities in a file.
pub(crate) fn read_ca(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| {
        Failure::Usage(format!(
            "cannot read the authorities in {}: {e}",
            path.display()
        ))
    })
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
    let ca = context.ca.filter(|_| url == known);
    let insecure = context.insecure && url == known;
    match token.or(context.admin_token.filter(|_| url == known)) {
        Some(token) => Ok(ControlPlane {
            url,
            token,
            ca,
            insecure,
        }),
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
        self.until(client, (revision, 0), keys).await
    }

    /// As [`until_served`](Self::until_served), of all that a write did.
    pub(crate) async fn until_applied(
        self,
        client: &mut Client,
        done: &ApplyResponse,
        keys: &[Key],
    ) -> Result<(), Failure> {
        self.until(client, (done.revision, done.secrets_version), keys)
            .await
    }

    async fn until(
        self,
        client: &mut Client,
        (revision, secrets): (u64, u64),
        keys: &[Key],
    ) -> Result<(), Failure> {
        let Some(percent) = self.percent else {
            return Ok(());
        };
        let wanted = Wanted {
            revision,
            secrets,
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
    use super::*;

    #[test]
    fn the_contexts_token_goes_to_its_own_control_plane_only() {
        let context = || Context {
            control_plane: Some("http://127.0.0.1:1".to_owned()),
            admin_token: Some("mine".to_owned()),
            ca: Some("authority".to_owned()),
            insecure: false,
            gateway: None,
        };
        let own = choose(None, None, context()).unwrap();
        assert_eq!((own.token.as_str(), own.ca.is_some()), ("mine", true));
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
