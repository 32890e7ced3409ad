//! A real balancer before data planes, with the configuration that `deploy/` ships: only addresses
//! and folders are other ones.

use std::{
    ffi::OsString,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::{net::TcpStream, process::Command};

use crate::{process::Process, programs::root, replicas::Plane, wait::until};

/// Another process may take the port between its choice and its use.
const ATTEMPTS: usize = 5;

/// A running balancer.
pub struct Balancer {
    /// Its process.
    pub process: Process,
    /// The endpoint of the gateway at `/mcp`.
    pub url: String,
    _dir: TempDir,
}

impl Balancer {
    /// nginx.
    ///
    /// # Errors
    /// It does not start.
    pub async fn nginx(planes: &[Plane]) -> Result<Self> {
        let servers: Vec<_> = planes.iter().map(|p| p.address.as_str()).collect();
        Self::nginx_before(&servers).await
    }

    /// nginx before data planes at these addresses.
    ///
    /// # Errors
    /// It does not start.
    pub async fn nginx_before(servers: &[&str]) -> Result<Self> {
        Self::start("nginx", |dir, port| {
            let main = nginx_files(dir, port, servers)?;
            let mut command = Command::new(system("nginx"));
            command.arg("-p").arg(dir).arg("-c").arg(main);
            command.args(["-e", "stderr"]);
            Ok(command)
        })
        .await
    }

    /// HAProxy, which asks the data planes' admin listeners whether they are ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn haproxy(planes: &[Plane]) -> Result<Self> {
        let text = shipped("haproxy/haproxy.cfg")?;
        let (text, _) = text
            .split_once("    server dp-1")
            .context("haproxy.cfg lists no server")?;
        Self::start("haproxy", |dir, port| {
            let mut text = text.replace("127.0.0.1:8000", &format!("127.0.0.1:{port}"));
            // Only what goes wrong: a line for each call of a load is too much.
            text = text.replace(
                "option httplog",
                "option httplog\n    option dontlog-normal",
            );
            for plane in planes {
                let admin = plane.admin_url.rsplit(':').next().unwrap_or_default();
                let (name, address) = (&plane.name, &plane.address);
                text += &format!("    server {name} {address} port {admin}\n");
            }
            let file = dir.join("haproxy.cfg");
            std::fs::write(&file, text)?;
            let mut command = Command::new(system("haproxy"));
            command.arg("-db").arg("-f").arg(file);
            Ok(command)
        })
        .await
    }

    async fn start(name: &str, command: impl Fn(&Path, u16) -> Result<Command>) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let dir = tempfile::tempdir()?;
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            let mut process = Process::start(name, command(dir.path(), port)?)?;
            let up = until("the balancer", || async {
                match TcpStream::connect(("127.0.0.1", port)).await {
                    Ok(_) => Some(true),
                    Err(_) => process.is_over().then_some(false),
                }
            });
            if up.await? && !process.is_over() {
                let url = format!("http://127.0.0.1:{port}/mcp");
                return Ok(Self {
                    process,
                    url,
                    _dir: dir,
                });
            }
            let printed = process.printed();
            ensure!(
                process.ended().await? != 0 && printed.contains("in use"),
                "{name} does not start:\n{printed}"
            );
        }
        bail!("{name} found no free port in {ATTEMPTS} attempts")
    }
}

/// Writes what nginx needs, beside the shipped files, and gives its main file. The ones that say
/// where it listens and where the data planes are differ; the one between them is as shipped.
///
/// # Errors
/// A file cannot be written.
pub fn nginx_files(dir: &Path, port: u16, servers: &[&str]) -> Result<PathBuf> {
    let lists = dir.join("mcp-fleet.d");
    std::fs::create_dir_all(&lists)?;
    std::fs::write(dir.join("mcp-fleet.conf"), shipped("nginx/mcp-fleet.conf")?)?;
    std::fs::write(
        lists.join("listen.conf"),
        format!("listen 127.0.0.1:{port};\n"),
    )?;
    let line = shipped("nginx/mcp-fleet.d/dataplanes.conf")?;
    let line = line.lines().find(|line| line.starts_with("server "));
    let (_, options) = line
        .and_then(|line| line.split_once(":8080"))
        .context("dataplanes.conf lists no data plane at port 8080")?;
    let lines: String = servers
        .iter()
        .map(|server| format!("server {server}{options}\n"))
        .collect();
    std::fs::write(lists.join("dataplanes.conf"), lines)?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", dir.display()))
        .concat();
    // One process: what starts it can end it, whatever happens.
    let text = format!(
        "daemon off;\nmaster_process off;\npid {0}/nginx.pid;\nevents {{ worker_connections 4096; }}\n\
         http {{\n{temporary}  access_log off;\n  include mcp-fleet.conf;\n}}\n",
        dir.display()
    );
    let main = dir.join("nginx.conf");
    std::fs::write(&main, text)?;
    Ok(main)
}

/// A file under `deploy/`.
fn shipped(path: &str) -> Result<String> {
    let file = root().join("deploy").join(path);
    std::fs::read_to_string(&file).with_context(|| format!("{} is missing", file.display()))
}

/// A program of the system; not every PATH has the folders of the administrator.
#[must_use]
pub fn system(name: &str) -> OsString {
    let folders = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
    let found = folders.map(|folder| Path::new(folder).join(name));
    let found = found.into_iter().find(|file| file.exists());
    found.map_or_else(|| name.into(), PathBuf::into_os_string)
}
