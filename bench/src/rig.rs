//! What is measured side by side: the backend itself, nginx, our data plane and peers, each as
//! processes of its own.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    backend,
    child::{self, Child},
    load::{Ask, Endpoint, Era, wait_for},
};

/// How long anything may take to get ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// The token of the gateway with everything on.
const TOKEN: &str = "token-of-the-bench-7";

/// Something that is measured.
#[derive(Clone, Debug)]
pub struct Target {
    /// How it is called.
    pub endpoint: Endpoint,
    /// Its process, where it is on this machine.
    pub pid: Option<u32>,
    /// The eras that it serves.
    pub eras: Vec<Era>,
}

/// A running data plane.
pub struct DataPlane {
    /// The process.
    pub child: Child,
    /// Where MCP clients connect.
    pub address: SocketAddr,
    /// Its configuration, watched for changes.
    pub file: PathBuf,
}

/// A running backend.
pub struct Backend {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A running nginx.
pub struct Nginx {
    child: Child,
    address: SocketAddr,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The data plane.
    pub dataplane: PathBuf,
    /// Its worker threads; 0: one per core.
    pub workers: usize,
}

impl Programs {
    /// The data plane that was built beside this program, unless another one is given.
    ///
    /// # Errors
    /// It is not there.
    pub fn find(dataplane: Option<PathBuf>, workers: usize) -> Result<Self> {
        let beside =
            || Ok::<_, std::io::Error>(env::current_exe()?.with_file_name("mcp-dataplane"));
        let dataplane = dataplane.map_or_else(beside, Ok)?;
        ensure!(
            dataplane.exists(),
            "{} is missing: build it with `cargo build --release -p mcp-dataplane`",
            dataplane.display()
        );
        Ok(Self { dataplane, workers })
    }

    /// Starts a data plane with this configuration.
    ///
    /// # Errors
    /// It does not start.
    pub fn dataplane(&self, dir: &Path, name: &str, config: &str) -> Result<DataPlane> {
        let file = dir.join(format!("{name}.yaml"));
        fs::write(&file, config)?;
        let mut command = Command::new(&self.dataplane);
        command
            .arg("--config")
            .arg(&file)
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args([
                "--drain-seconds",
                "0",
                "--workers",
                &self.workers.to_string(),
            ])
            .env_remove("MCP_FLEET_LOG");
        let child = Child::start(name, command)?;
        let address = child.line(PATIENCE, |line| {
            let (_, rest) = line.split_once(" mcp=")?;
            rest.split_whitespace().next()?.parse().ok()
        })?;
        Ok(DataPlane {
            child,
            address,
            file,
        })
    }
}

impl Backend {
    /// Starts one.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(options: backend::Options) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["backend", "--threads", &options.threads.to_string()])
            .args(["--tools", &options.tools.to_string()])
            .args(options.close.then_some("--close"));
        let child = Child::start("backend", command)?;
        let address = child.line(PATIENCE, |line| {
            line.strip_prefix("listening ")?.parse().ok()
        })?;
        Ok(Self { child, address })
    }

    /// It, called directly.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            endpoint: Endpoint::new("direct", self.address, "/mcp"),
            pid: Some(self.child.pid()),
            eras: vec![Era::Legacy, Era::Modern],
        }
    }
}

impl Nginx {
    /// Starts it in front of a backend. What is in `static/` under `dir` is served, too.
    ///
    /// # Errors
    /// It is not there, or does not start.
    pub fn start(dir: &Path, backend: SocketAddr) -> Result<Self> {
        // Free a moment ago; nginx cannot say itself which port it was given.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let root = fs::metadata("/proc/self")?.uid() == 0;
        let config = include_str!("../nginx.conf")
            .replace("@USER@", if root { "user root;" } else { "" })
            .replace("@DIR@", &dir.display().to_string())
            .replace("@BACKEND@", &backend.to_string())
            .replace("@LISTEN@", &address.to_string());
        let file = dir.join("nginx.conf");
        fs::write(&file, config)?;
        let mut command = Command::new("nginx");
        command
            .env(
                "PATH",
                format!("{}:/usr/sbin", env::var("PATH").unwrap_or_default()),
            )
            .arg("-p")
            .arg(dir)
            .arg("-e")
            .arg(dir.join("nginx-error.log"))
            .arg("-c")
            .arg(&file);
        let child = Child::start("nginx", command)
            .context("nginx is needed to compare with (Debian: apt-get install nginx-light)")?;
        Ok(Self { child, address })
    }

    /// It, as a reverse proxy.
    #[must_use]
    pub fn target(&self) -> Target {
        self.at("nginx", "/mcp")
    }

    /// It, as a server of a file.
    #[must_use]
    pub fn file(&self, name: &str) -> Target {
        self.at("nginx, static file", &format!("/static/{name}"))
    }

    fn at(&self, name: &str, path: &str) -> Target {
        Target {
            endpoint: Endpoint::new(name, self.address, path),
            pid: Some(self.child.pid()),
            eras: vec![Era::Legacy, Era::Modern],
        }
    }
}

