//! `mcp-dataplane`: flags to settings, run, exit code.

use std::{
    io::IsTerminal, net::SocketAddr, path::PathBuf, process::ExitCode, str::FromStr, time::Duration,
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use mcp_dataplane::{
    listen::tls::TlsFiles,
    logs,
    settings::{Allow, Credentials, Files, Guard, PeerListen, Secret, Settings, Source},
    upstream::guard,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

/// Calls allocate in small pieces on the thread that frees them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Stateless MCP proxy: one endpoint in front of many MCP servers.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Where MCP clients connect.
    #[arg(long, env = "MCP_FLEET_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where /livez, /readyz, /metrics and /admin are served.
    #[arg(long, env = "MCP_FLEET_ADMIN_LISTEN", default_value = "127.0.0.1:9901")]
    admin_listen: SocketAddr,
    /// Token that /metrics and /admin ask for; required where --admin-listen is not loopback.
    /// Only from the environment: a command line is visible to all users.
    #[arg(skip = std::env::var("MCP_FLEET_ADMIN_LISTENER_TOKEN").ok())]
    admin_token: Option<String>,
    /// Where other data planes of the fleet connect (mutual TLS): ADDRESS:PORT, or `off`. Left out:
    /// port 8183 at the address of --listen, if this node joins with a certificate.
    #[arg(long, value_name = "ADDR", env = "MCP_FLEET_PEER_LISTEN", value_parser = peer_listen)]
    peer_listen: Option<PeerListen>,
    /// Where they find this node, as HOST or HOST:PORT; left out: at the address of --peer-listen
    /// or, where that is any address, that of this machine on its way to the control plane.
    #[arg(long, value_name = "HOST[:PORT]", env = "MCP_FLEET_PEER_ADVERTISE")]
    peer_advertise: Option<String>,
    /// gRPC address of the control plane; several, separated by commas or given one by
    /// one, are tried in random order.
    #[arg(
        long,
        env = "MCP_FLEET_CONTROL_PLANE",
        default_value = "http://127.0.0.1:8182",
        value_delimiter = ','
    )]
    control_plane: Vec<String>,
    /// Authorities (PEM) that the certificate of the control plane may come from; left out: the
    /// one that the join token names, or those of the system.
    #[arg(long, value_name = "FILE", env = "MCP_FLEET_CONTROL_PLANE_CA")]
    control_plane_ca: Option<PathBuf>,
    /// File with a join token (`mcpctl node join-token`), for the first start; or the token itself
    /// in MCP_FLEET_JOIN_TOKEN. Key and certificate are kept in --data-dir from then on.
    #[arg(long, value_name = "FILE", env = "MCP_FLEET_JOIN_TOKEN_FILE")]
    join_token_file: Option<PathBuf>,
    /// Instead of joining: the node token, as the control plane printed it on its first start.
    #[arg(long, env = "MCP_FLEET_NODE_TOKEN", hide_env_values = true)]
    node_token: Option<String>,
    /// The node token in a file, read again for every connection.
    #[arg(
        long,
        value_name = "FILE",
        env = "MCP_FLEET_NODE_TOKEN_FILE",
        conflicts_with = "node_token"
    )]
    node_token_file: Option<PathBuf>,
    /// Serve this file, without a control plane; it is watched for changes.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Stable name of this node, unique in the fleet; left out: the host's name.
    #[arg(long, env = "MCP_FLEET_NODE_ID")]
    node_id: Option<String>,
    /// Label of this node, KEY=VALUE; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Where the session key and the last good configuration are kept; left out: sessions
    /// end with the process, and a start needs the control plane.
    #[arg(long, value_name = "DIR", env = "MCP_FLEET_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Key (64 hex digits, as of `openssl rand -hex 32`) under which values of secrets, session
    /// keys and revocations are kept in the data directory; left out: secrets and session keys are
    /// not kept there, and a start without the control plane lacks them.
    #[arg(
        long,
        value_name = "FILE",
        env = "MCP_FLEET_STATE_KEY_FILE",
        requires = "data_dir"
    )]
    state_key: Option<PathBuf>,
    /// Worker threads; 0: one per core.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// What pushed configuration may do on this machine: `stdio` (run programs), `env` (read
    /// ${env:NAME}), `file` (read ${file:/path}, connect to Unix sockets), or `file=/DIRECTORY` for
    /// what is below that. With --config everything is allowed.
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    allow: Vec<Allowed>,
    /// Certificate of both listeners, with those between it and its root (PEM); read again when it
    /// changes.
    #[arg(
        long,
        value_name = "FILE",
        env = "MCP_FLEET_TLS_CERT",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(
        long,
        value_name = "FILE",
        env = "MCP_FLEET_TLS_KEY",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
    /// Accept addresses beyond loopback without TLS.
    #[arg(long)]
    insecure: bool,
    /// How long to stay available, but not ready, before shutting down, in seconds.
    #[arg(long, default_value_t = 10)]
    drain_seconds: u64,
    /// Whether a guard process ends the children of stdio backends when this process dies.
    #[arg(long, hide = true, value_enum, default_value_t = OnOff::On)]
    stdio_guard: OnOff,
    /// Log filter, such as `info` or `mcp_dataplane=debug`.
    #[arg(long, env = "MCP_FLEET_LOG", default_value = "info")]
    log: String,
}

