//! A private Postgres: a cluster in a temporary folder, on a free port, run as a child of the
//! tests. Without one the tests fail: nothing is skipped.
//!
//! All this blocks, as it may be used from inside any runtime; only [`Cluster::database`] waits.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;

use crate::process::{below, runs};

mod install;

use install::{command, other_user, program};

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster of this test process. A test has a database of its own in it.
///
/// # Panics
/// It does not start.
#[must_use]
pub fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> =
        LazyLock::new(|| Cluster::start().unwrap_or_else(|error| panic!("{error:#}")));
    &CLUSTER
}

/// A Postgres server.
pub struct Cluster {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
    /// Ends the server and removes the folder when this process has ended, however it did: it
    /// waits for the end of its input.
    leash: Child,
}

/// `$1`: the folder. The server may be another one than at the start.
const LEASH: &str = r#"read -r line
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) || exit 0
grep -q postgres "/proc/$pid/comm" 2>/dev/null && kill -QUIT "$pid"
for i in $(seq 100); do [ -e "$1/data/postmaster.pid" ] || break; sleep 0.1; done
rm -rf "$1""#;

impl Cluster {
    /// Makes a cluster and starts its server.
    ///
    /// # Errors
    /// There is no Postgres, or it does not start.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("mcp-fleet-postgres-")
            .tempdir()?;
        let path = folder.path();
        if let Some(uid) = other_user()? {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
            chown(path, Some(uid), None)?;
        }
        let mut initdb = command(&program("initdb")?)?;
        initdb.arg("--pgdata").arg(path.join("data")).args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        let output = initdb.current_dir("/").output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{initdb:?}: {errors}");
        let leash = Command::new("sh")
            .args(["-c", LEASH, "leash"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut cluster = Self {
            port: free_port()?,
            folder,
            server: None,
            leash,
        };
        cluster.run()?;
        Ok(cluster)
    }

    /// Starts the server, again on the same port after [`Self::kill`].
    ///
    /// # Errors
    /// It does not start.
    pub fn run(&mut self) -> Result<()> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())?;
        let mut server = command(&program("postgres")?)?;
        server.arg("-D").arg(self.folder.path().join("data"));
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            "unix_socket_directories=".to_owned(),
            "max_connections=300".to_owned(),
            "shared_buffers=32MB".to_owned(),
            // A crash of the machine is not tested; that of the server is.
            "fsync=off".to_owned(),
        ] {
            server.arg("-c").arg(setting);
        }
        let server = server
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.server = Some(server);
        self.wait_until_ready()
    }

    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let isready = program("pg_isready")?;
        let port = self.port.to_string();
        loop {
            let ready = Command::new(&isready)
                .args(["--quiet", "--host=127.0.0.1", "--port", &port])
                .status()?;
            if ready.success() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                bail!("Postgres does not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9` of the server, and of the processes it has started: they would go on for a
    /// moment.
    ///
    /// # Errors
    /// It does not run, or goes on running.
    pub fn kill(&mut self) -> Result<()> {
        let mut server = self.server.take().context("it does not run")?;
        let children = below(server.id());
        server.kill()?;
        // It is ours: waiting for it leaves no zombie.
        server.wait()?;
        let deadline = Instant::now() + PATIENCE;
        while children.iter().any(|pid| runs(*pid)) {
            ensure!(Instant::now() < deadline, "{children:?} do not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its port, on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database of this name, made if there is none.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn database(&self, name: &str) -> Result<String> {
        // Names of temporary folders start with a dot.
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let url = |name: &str| format!("postgres://postgres@127.0.0.1:{}/{name}", self.port);
        let mut connection = PgConnection::connect(&url("postgres")).await?;
        let create = format!("CREATE DATABASE \"{name}\"");
        match connection.execute(AssertSqlSafe(create)).await {
            // Duplicate database.
            Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42P04") => {}
            made => {
                made?;
            }
        }
        connection.close().await?;
        Ok(url(&name))
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.leash.stdin.take());
        let _ = self.leash.wait();
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
