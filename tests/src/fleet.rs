//! The product as a user runs it. [`Fleet`] is `mcpctl up`; [`Split`] is a control plane and a
//! data plane as processes of their own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    admin::Admin,
    client::{Client, get},
    process::Process,
    programs::ours,
    store::{KEY, Store},
    wait::{soon, until},
};

/// The newest revision with sessions.
pub const LEGACY: &str = "2025-11-25";

/// A running `mcpctl up -f FILE`.
pub struct Fleet {
    /// The process.
    pub process: Process,
    /// The endpoint of the first gateway, such as `http://127.0.0.1:40001/mcp`.
    pub url: String,
    /// The data plane's admin listener, without a path.
    pub admin_url: String,
    dir: TempDir,
    context: Value,
}

impl Fleet {
    /// Starts it on a file of this text, `backends.yaml` in [`Self::dir`].
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start(yaml: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("backends.yaml");
        std::fs::write(&file, yaml)?;
        Self::start_file(&file, dir).await
    }

    /// Starts it on a file of the repository.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start_on(file: &Path) -> Result<Self> {
        Self::start_file(file, tempfile::tempdir()?).await
    }

    async fn start_file(file: &Path, dir: TempDir) -> Result<Self> {
        let mut command = program("mcpctl", dir.path());
        command
            .arg("up")
            .arg("-f")
            .arg(file)
            .arg("--data-dir")
            .arg(dir.path().join("data"));
        for listener in ["--listen", "--admin-listen", "--grpc-listen"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        // The log says where the admin listener is, and helps when a test fails.
        command.args(["--log", "info"]);
        let process = Process::start("mcpctl up", command)?;
        let ready = |line: &str| line.starts_with("MCP endpoints:").then_some(());
        process.line("its endpoints", ready).await?;
        let context = std::fs::read(dir.path().join("context.json"))
            .context("`up` printed its endpoints and wrote no context file")?;
        let context: Value = serde_json::from_slice(&context)?;
        let admin_url = logged(&process, "admin=").await?;
        let url = context["gateway"]
            .as_str()
            .context("no `gateway` in the context")?
            .to_owned();
        Ok(Self {
            process,
            url,
            admin_url,
            dir,
            context,
        })
    }

    /// Where its state is; also a place for files of the test.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The endpoint of another gateway.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        let (scheme, rest) = self.url.split_once("://").expect("an endpoint is a URL");
        format!(
            "{scheme}://{}{path}",
            rest.split('/').next().unwrap_or(rest)
        )
    }

    /// A client of the newest revision with sessions, at the first gateway.
    ///
    /// # Errors
    /// It does not let the client in.
    pub async fn client(&self) -> Result<Client> {
        Client::legacy(&self.url, LEGACY).await
    }

    /// A connection to the administration API, with the token `up` has left in the context.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn admin(&self) -> Result<Admin> {
        let text = |key: &str| {
            self.context[key]
                .as_str()
                .with_context(|| format!("no `{key}`"))
        };
        Admin::connect(text("control_plane")?, text("admin_token")?).await
    }

    /// Runs `mcpctl` against it.
    ///
    /// # Errors
    /// It does not end.
    pub async fn mcpctl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Output> {
        let mut command = program("mcpctl", self.dir.path());
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .kill_on_drop(true);
        Ok(soon("the end of mcpctl", command.output()).await??)
    }

    /// What the data plane's admin listener says about its backends.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn backends(&self) -> Result<Value> {
        let (status, _, body) = get(&format!("{}/admin/backends", self.admin_url)).await?;
        ensure!(status == 200, "GET /admin/backends: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Waits until the first gateway lists every one of these tools.
    ///
    /// # Errors
    /// One stays missing.
    pub async fn offers(&self, tools: &[&str]) -> Result<()> {
        until(&format!("the tools {tools:?}"), || async {
            let names = self.client().await.ok()?.names("tools/list").await.ok()?;
            tools
                .iter()
                .all(|tool| names.iter().any(|name| name == tool))
                .then_some(())
        })
        .await
    }

    /// Stops it as an operator does and gives its exit code.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(mut self) -> Result<i32> {
        self.process.signal(Signal::TERM)?;
        self.process.ended().await
    }
}

