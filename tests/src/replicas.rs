//! A control plane and data planes, each a process. The control plane gives them their session
//! keys, so that any of them takes any session.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Output, Stdio},
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    admin::Admin,
    client::get,
    fleet::{ADMIN, NODE, control_plane, logged, program},
    process::Process,
    store::Store,
    wait::soon,
};

/// What the data planes keep secrets and session keys under.
const STATE_KEY: &str = "6b9d4f3c2a1e58070f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778";

/// A running fleet.
pub struct Replicas {
    /// The control plane.
    pub control: Process,
    /// Its address.
    pub control_url: String,
    /// The data planes, in the order of their start.
    pub planes: Vec<Plane>,
    database: String,
    dir: TempDir,
}

/// A running data plane.
pub struct Plane {
    /// Its node id.
    pub name: String,
    /// Its process.
    pub process: Process,
    /// Where MCP clients connect, without scheme and path.
    pub address: String,
    /// Its admin listener, without a path.
    pub admin_url: String,
    control_url: String,
    arguments: Vec<String>,
    variables: Variables,
    keeps_secrets: bool,
}

/// What a data plane finds in its environment, besides its token.
type Variables = Vec<(String, String)>;

/// Arguments and variables of a data plane, and whether it has a state key.
type Given = (Vec<String>, Variables, bool);

