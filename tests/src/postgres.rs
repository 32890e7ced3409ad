//! A private Postgres: a cluster in a temporary folder, on a free port, run as a
//! child of the tests. Without one the tests fail: nothing is skipped.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster of this test process. A test has a database of its own in it.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::start);
    &CLUSTER
}

/// A Postgres server.
pub(crate) struct Cluster {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
    /// Ends the server and removes the folder when this process has ended, however
    /// it did: it waits for the end of its input.
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
    pub(crate) fn start() -> Self {
        // Blocking, and possibly inside a runtime that must not know of it.
        let folder = tempfile::Builder::new()
            .prefix("mcp-fleet-postgres-")
            .tempdir()
            .unwrap();
        let path = folder.path();
        if let Some(uid) = other_user() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            chown(path, Some(uid), None).unwrap();
        }
        let data = path.join("data");
        let mut initdb = command(&program("initdb"));
        initdb.arg("--pgdata").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        let output = initdb.current_dir("/").output().unwrap();
        assert!(
            output.status.success(),
            "{initdb:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let leash = Command::new("sh")
            .args(["-c", LEASH, "leash"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut cluster = Self {
            port: free_port(),
            folder,
            server: None,
            leash,
        };
        cluster.run();
        cluster
    }

    /// Starts the server again, on the same port.
    pub(crate) fn run(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut server = command(&program("postgres"));
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
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        let isready = program("pg_isready");
        let port = self.port.to_string();
        loop {
            let ready = Command::new(&isready)
                .args(["--quiet", "--host=127.0.0.1", "--port", &port])
                .status()
                .unwrap();
            if ready.success() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "Postgres does not start: {}",
                fs::read_to_string(self.log()).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9` of the server, and of the processes it has started: they would
    /// go on for a moment.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().expect("it runs");
        let children = children(server.id());
        server.kill().unwrap();
        // It is ours: waiting for it leaves no zombie.
        server.wait().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while children.iter().any(|pid| runs(*pid)) {
            assert!(Instant::now() < deadline, "{children:?} do not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database of this name, made if there is none.
    pub(crate) async fn database(&self, name: &str) -> String {
        // Names of temporary folders start with a dot.
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let url = |name: &str| format!("postgres://postgres@127.0.0.1:{}/{name}", self.port);
        let mut connection = PgConnection::connect(&url("postgres")).await.unwrap();
        let create = format!("CREATE DATABASE \"{name}\"");
        match connection.execute(AssertSqlSafe(create)).await {
            // Duplicate database.
            Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("42P04") => {}
            made => drop(made.unwrap()),
        }
        connection.close().await.unwrap();
        url(&name)
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

/// A process that has not ended; one that has, and that nobody has waited for yet,
/// does not count.
fn runs(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    !matches!(state, Some("Z" | "X"))
}

fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let list = fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace()
        .map(|p| p.parse().unwrap())
        .collect()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Runs a program, not as root: Postgres refuses that.
fn command(program: &Path) -> Command {
    if other_user().is_none() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
        .arg("--")
        .arg(program);
    command
}

/// The user `postgres`, for root.
fn other_user() -> Option<u32> {
    fn id(args: &[&str]) -> String {
        let output = Command::new("id").args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
    if id(&["-u"]) != "0" {
        return None;
    }
    let user = id(&["-u", "postgres"]);
    Some(
        user.parse()
            .expect("the Debian package makes a user `postgres`"),
    )
}

/// A program of Postgres, wherever the distribution has put it.
fn program(name: &str) -> PathBuf {
    static BIN: LazyLock<PathBuf> = LazyLock::new(|| {
        find().unwrap_or_else(|| {
            install();
            find().expect("the package `postgresql` holds initdb and postgres")
        })
    });
    BIN.join(name)
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.map(|version| version.unwrap().path().join("bin")));
    }
    let has = |folder: &PathBuf| {
        ["initdb", "postgres", "pg_isready"]
            .iter()
            .all(|program| folder.join(program).exists())
    };
    folders.into_iter().find(has)
}

fn install() {
    let advice = "these tests need a Postgres server (initdb, postgres, pg_isready, in PATH or \
                  /usr/lib/postgresql/*/bin): run tests/setup.sh as root, or install the package \
                  `postgresql`";
    let apt = |args: &[&str]| {
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
            .args(args)
            .output()
    };
    let install = ["install", "-y", "--no-install-recommends", "postgresql"];
    let done = apt(&install).and_then(|output| {
        if output.status.success() {
            return Ok(output);
        }
        apt(&["update"])?;
        apt(&install)
    });
    match done {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{advice}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) if error.kind() == ErrorKind::NotFound => panic!("{advice}"),
        Err(error) => panic!("{advice}: {error}"),
    }
}
