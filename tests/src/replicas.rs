//! A control plane and data planes, each a process. The data planes share a session key, so that
//! any of them takes any session.

use std::{ffi::OsStr, path::Path, process::Output};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    admin::Admin,
    client::get,
    fleet::{ADMIN, NODE, control_plane, logged, program},
    process::Process,
    wait::soon,
};

/// One line of a key file.
const SESSION_KEY: &str = "6b9d4f3c2a1e58070f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778";

/// A running fleet.
pub struct Replicas {
    /// The control plane.
    pub control: Process,
    /// Its address.
    pub control_url: String,
    /// The data planes, in the order of their start.
    pub planes: Vec<Plane>,
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
}

impl Replicas {
    /// Starts a control plane and a data plane for each name.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start(names: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (control, control_url) = control_plane(dir.path(), "127.0.0.1:0").await?;
        let mut replicas = Self {
            control,
            control_url,
            planes: Vec::new(),
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
        let url = self.control_url.clone();
        self.add_by(name, &url, arguments).await
    }

    /// Starts one more data plane, which reaches its control plane at this address.
    ///
    /// # Errors
    /// It does not start.
    pub async fn add_by(&mut self, name: &str, url: &str, arguments: &[&str]) -> Result<()> {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let plane = self.plane(name, url, ["127.0.0.1:0"; 2], arguments).await?;
        self.planes.push(plane);
        Ok(())
    }

    /// Starts a data plane again, after its end, at its old addresses.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self, index: usize) -> Result<()> {
        let old = &self.planes[index];
        let (name, arguments) = (old.name.clone(), old.arguments.clone());
        let url = old.control_url.clone();
        let admin = old.admin_url.trim_start_matches("http://");
        let plane = self
            .plane(&name, &url, [&old.address, admin], arguments)
            .await?;
        self.planes[index] = plane;
        Ok(())
    }

    async fn plane(
        &self,
        name: &str,
        control_url: &str,
        [listen, admin]: [&str; 2],
        arguments: Vec<String>,
    ) -> Result<Plane> {
        let data = self.dir.path().join(name);
        std::fs::create_dir_all(&data)?;
        std::fs::write(data.join("session.key"), SESSION_KEY)?;
        let mut command = program("mcp-dataplane", self.dir.path());
        command
            .args(["--control-plane", control_url, "--node-id", name])
            .args(["--listen", listen, "--admin-listen", admin])
            .arg("--data-dir")
            .arg(&data)
            .args(&arguments)
            .env("MCP_FLEET_NODE_TOKEN", NODE);
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
        })
    }

    /// Starts the control plane again, after its death, at its old address.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_control(&mut self) -> Result<()> {
        let address = self.control_url.trim_start_matches("http://").to_owned();
        (self.control, _) = control_plane(self.dir.path(), &address).await?;
        Ok(())
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
        Admin::connect(&self.control_url, ADMIN).await
    }

    /// Runs `mcpctl` against the control plane, and against `gateway` where it speaks MCP.
    ///
    /// # Errors
    /// It does not end.
    pub async fn mcpctl<A: AsRef<OsStr>>(&self, gateway: &str, arguments: &[A]) -> Result<Output> {
        let mut command = self.command(gateway, arguments);
        Ok(soon("the end of mcpctl", command.output()).await??)
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
