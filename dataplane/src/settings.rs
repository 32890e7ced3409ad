//! What a node is told at boot: where it listens, where its configuration comes
//! from, and what pushed configuration may do on this machine.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use crate::listen::tls::TlsFiles;

/// Settings of a data plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where MCP clients connect. Port 0: a free one.
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz`, `/metrics` and `/admin` are served. Port 0: a free one.
    pub admin_listen: SocketAddr,
    /// Token that `/metrics` and `/admin` ask for (RFC 6750). Required where
    /// [`admin_listen`](Self::admin_listen) is not loopback.
    pub admin_token: Option<String>,
    /// Where other data planes of the fleet connect.
    pub peer_listen: PeerListen,
    /// Where they find that, as `HOST` or `HOST:PORT`. `None`: at the address that is
    /// listened on or, where that is any, that of this machine on its way to the control
    /// plane.
    pub peer_advertise: Option<String>,
    /// Certificate and key of both listeners; `None`: no TLS.
    pub tls: Option<TlsFiles>,
    /// Accept addresses beyond loopback without TLS.
    pub insecure: bool,
    /// Where configuration comes from.
    pub source: Source,
    /// Stable name of this node, unique in the fleet.
    pub node_id: String,
    /// Labels of this node.
    pub labels: BTreeMap<String, String>,
    /// Where the session key and the last good configuration are kept. `None`: they
    /// live as long as the process.
    pub data_dir: Option<PathBuf>,
    /// File of the key under which values of Secrets, session keys and revocations are
    /// kept in the data directory (64 hex digits a line; the first seals). `None`: of
    /// these only revocations are kept, which hold hashes.
    pub state_key: Option<PathBuf>,
    /// Keep what the control plane pushes in the data directory, and start with it.
    pub last_good: bool,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// What configuration may do on this machine.
    pub allow: Allow,
    /// How children of stdio backends are kept from outliving the data plane.
    pub guard: Guard,
    /// Directories searched after those of PATH for the commands of stdio backends.
    pub extra_path: Vec<PathBuf>,
    /// Lame-duck time on shutdown: not ready, but still serving.
    pub drain: std::time::Duration,
}

/// Where other data planes connect. They do so with their certificates only (mutual TLS),
/// so a node that has none, and gets none, has no peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerListen {
    /// Nowhere: sessions are opened anew where their requests arrive.
    Off,
    /// Where the node has a certificate: port [`PEER_PORT`] at the address where clients
    /// connect, or a free one where theirs is. Taken by somebody else: nowhere.
    #[default]
    Joined,
    /// There. It is an error if the node has no certificate, or the address is taken.
    At(SocketAddr),
}

/// The port of the peer listener, if none is given.
pub const PEER_PORT: u16 = 8183;

/// Where configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A fleet's control plane.
    ControlPlane {
        /// The gRPC addresses of its processes, such as `https://control:8182`; tried
        /// in random order. Without TLS only on this machine, unless
        /// [`insecure`](Settings::insecure) says otherwise.
        urls: Vec<String>,
        /// With what this node comes, and whom it takes for a control plane.
        credentials: Credentials,
    },
    /// A file, watched for changes.
    File(PathBuf),
}

/// With what a node comes to a control plane, and whom it takes for one. A certificate
/// in the data directory goes first, then the join token, then the node token.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Gets this node its first certificate; used once. Needs a data directory.
    pub join_token: Option<Secret>,
    /// The token that all nodes may share.
    pub node_token: Option<Secret>,
    /// Authorities (PEM) that the certificate of the control plane may come from;
    /// `None`: those of the system, unless the join token says which.
    pub ca: Option<PathBuf>,
}

impl Credentials {
    /// A node token.
    #[must_use]
    pub fn node_token(token: impl Into<String>) -> Self {
        Self {
            node_token: Some(Secret::Text(token.into())),
            ..Self::default()
        }
    }
}

/// A secret, or where it is. Shown by neither `Debug` nor errors.
#[derive(Clone)]
pub enum Secret {
    /// The secret.
    Text(String),
    /// A file with nothing else in it; read whenever it is needed.
    File(PathBuf),
}

