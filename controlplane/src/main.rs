//! The `mcp-controlplane` program.

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, builder::BoolishValueParser};
use fleet_proto::duration::Duration;
use mcp_controlplane::{ControlPlane, Settings, StoreKey, TlsSource};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Control plane of mcp-fleet: stores, validates, numbers and pushes configuration.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address of the gRPC API and of the stream to the data planes.
    #[arg(long, env = "MCP_FLEET_GRPC_LISTEN", default_value = "127.0.0.1:8182")]
    grpc_listen: SocketAddr,
    /// Address of the REST API, of its description (/api/v1/openapi.json) and of
    /// /livez, /readyz and /metrics.
    #[arg(long, env = "MCP_FLEET_REST_LISTEN", default_value = "127.0.0.1:8181")]
    rest_listen: SocketAddr,
    /// SQLite file (made when there is none), or a Postgres that several control planes
    /// may share: postgres://USER@HOST/DATABASE. Passwords belong into the environment
    /// (MCP_FLEET_DATABASE or PGPASSWORD) or into ~/.pgpass: a command line is visible to all.
    #[arg(
        long,
        value_name = "PATH|URL",
        env = "MCP_FLEET_DATABASE",
        hide_env_values = true,
        default_value = "./mcp-fleet.db"
    )]
    database: String,
    /// Key that seals what is secret in the database: 64 hex digits a line, the first one
    /// seals. Left out: MCP_FLEET_STORE_KEY holds it, or, for SQLite, PATH.key beside the
    /// database, which the first start makes. All control planes of a Postgres need the same.
    #[arg(long, value_name = "FILE", env = "MCP_FLEET_STORE_KEY_FILE")]
    store_key: Option<PathBuf>,
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
    /// Instead: a DNS name or IP address by which both listeners are called; several, separated by
    /// commas or given one by one. The fleet's own CA makes the certificate and renews it.
    #[arg(
        long,
        value_name = "NAME",
        env = "MCP_FLEET_TLS_NAME",
        value_delimiter = ',',
        conflicts_with = "tls_cert"
    )]
    tls_name: Vec<String>,
    /// How long the certificate of a data plane is good; it is renewed at two thirds of that.
    #[arg(
        long,
        value_name = "DURATION",
        env = "MCP_FLEET_NODE_CERTIFICATE_LIFETIME",
        default_value = "24h"
    )]
    node_certificate_lifetime: Duration,
    /// Listen beyond loopback without TLS: tokens travel unencrypted.
    #[arg(long, env = "MCP_FLEET_INSECURE", value_parser = BoolishValueParser::new())]
    insecure: bool,
    /// What to log on stderr: a level, or `target=level` pairs.
    #[arg(
        long,
        value_name = "FILTER",
        env = "MCP_FLEET_LOG",
        default_value = "info"
    )]
    log: String,
}

/// Tokens come by the environment only: a command line is visible to all users.
const ADMIN_TOKEN: &str = "MCP_FLEET_ADMIN_TOKEN";
const NODE_TOKEN: &str = "MCP_FLEET_NODE_TOKEN";
const STORE_KEY: &str = "MCP_FLEET_STORE_KEY";

fn main() -> ExitCode {
    let args = Args::parse();
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcp-controlplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)
        .with_context(|| format!("--log {}: not a log filter", args.log))?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")?
        .block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let admin_token = secret(ADMIN_TOKEN)?;
    let node_token = secret(NODE_TOKEN)?;
    let given = [admin_token.is_some(), node_token.is_some()];
    let mut terminate = signal(SignalKind::terminate()).context("no signal handler")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no signal handler")?;

    let tls = match args.tls_cert.zip(args.tls_key) {
        Some((cert, key)) => Some(TlsSource::Files { cert, key }),
        None if args.tls_name.is_empty() => None,
        None => Some(TlsSource::Names(args.tls_name)),
    };
    let control_plane = mcp_controlplane::start(Settings {
        grpc_listen: args.grpc_listen,
        rest_listen: Some(args.rest_listen),
        database: args.database.parse()?,
        store_key: StoreKey::given(args.store_key, secret(STORE_KEY)?)?,
        tls,
        node_certificate_lifetime: std::time::Duration::from_millis(
            args.node_certificate_lifetime.as_millis(),
        ),
        insecure: args.insecure,
        admin_token,
        node_token,
    })
    .await?;
    announce(&control_plane, given).context("cannot write to stdout")?;

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::select! {
        () = control_plane.shutdown() => {}
        // The second signal does not wait.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// A token of the environment; an empty one counts as none.
fn secret(name: &str) -> anyhow::Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).context(name.to_owned()),
    }
}

/// Says where it listens and, once, which tokens it has made.
fn announce(control_plane: &ControlPlane, [admin_given, node_given]: [bool; 2]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let scheme = if control_plane.is_tls() {
        "https"
    } else {
        "http"
    };
    writeln!(out, "listening: {scheme}://{}", control_plane.grpc_addr())?;
    if let Some(address) = control_plane.rest_addr() {
        writeln!(out, "REST: {scheme}://{address}/api/v1")?;
    }
    if let Some(sha256) = control_plane.ca_sha256() {
        writeln!(out, "CA: SHA-256 {sha256}")?;
    }
    if let Some(token) = control_plane.admin_token().filter(|_| !admin_given) {
        writeln!(
            out,
            "\nadmin token (shown only now; lets mcpctl read and write configuration):"
        )?;
        writeln!(out, "  export MCP_FLEET_TOKEN={token}")?;
    }
    if let Some(token) = control_plane.node_token().filter(|_| !node_given) {
        writeln!(
            out,
            "\nnode token (shown only now; lets data planes receive configuration):"
        )?;
        writeln!(out, "  export {NODE_TOKEN}={token}")?;
    }
    out.flush()
}
