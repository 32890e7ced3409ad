//! A fleet over TLS: a control plane with a certificate of its own CA, which `mcpctl` has logged in
//! to by the hash that the control plane printed, and data planes that join it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::{
    client::get,
    fleet::{ADMIN, NODE, logged, program},
    process::Process,
    store::{KEY, Store},
    wait::{soon, until},
};

/// A running control plane with TLS.
pub struct Secured {
    /// Its process.
    pub control: Process,
    /// Its gRPC address.
    pub url: String,
    database: String,
    arguments: Vec<String>,
    dir: TempDir,
}

/// A data plane of such a fleet.
pub struct Member {
    /// Its process.
    pub process: Process,
    /// Its admin listener, without a path.
    pub admin_url: String,
    /// Where MCP clients connect, without scheme and path.
    pub address: String,
}

impl Secured {
    /// Starts the control plane, with more arguments, and logs in to it.
    ///
    /// # Errors
    /// It does not start, or `mcpctl` cannot log in.
    pub async fn start(store: Store<'_>, arguments: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let database = store.database(dir.path()).await?;
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let (control, url) =
            control_plane(dir.path(), &database, "127.0.0.1:0", &arguments).await?;
        let ca = |line: &str| Some(line.strip_prefix("CA: SHA-256 ")?.to_owned());
        let ca = control.line("the hash of its CA", ca).await?;
        let fleet = Self {
            control,
            url,
            database,
            arguments,
            dir,
        };
        let login = ["login", &fleet.url, "--ca-sha256", &ca];
        fleet.done(&login).await?;
        Ok(fleet)
    }

    /// Starts the control plane again, after its death, at its old address.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_control(&mut self) -> Result<()> {
        let address = self.url.trim_start_matches("https://").to_owned();
        let dir = self.dir.path();
        (self.control, _) = control_plane(dir, &self.database, &address, &self.arguments).await?;
        Ok(())
    }

    /// Where the state is; also a place for files of the test.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory of a node.
    #[must_use]
    pub fn data(&self, node: &str) -> PathBuf {
        self.dir.path().join(node)
    }

    /// Where a node keeps its key and its certificate.
    #[must_use]
    pub fn identity(&self, node: &str) -> PathBuf {
        self.data(node).join("identity/node.pem")
    }

    /// Runs `mcpctl` in the context of this fleet, with the admin token on stdin.
    ///
    /// # Errors
    /// It does not end.
    pub async fn mcpctl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Output> {
        let mut command = program("mcpctl", self.dir.path());
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        // Who does not read it has closed it.
        let _ = stdin.write_all(ADMIN.as_bytes()).await;
        drop(stdin);
        Ok(soon("the end of mcpctl", child.wait_with_output()).await??)
    }

    /// What `mcpctl` prints, which must not fail.
    ///
    /// # Errors
    /// It fails.
    pub async fn done<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        let output = self.mcpctl(arguments).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mcpctl: {said}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// A new join token, in a file; `arguments`: more of them.
    ///
    /// # Errors
    /// `mcpctl` fails.
    pub async fn token(&self, name: &str, arguments: &[&str]) -> Result<PathBuf> {
        let value = self
            .done(&[&["node", "join-token"], arguments].concat())
            .await?;
        let file = self.dir.path().join(name);
        std::fs::write(&file, value + "\n")?;
        Ok(file)
    }

    /// A data plane with this join token, if any, and its own data directory.
    ///
    /// # Errors
    /// It does not start.
    pub async fn node(&self, id: &str, token: Option<&Path>) -> Result<Member> {
        self.member(self.process(id, &self.data(id), token)?).await
    }

    /// The same at this address for MCP clients, and with more arguments.
    ///
    /// # Errors
    /// It does not start.
    pub async fn node_at(
        &self,
        id: &str,
        token: Option<&Path>,
        listen: &str,
        arguments: &[&str],
    ) -> Result<Member> {
        let process = self.process_at(id, &self.data(id), token, listen, arguments)?;
        self.member(process).await
    }

    async fn member(&self, process: Process) -> Result<Member> {
        let admin_url = logged(&process, "admin=").await?;
        let address = logged(&process, "mcp=").await?;
        Ok(Member {
            process,
            admin_url,
            address: address.trim_start_matches("http://").to_owned(),
        })
    }

    /// The process of a data plane, which need not start.
    ///
    /// # Errors
    /// There is no such program.
    pub fn process(&self, id: &str, data: &Path, token: Option<&Path>) -> Result<Process> {
        self.process_at(id, data, token, "127.0.0.1:0", &[])
    }

    fn process_at(
        &self,
        id: &str,
        data: &Path,
        token: Option<&Path>,
        listen: &str,
        arguments: &[&str],
    ) -> Result<Process> {
        let mut command = program("mcp-dataplane", self.dir.path());
        command
            .args(["--control-plane", &self.url, "--node-id", id])
            .args(["--listen", listen, "--admin-listen", "127.0.0.1:0"])
            .args(["--drain-seconds", "0"])
            .args(arguments)
            .arg("--data-dir")
            .arg(data);
        if let Some(token) = token {
            command.arg("--join-token-file").arg(token);
        }
        Process::start(&format!("mcp-dataplane {id}"), command)
    }

    /// A node as `mcpctl nodes` shows it.
    ///
    /// # Errors
    /// `mcpctl` fails.
    pub async fn shown(&self, id: &str) -> Result<Option<Value>> {
        let nodes: Value = serde_json::from_str(&self.done(&["nodes", "-o", "json"]).await?)?;
        let mut nodes = nodes.as_array().cloned().unwrap_or_default().into_iter();
        Ok(nodes.find(|node| node["node_id"] == id))
    }

    /// Waits until a node has this state, and gives what is shown of it.
    ///
    /// # Errors
    /// It never has.
    pub async fn until_state(&self, id: &str, state: &str) -> Result<Value> {
        let wanted = format!("NODE_STATE_{state}");
        let is_so = |node: &Value| node["state"] == wanted;
        until(&format!("{id} {state}"), || async {
            self.shown(id).await.ok()?.filter(is_so)
        })
        .await
    }
}

impl Member {
    /// The HTTP status of its readiness probe.
    ///
    /// # Errors
    /// Its admin listener does not answer.
    pub async fn ready(&self) -> Result<u16> {
        let (status, ..) = get(&format!("{}/readyz", self.admin_url)).await?;
        Ok(status.as_u16())
    }

    /// Waits until it has said this.
    ///
    /// # Errors
    /// It never does.
    pub async fn says(&self, text: &str) -> Result<()> {
        let says = |line: &str| line.contains(text).then_some(());
        self.process.line(text, says).await
    }
}

async fn control_plane(
    dir: &Path,
    database: &str,
    listen: &str,
    arguments: &[String],
) -> Result<(Process, String)> {
    let mut command = program("mcp-controlplane", dir);
    command
        .args(["--grpc-listen", listen, "--rest-listen", "127.0.0.1:0"])
        .args(["--database", database, "--tls-name", "localhost,127.0.0.1"])
        .args(arguments);
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
