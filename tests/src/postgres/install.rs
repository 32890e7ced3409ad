//! The programs of Postgres, wherever the distribution has put them, and the user that may run
//! them.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};

const ADVICE: &str = "these tests need a Postgres server (initdb, postgres, pg_isready, in PATH or \
     /usr/lib/postgresql/*/bin): run tests/setup.sh as root, or install the package `postgresql`";

/// Runs a program, not as root: Postgres refuses that.
pub(super) fn command(program: &Path) -> Result<Command> {
    if other_user()?.is_none() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
        .arg("--")
        .arg(program);
    Ok(command)
}

/// The user `postgres`, for root.
pub(super) fn other_user() -> Result<Option<u32>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let output = Command::new("id").args(["-u", "postgres"]).output()?;
    let user = String::from_utf8(output.stdout)?;
    let user = user.trim().parse();
    Ok(Some(user.context(
        "there is no user `postgres`; Debian's package makes it",
    )?))
}

/// A program of Postgres.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    static BIN: OnceLock<Option<PathBuf>> = OnceLock::new();
    let bin = BIN.get_or_init(|| {
        find().or_else(|| {
            if let Err(error) = install() {
                eprintln!("Postgres cannot be installed: {error:#}");
            }
            find()
        })
    });
    Ok(bin.as_ref().context(ADVICE)?.join(name))
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let has = |folder: &PathBuf| {
        ["initdb", "postgres", "pg_isready"]
            .iter()
            .all(|program| folder.join(program).exists())
    };
    folders.into_iter().find(has)
}

fn install() -> Result<()> {
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
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no apt-get"),
        Err(error) => Err(error.into()),
    }
}
