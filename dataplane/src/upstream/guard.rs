//! Keeps the children of stdio backends from outliving the data plane, `kill -9` included.
//!
//! Every child runs under a guard: a small process of the same program, started as
//! `PROGRAM __stdio-guard PID COMMAND ARGS…`, that holds a pidfd of the data plane and is the
//! subreaper of whatever the child starts, so that a grandchild with a session of its own is
//! still found. The guard ends with the child and ends everything below it; see [`run`] for
//! the life of a guard and [`tree`] for how it finds its descendants.
//!
//! Linux only. On other systems children are started as with
//! [`Guard::Off`]: in their own process group, killed when the data plane drops them.

#[cfg(target_os = "linux")]
mod run;
#[cfg(all(test, target_os = "linux"))]
mod tests;
#[cfg(target_os = "linux")]
mod tree;

use std::{collections::BTreeMap, path::Path, process::ExitCode, time::Duration};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use crate::settings::Guard;

/// First argument that makes a process a guard.
#[cfg(target_os = "linux")]
const ASKED: &str = "__stdio-guard";

/// How long a child may take to leave after its input was closed, and again after `SIGTERM`.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Runs the guard when this process was started as one, and returns its exit code; `None` in
/// every other process. Call it first in `main`, before any thread exists.
#[must_use]
pub fn main_if_asked() -> Option<ExitCode> {
    #[cfg(target_os = "linux")]
    {
        let mut args = std::env::args_os().skip(1);
        if args.next()? == ASKED {
            return Some(run::main(args));
        }
    }
    None
}

/// What the names of this program's own environment variables begin with, tokens among them.
pub const OWN_VARIABLES: &str = "MCP_FLEET_";

/// The command that starts `program`, under a guard unless that is off. `env` is added to the
/// environment of this process, which goes without [`OWN_VARIABLES`]. Standard streams are left to the caller.
pub(crate) fn command(
    guard: &Guard,
    program: &Path,
    args: &[String],
    env: &BTreeMap<String, String>,
    cwd: Option<&Path>,
) -> Command {
    let mut command = match executable(guard) {
        #[cfg(target_os = "linux")]
        Some(executable) => {
            let mut command = Command::new(executable);
            command
                .arg0("mcp-stdio-guard")
                .arg(ASKED)
                .arg(std::process::id().to_string())
                .arg(program);
            command
        }
        _ => {
            let mut command = Command::new(program);
            command.kill_on_drop(true);
            command
        }
    };
    // Our own credentials are not the child's, unless its configuration says so.
    for (name, _) in std::env::vars_os() {
        if name
            .as_encoded_bytes()
            .starts_with(OWN_VARIABLES.as_bytes())
        {
            command.env_remove(name);
        }
    }
    command.args(args).envs(env).process_group(0);
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    command
}

/// The program to run as guard; `None` for no guard.
fn executable(guard: &Guard) -> Option<&Path> {
    match guard {
        _ if cfg!(not(target_os = "linux")) => None,
        // Not `current_exe()`: after an upgrade in place that path is another program, or none.
        Guard::CurrentExe => Some(Path::new("/proc/self/exe")),
        Guard::Program(path) => Some(path),
        Guard::Off => None,
    }
}

/// Holds the process that [`command`] started. When dropped while it lives, the guard is told
/// to end it; without a guard `kill_on_drop` does what it can.
pub(crate) struct Leash {
    process: Child,
    pid: Option<Pid>,
    guarded: bool,
    /// Process group of the guard's child, for the case that somebody kills the guard.
    group: Option<Pid>,
}

impl Leash {
    /// Takes over a process spawned from [`command`] with the same `guard`.
    pub(crate) fn new(process: Child, guard: &Guard) -> Self {
        let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Self {
            process,
            pid,
            guarded: executable(guard).is_some(),
            group: None,
        }
    }

    /// Process id of the guard, or of the child when there is none; 0 when it has ended.
    pub(crate) fn id(&self) -> u32 {
        self.process.id().unwrap_or(0)
    }

    /// Notes what the guard has started. Called once the child has shown that it runs.
    pub(crate) fn note_child(&mut self) {
        #[cfg(target_os = "linux")]
        if let (true, Some(pid)) = (self.guarded, self.pid) {
            self.group = tree::children(pid).first().copied();
        }
    }

    /// Waits until the process has ended; returns how, in words. May be called again.
    pub(crate) async fn wait(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => {
                let killed = std::os::unix::process::ExitStatusExt::signal(&status);
                if let (true, Some(signal)) = (self.guarded, killed) {
                    self.end_orphans();
                    return format!("its guard process was killed by signal {signal}");
                }
                match (status.code(), killed) {
                    (Some(code), _) if self.guarded && code > 128 => {
                        format!("killed by signal {}", code - 128)
                    }
                    (Some(code), _) => format!("exit code {code}"),
                    (None, Some(signal)) => format!("killed by signal {signal}"),
                    (None, None) => "ended".to_owned(),
                }
            }
            Err(error) => format!("its exit status is unknown: {error}"),
        }
    }

    /// Ends the process, whose input the caller has closed: waits, `SIGTERM`, waits, `SIGKILL`
    /// (specification, stdio, "Shutdown"). Returns how it ended.
    pub(crate) async fn stop(&mut self) -> String {
        if let Ok(status) = tokio::time::timeout(GRACE, self.wait()).await {
            return status;
        }
        self.terminate();
        // A guard does the second half itself, and needs a moment more to clear up.
        let patience = if self.guarded { GRACE * 3 } else { GRACE };
        if let Ok(status) = tokio::time::timeout(patience, self.wait()).await {
            return status;
        }
        if let (Some(pid), Some(_)) = (self.pid, self.process.id()) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        self.wait().await
    }

    fn terminate(&self) {
        // An id that has not been waited for cannot belong to another process.
        if let (Some(pid), Some(_)) = (self.pid, self.process.id()) {
            let _ = if self.guarded {
                kill_process(pid, Signal::TERM)
            } else {
                kill_process_group(pid, Signal::TERM)
            };
        }
    }

    fn end_orphans(&mut self) {
        if let Some(group) = self.group.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.terminate();
    }
}