impl Secret {
    /// The secret, without space around it.
    ///
    /// # Errors
    /// The file cannot be read, or there is nothing in it.
    pub fn read(&self) -> io::Result<String> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::File(path) => fs::read_to_string(path)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?,
        };
        let text = text.trim();
        if text.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
        }
        Ok(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("(not shown)"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What configuration may do on this machine. A pushed stdio command is remote
/// execution, so the default allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// Run stdio backends.
    pub stdio: bool,
    /// Resolve `${env:NAME}`.
    pub env: bool,
    /// Resolve `${file:/path}`, and connect to the sockets of `unix` backends.
    pub file: Files,
}

impl Allow {
    /// Everything: `mcpctl up` and `--config FILE`, where the configuration is the user's own.
    pub const ALL: Self = Self {
        stdio: true,
        env: true,
        file: Files::All,
    };
}

/// Which files and sockets of this machine configuration may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// None.
    #[default]
    None,
    /// Every one that this process can open.
    All,
    /// These, and what is below those that are directories. Absolute paths.
    Below(Arc<[PathBuf]>),
}

impl Files {
    /// Whether configuration may name this path, as it is written. One with `..` in it
    /// leads somewhere else than it says.
    ///
    /// # Errors
    /// A message that says why not, and what to do.
    pub fn allow(&self, path: &Path) -> Result<(), String> {
        let straight = || !path.components().any(|part| part == Component::ParentDir);
        match self {
            Self::All => Ok(()),
            Self::Below(these) if straight() && these.iter().any(|one| path.starts_with(one)) => {
                Ok(())
            }
            Self::None | Self::Below(_) => Err(format!(
                "{} is not allowed on this node: start it with --allow file, or with --allow file=DIRECTORY for what is below that",
                path.display()
            )),
        }
    }

    /// The path to open for a path that is there now: its links lead to nothing that is
    /// not allowed.
    ///
    /// # Errors
    /// It is not there, or not allowed.
    pub fn follow(&self, path: &Path) -> io::Result<PathBuf> {
        let refused = |message| io::Error::new(io::ErrorKind::PermissionDenied, message);
        self.allow(path).map_err(refused)?;
        let Self::Below(these) = self else {
            return Ok(path.to_owned());
        };
        let target = path.canonicalize()?;
        // They may be links themselves, as `/var/run` is.
        let these = these.iter().filter_map(|one| one.canonicalize().ok());
        Self::Below(these.collect())
            .allow(&target)
            .map_err(refused)?;
        Ok(target)
    }
}

/// How children of stdio backends are kept from outliving the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A guard process: this very program, whose `main` calls
    /// [`guard::main_if_asked`](crate::upstream::guard::main_if_asked) first.
    CurrentExe,
    /// A guard process run by another program that does the same.
    Program(PathBuf),
    /// None: `kill -9` of the data plane leaves the children running. For tests.
    Off,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9901)),
            admin_token: None,
            peer_listen: PeerListen::Joined,
            peer_advertise: None,
            tls: None,
            insecure: false,
            source: Source::ControlPlane {
                urls: vec!["http://127.0.0.1:8182".to_owned()],
                credentials: Credentials::default(),
            },
            node_id: String::new(),
            labels: BTreeMap::new(),
            data_dir: None,
            state_key: None,
            last_good: true,
            workers: 0,
            allow: Allow::default(),
            guard: Guard::CurrentExe,
            extra_path: Vec::new(),
            drain: std::time::Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_is_allowed_below_what_was_named_only() {
        let below = Files::Below(["/run/mcp".into(), "/etc/token".into()].into());
        for fine in [
            "/run/mcp/a.sock",
            "/run/mcp/b/c",
            "/etc/token",
            "/run/./mcp/a",
        ] {
            assert_eq!(below.allow(Path::new(fine)), Ok(()));
        }
        for not in [
            "/run/mcp2",
            "/run",
            "/etc/token2",
            "/run/mcp/../x",
            "run/mcp/a",
            "",
        ] {
            let message = below.allow(Path::new(not)).unwrap_err();
            assert!(message.contains("--allow file"), "{not}: {message}");
            assert!(Files::None.allow(Path::new(not)).is_err());
            assert!(Files::All.allow(Path::new(not)).is_ok());
        }
    }

    #[test]
    fn a_link_does_not_lead_out_of_what_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/inside"), "").unwrap();
        fs::write(at("outside"), "").unwrap();
        symlink(at("real"), at("named")).unwrap();
        symlink(at("outside"), at("real/out")).unwrap();
        symlink(at("real/inside"), at("real/in")).unwrap();
        let below = Files::Below([at("named")].into());
        for fine in ["named/inside", "named/in"] {
            assert_eq!(
                below.follow(&at(fine)).unwrap(),
                at("real/inside").canonicalize().unwrap()
            );
        }
        let refused = below.follow(&at("named/out")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let missing = below.follow(&at("named/missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