/// A control plane and one data plane, each a process.
pub struct Split {
    /// The control plane.
    pub control: Process,
    /// The data plane.
    pub data: Process,
    /// The endpoint of the gateway at `/mcp`.
    pub url: String,
    /// The control plane's address.
    pub control_url: String,
    admin_token: String,
    database: String,
    dir: TempDir,
}

/// The tokens of control planes that are processes of their own: any text will do.
pub(crate) const ADMIN: &str = "admin-token-of-the-tests";
pub(crate) const NODE: &str = "node-token-of-the-tests";

impl Split {
    /// Starts both, on SQLite.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts both on SQLite, the data plane with more arguments.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        Self::start_on(Store::Sqlite, arguments).await
    }

    /// Starts both, the data plane with more arguments.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start_on(store: Store<'_>, arguments: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let database = store.database(dir.path()).await?;
        let (control, control_url) = control_plane(dir.path(), &database, "127.0.0.1:0").await?;
        let mut command = program("mcp-dataplane", dir.path());
        command.args([
            "--control-plane",
            &control_url,
            "--node-id",
            "one",
            "--allow",
            "stdio",
        ]);
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(arguments).env("MCP_FLEET_NODE_TOKEN", NODE);
        let data = Process::start("mcp-dataplane", command)?;
        let url = format!("{}/mcp", logged(&data, "mcp=").await?);
        Ok(Self {
            control,
            data,
            url,
            control_url,
            admin_token: ADMIN.to_owned(),
            database,
            dir,
        })
    }

    /// A connection to the administration API.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn admin(&self) -> Result<Admin> {
        Admin::connect(&self.control_url, &self.admin_token).await
    }

    /// Starts the control plane again, after its death, at its old address.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_control(&mut self) -> Result<()> {
        let address = self.control_url.trim_start_matches("http://").to_owned();
        (self.control, _) = control_plane(self.dir.path(), &self.database, &address).await?;
        Ok(())
    }
}

/// Starts a control plane on this database, and gives its URL.
pub(crate) async fn control_plane(
    dir: &Path,
    database: &str,
    listen: &str,
) -> Result<(Process, String)> {
    let mut command = program("mcp-controlplane", dir);
    command
        .args(["--grpc-listen", listen, "--rest-listen", "127.0.0.1:0"])
        .args(["--database", database]);
    if database.starts_with("postgres:") {
        command.env("MCP_FLEET_STORE_KEY", KEY);
    }
    command
        .env("MCP_FLEET_ADMIN_TOKEN", ADMIN)
        .env("MCP_FLEET_NODE_TOKEN", NODE);
    let process = Process::start("mcp-controlplane", command)?;
    let said = |line: &str| Some(line.strip_prefix("listening: ")?.to_owned());
    let url = process.line("its address", said).await?;
    Ok((process, url))
}

/// The URL of the address that a data plane logs after `key`.
pub(crate) async fn logged(process: &Process, key: &str) -> Result<String> {
    let address = |line: &str| {
        let (_, rest) = line.split_once(" listening ")?.1.split_once(key)?;
        Some(format!("http://{}", rest.split_whitespace().next()?))
    };
    process.line("where it listens", address).await
}

/// One of our programs, with nothing of the user's own around it.
pub(crate) fn program(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(ours(name));
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
        command.env_remove(variable);
    }
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("MCP_FLEET_") {
            command.env_remove(variable);
        }
    }
    command.env("MCP_FLEET_CONTEXT", PathBuf::from(dir).join("context.json"));
    command.env("NO_COLOR", "1");
    command
}