impl DataPlane {
    /// It, at this path.
    #[must_use]
    pub fn target(&self, name: &str, path: &str, tool: &str) -> Target {
        let mut endpoint = Endpoint::new(name, self.address, path);
        endpoint.tool = tool.to_owned();
        Target {
            endpoint,
            pid: Some(self.child.pid()),
            eras: vec![Era::Legacy, Era::Modern],
        }
    }
}

/// Everything that `fleet-bench run` compares. The processes end with this value.
pub struct Rig {
    /// What is measured, the backend itself first.
    pub targets: Vec<Target>,
    _backend: Backend,
    _nginx: Nginx,
    _planes: Vec<DataPlane>,
    _dir: TempDir,
}

impl Rig {
    /// Starts all of it, and calls each once.
    ///
    /// # Errors
    /// Something does not start, or does not answer.
    pub fn start(programs: &Programs, peers: &[Peer]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let backend = Backend::start(backend::Options {
            threads: 2,
            tools: 2,
            close: false,
        })?;
        let nginx = Nginx::start(dir.path(), backend.address)?;
        let bare = programs.dataplane(dir.path(), "bare", &bare(backend.address))?;
        let full = programs.dataplane(dir.path(), "full", &full(backend.address))?;
        let mut with_token = full.target("mcp-fleet, all on", "/team-2", "server-7__echo");
        with_token.endpoint.token = Some(TOKEN.to_owned());
        let mut targets = vec![
            backend.target(),
            nginx.target(),
            bare.target("mcp-fleet", "/mcp", "server__echo"),
            with_token,
        ];
        targets.extend(peers.iter().map(Peer::target));
        for target in &targets {
            for era in &target.eras {
                wait_for(&target.endpoint, *era, &Ask::Small, PATIENCE)?;
            }
        }
        Ok(Self {
            targets,
            _backend: backend,
            _nginx: nginx,
            _planes: vec![bare, full],
            _dir: dir,
        })
    }
}

/// One backend, and the gateway that is implied.
#[must_use]
pub fn bare(backend: SocketAddr) -> String {
    format!("kind: Backend\nname: server\nhttp: {{ url: \"http://{backend}/mcp\" }}\n")
}

/// Everything that there is to switch on: ten backends, three gateways, tokens.
fn full(backend: SocketAddr) -> String {
    let mut documents: Vec<_> = (0..10)
        .map(|n| format!("kind: Backend\nname: server-{n}\nhttp: {{ url: \"http://{backend}/{n}\" }}\ntimeout: 20s\nmax_duration: 2m\n"))
        .collect();
    documents.extend((0..3).map(|n| {
        format!("kind: Gateway\nname: team-{n}\npath: /team-{n}\nbackends: [\"server-*\"]\nhosts: [127.0.0.1]\nauth: staff\n")
    }));
    let tokens: Vec<_> = (0..8).map(|n| format!("token-of-the-bench-{n}")).collect();
    documents.push(format!(
        "kind: AuthPolicy\nname: staff\nbearer: {{ tokens: {tokens:?} }}\n"
    ));
    documents.join("---\n")
}

/// Another proxy in front of a server with a tool like ours: `NAME=URL[,session][,TOOL]`.
#[derive(Clone, Debug)]
pub struct Peer {
    endpoint: Endpoint,
    session: bool,
}

impl std::str::FromStr for Peer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = text
            .split_once('=')
            .context("a peer is NAME=URL[,session][,TOOL]")?;
        let mut parts = rest.split(',');
        let url: http::Uri = parts.next().unwrap_or_default().parse()?;
        let host = url.host().context("the URL has no host")?;
        let port = url.port_u16().unwrap_or(80);
        let address = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))?
            .next()
            .context("the host has no address")?;
        let mut peer = Self {
            endpoint: Endpoint::new(name, address, url.path()),
            session: false,
        };
        for part in parts {
            if part == "session" {
                peer.session = true;
            } else {
                peer.endpoint.tool = part.to_owned();
            }
        }
        Ok(peer)
    }
}

impl Peer {
    fn target(&self) -> Target {
        let era = if self.session {
            Era::Legacy
        } else {
            Era::Modern
        };
        Target {
            endpoint: self.endpoint.clone(),
            pid: child::listener(self.endpoint.address.port()),
            eras: vec![era],
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet_proto::read::{Documents, read_yaml};

    use super::*;

    #[test]
    fn the_configurations_are_valid() {
        for text in [
            bare(([127, 0, 0, 1], 1).into()),
            full(([127, 0, 0, 1], 1).into()),
        ] {
            let mut documents = Documents::default();
            read_yaml("bench.yaml", &text, &mut documents);
            assert!(documents.check().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_peer_is_name_url_session_and_tool() {
        let peer: Peer = "agw=http://127.0.0.1:3000/mcp,session,srv_echo"
            .parse()
            .unwrap();
        assert_eq!(peer.endpoint.address, ([127, 0, 0, 1], 3000).into());
        assert_eq!((peer.endpoint.path.as_str(), peer.session), ("/mcp", true));
        assert_eq!(peer.endpoint.large_tool(), "srv_large");
        assert!("http://127.0.0.1".parse::<Peer>().is_err());
    }
}