impl Replicas {
    /// Starts a control plane on SQLite and a data plane for each name.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start(names: &[&str]) -> Result<Self> {
        Self::start_on(Store::Sqlite, names).await
    }

    /// Starts a control plane and a data plane for each name.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start_on(store: Store<'_>, names: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let database = store.database(dir.path()).await?;
        let (control, control_url) = control_plane(dir.path(), &database, "127.0.0.1:0").await?;
        let mut replicas = Self {
            control,
            control_url,
            planes: Vec::new(),
            database,
            dir,
        };
        for name in names {
            replicas.add(name, &[]).await?;
        }
        Ok(replicas)
    }

    /// Starts one more data plane, with more arguments.
    ///
    /// # Errors
    /// It does not start.
    pub async fn add(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        self.add_with(name, arguments, &[]).await
    }

    /// Starts one more data plane, which reaches its control plane at this address.
    ///
    /// # Errors
    /// It does not start.
    pub async fn add_by(&mut self, name: &str, url: &str, arguments: &[&str]) -> Result<()> {
        self.add_plane(name, url, arguments, &[], true).await
    }

    /// Starts one more data plane, with more arguments and variables.
    ///
    /// # Errors
    /// It does not start.
    pub async fn add_with(
        &mut self,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<()> {
        let url = self.control_url.clone();
        self.add_plane(name, &url, arguments, variables, true).await
    }

    /// Starts one more data plane, without a state key.
    ///
    /// # Errors
    /// It does not start.
    pub async fn add_without_state_key(&mut self, name: &str) -> Result<()> {
        let url = self.control_url.clone();
        self.add_plane(name, &url, &[], &[], false).await
    }

    async fn add_plane(
        &mut self,
        name: &str,
        url: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
        keeps: bool,
    ) -> Result<()> {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let variables = variables
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let given = (arguments, variables, keeps);
        let plane = self.plane(name, url, ["127.0.0.1:0"; 2], given);
        self.planes.push(plane.await?);
        Ok(())
    }

    /// Starts a data plane again, after its end, at its old addresses.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self, index: usize) -> Result<()> {
        let old = &self.planes[index];
        let given = (
            old.arguments.clone(),
            old.variables.clone(),
            old.keeps_secrets,
        );
        let admin = old.admin_url.trim_start_matches("http://");
        let plane = self.plane(&old.name, &old.control_url, [&old.address, admin], given);
        self.planes[index] = plane.await?;
        Ok(())
    }

    async fn plane(
        &self,
        name: &str,
        control_url: &str,
        [listen, admin]: [&str; 2],
        (arguments, variables, keeps_secrets): Given,
    ) -> Result<Plane> {
        let data = self.dir.path().join(name);
        let mut command = program("mcp-dataplane", self.dir.path());
        command
            .args(["--control-plane", control_url, "--node-id", name])
            .args(["--listen", listen, "--admin-listen", admin])
            .arg("--data-dir")
            .arg(&data)
            .args(&arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("MCP_FLEET_NODE_TOKEN", NODE);
        if keeps_secrets {
            let key = self.dir.path().join("state.key");
            std::fs::write(&key, STATE_KEY)?;
            command.arg("--state-key").arg(key);
        }
        let process = Process::start(&format!("mcp-dataplane {name}"), command)?;
        let address = logged(&process, "mcp=").await?;
        let admin_url = logged(&process, "admin=").await?;
        Ok(Plane {
            name: name.to_owned(),
            process,
            address: address.trim_start_matches("http://").to_owned(),
            admin_url,
            control_url: control_url.to_owned(),
            arguments,
            variables,
            keeps_secrets,
        })
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

    /// Starts one more control plane on the same database, which is in this store, a Postgres; and
    /// gives its URL.
    ///
    /// # Errors
    /// It does not start.
    pub async fn another_control(&self, store: Store<'_>) -> Result<(Process, String)> {
        let database = store.database(self.dir.path()).await?;
        control_plane(self.dir.path(), &database, "127.0.0.1:0").await
    }

    /// Where the state is; also a place for files of the test, and where `mcpctl` runs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A connection to the administration API.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn admin(&self) -> Result<Admin> {
        self.admin_at(&self.control_url).await
    }

    /// A connection to the administration API of another control plane.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn admin_at(&self, control_url: &str) -> Result<Admin> {
        Admin::connect(control_url, ADMIN).await
    }

    /// Runs `mcpctl` against the control plane, and against `gateway` where it speaks MCP.
    ///
    /// # Errors
    /// It does not end.
    pub async fn mcpctl<A: AsRef<OsStr>>(&self, gateway: &str, arguments: &[A]) -> Result<Output> {
        self.mcpctl_given(gateway, arguments, &[], "").await
    }

    /// The same with variables in its environment and a text on its stdin.
    ///
    /// # Errors
    /// It does not end.
    pub async fn mcpctl_given<A: AsRef<OsStr>>(
        &self,
        gateway: &str,
        arguments: &[A],
        variables: &[(&str, &str)],
        stdin: &str,
    ) -> Result<Output> {
        let mut command = self.command(gateway, arguments);
        command.envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // It may have ended without reading.
            let _ = input.write_all(stdin.as_bytes()).await;
        }
        Ok(soon("the end of mcpctl", child.wait_with_output()).await??)
    }

    /// Where the control plane's REST API is, without a path.
    ///
    /// # Errors
    /// It has not said so.
    pub async fn rest_url(&self) -> Result<String> {
        let said = |line: &str| {
            let url = line.strip_prefix("REST: ")?.strip_suffix("/api/v1")?;
            Some(url.to_owned())
        };
        self.control.line("its REST address", said).await
    }

    /// `mcpctl` as [`mcpctl`](Self::mcpctl) runs it, for what does not end by itself. It is killed
    /// when it is dropped.
    #[must_use]
    pub fn command<A: AsRef<OsStr>>(&self, gateway: &str, arguments: &[A]) -> Command {
        let mut command = program("mcpctl", self.dir.path());
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("MCP_FLEET_CONTROL_PLANE", &self.control_url)
            .env("MCP_FLEET_TOKEN", ADMIN)
            .env("MCP_FLEET_GATEWAY", gateway)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// The token of the administration API.
    #[must_use]
    pub const fn admin_token(&self) -> &'static str {
        ADMIN
    }

    /// The token of data planes.
    #[must_use]
    pub const fn node_token(&self) -> &'static str {
        NODE
    }
}

impl Plane {
    /// How many tool calls it has answered well.
    ///
    /// # Errors
    /// Its admin listener does not answer.
    pub async fn calls(&self) -> Result<u64> {
        let (_, _, text) = get(&format!("{}/metrics", self.admin_url)).await?;
        let counts = text.lines().filter(|line| {
            line.starts_with("mcp_fleet_tool_calls_total{") && line.contains(r#"outcome="ok""#)
        });
        counts
            .map(|line| {
                let value = line.rsplit(' ').next().and_then(|v| v.parse::<u64>().ok());
                value.with_context(|| format!("no count in {line}"))
            })
            .sum()
    }

    /// The HTTP status of its readiness probe.
    ///
    /// # Errors
    /// Its admin listener does not answer.
    pub async fn ready(&self) -> Result<u16> {
        let (status, ..) = get(&format!("{}/readyz", self.admin_url)).await?;
        Ok(status.as_u16())
    }

    /// Stops it as systemd does and gives its exit code.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(&mut self) -> Result<i32> {
        self.process.signal(Signal::TERM)?;
        self.process.ended().await
    }
}