/// One value of `--allow`.
#[derive(Clone)]
enum Allowed {
    Stdio,
    Env,
    File,
    Below(PathBuf),
}

impl FromStr for Allowed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "stdio" => Ok(Self::Stdio),
            "env" => Ok(Self::Env),
            "file" => Ok(Self::File),
            _ => match text.strip_prefix("file=") {
                Some(path) if path.starts_with('/') => Ok(Self::Below(path.into())),
                Some(_) => Err("file= needs an absolute path"),
                None => Err("one of stdio, env, file, file=/DIRECTORY"),
            },
        }
    }
}

fn allow(given: Vec<Allowed>) -> Allow {
    let mut allow = Allow::default();
    let mut below = Vec::new();
    for what in given {
        match what {
            Allowed::Stdio => allow.stdio = true,
            Allowed::Env => allow.env = true,
            Allowed::File => allow.file = Files::All,
            Allowed::Below(path) => below.push(path),
        }
    }
    if allow.file == Files::None && !below.is_empty() {
        allow.file = Files::Below(below.into());
    }
    allow
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum OnOff {
    On,
    Off,
}

fn peer_listen(text: &str) -> Result<PeerListen, String> {
    match text {
        "off" => Ok(PeerListen::Off),
        address => address
            .parse()
            .map(PeerListen::At)
            .map_err(|_| "it is neither ADDRESS:PORT nor `off`".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    if let Some(code) = guard::main_if_asked() {
        return code;
    }
    let flags = Flags::parse();
    let filter = match tracing_subscriber::EnvFilter::try_new(&flags.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("--log {:?} is not a filter: {error}", flags.log);
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .finish()
        .with(logs::Tap)
        .init();
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    let settings = settings(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let plane = mcp_dataplane::start(settings).await?;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("shutting down; once more to stop at once");
        tokio::select! {
            () = plane.shutdown() => {}
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    })
}

fn settings(flags: Flags) -> anyhow::Result<Settings> {
    let allow = if flags.config.is_some() {
        Allow::ALL
    } else {
        allow(flags.allow)
    };
    let source = match flags.config {
        Some(file) => Source::File(file),
        None => Source::ControlPlane {
            urls: flags.control_plane,
            credentials: Credentials {
                join_token: secret(flags.join_token_file, variable("MCP_FLEET_JOIN_TOKEN")),
                node_token: secret(flags.node_token_file, flags.node_token),
                ca: flags.control_plane_ca,
            },
        },
    };
    let node_id = match flags.node_id {
        Some(id) => id,
        None => host_name().context("the host has no name: pass --node-id")?,
    };
    Ok(Settings {
        listen: flags.listen,
        admin_listen: flags.admin_listen,
        admin_token: flags.admin_token,
        peer_listen: flags.peer_listen.unwrap_or_default(),
        peer_advertise: flags.peer_advertise.filter(|text| !text.is_empty()),
        tls: flags
            .tls_cert
            .zip(flags.tls_key)
            .map(|(cert, key)| TlsFiles { cert, key }),
        insecure: flags.insecure,
        source,
        node_id,
        labels: flags.labels.into_iter().collect(),
        data_dir: flags.data_dir,
        state_key: flags.state_key,
        last_good: true,
        workers: flags.workers,
        allow,
        guard: if flags.stdio_guard == OnOff::On {
            Guard::CurrentExe
        } else {
            Guard::Off
        },
        extra_path: Vec::new(),
        drain: Duration::from_secs(flags.drain_seconds),
    })
}

/// A secret that was given in one of two ways; an empty one counts as none.
fn secret(file: Option<PathBuf>, text: Option<String>) -> Option<Secret> {
    let text = text.filter(|text| !text.is_empty()).map(Secret::Text);
    let file = file.filter(|path| !path.as_os_str().is_empty());
    file.map(Secret::File).or(text)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn host_name() -> Option<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    (!name.is_empty()).then_some(name)
}
