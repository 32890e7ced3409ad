//! Where the programs are: ours, built once for each test process, and the servers and clients
//! that `tests/setup.sh` has installed.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
}

/// A file under `tests/`.
#[must_use]
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// One of our programs: `mcpctl`, `mcp-dataplane` or `mcp-controlplane`.
///
/// # Panics
/// They do not compile, or cargo does not run.
#[must_use]
pub fn ours(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).join(name)
}

/// Builds our programs beside the running test (cargo does nothing where they are fresh) and
/// gives their folder. `cargo test` itself does not build the programs of other packages.
fn build() -> PathBuf {
    let test = env::current_exe().expect("the running test has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("a test lies in target/PROFILE/deps");
    let target = profile.parent().expect("PROFILE lies in the target folder");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root())
        .args(["build", "--quiet", "--workspace", "--bins", "--target-dir"])
        .arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "our programs do not compile: {status}");
    profile.to_owned()
}

/// A file under the folder of installed servers and clients.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn installed(path: &str) -> PathBuf {
    let deps = env::var_os("MCP_FLEET_DEPS").map_or_else(|| root().join(".deps"), PathBuf::from);
    let file = deps.join(path);
    assert!(
        file.exists(),
        "{} is missing: run tests/setup.sh (`make test` does)",
        file.display()
    );
    file
}

/// Node 22.
#[must_use]
pub fn node() -> PathBuf {
    installed("node/node")
}

/// Python with `mcp` 2.x.
#[must_use]
pub fn python() -> PathBuf {
    installed("python/bin/python")
}
