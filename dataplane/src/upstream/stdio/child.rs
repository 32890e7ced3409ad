//! One child process: found, started under its guard, read from and written to, ended.

use std::{
    env, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::fs::{Access, access};
use tokio::{process::ChildStderr, task::JoinHandle, time::timeout};

use futures_util::future::{BoxFuture, FutureExt};

use super::{
    StdioConfig,
    lines::{self, Line, Lines},
};
use crate::upstream::{
    duplex::{Connection, DuplexError, Hidden, Link, OnNotification, Throttle},
    guard::{self, Leash},
};

/// Longest line taken whole from standard error; a longer one is cut.
const MAX_STDERR_LINE: usize = 8 << 10;
/// How long the output of a child that has ended may still have something for us.
const DRAIN: Duration = Duration::from_secs(1);

/// A running child and what reads and writes for it.
pub(super) struct Process {
    link: Arc<Link>,
    leash: Leash,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    errors: JoinHandle<()>,
    last_words: Arc<Mutex<String>>,
}

impl Process {
    /// Starts the child and the tasks that serve it, on the current runtime.
    pub(super) fn start(
        config: &StdioConfig,
        on_notification: OnNotification,
    ) -> Result<Self, DuplexError> {
        let failed = |reason: String| DuplexError::Spawn {
            command: config.command.clone(),
            reason,
        };
        let mut env = config.env.clone();
        let path = search_path(config);
        let program = find_in(&config.command, &path, config.cwd.as_deref()).map_err(failed)?;
        if let Some(cwd) = config.cwd.as_deref().filter(|cwd| !cwd.is_dir()) {
            return Err(failed(format!(
                "its working directory {} does not exist",
                cwd.display()
            )));
        }
        if !config.extra_path.is_empty() {
            let joined = env::join_paths(&path).map_err(|e| failed(e.to_string()))?;
            env.insert("PATH".to_owned(), joined.to_string_lossy().into_owned());
        }
        let cwd = config.cwd.as_deref();
        let mut child = guard::command(&config.guard, &program, &config.args, &env, cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("{}: {error}", program.display())))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("its standard streams are missing".to_owned()));
        };
        let (link, queues) = Link::new(&config.name, Hidden::new(&config.hidden), on_notification);
        let last_words = Arc::<Mutex<String>>::default();
        let errors = log_errors(
            config.name.clone(),
            Hidden::new(&config.hidden),
            stderr,
            last_words.clone(),
        );
        Ok(Self {
            reader: tokio::spawn(lines::read(link.clone(), stdout)),
            writer: tokio::spawn(lines::write(link.clone(), stdin, queues)),
            errors: tokio::spawn(errors),
            leash: Leash::new(child, &config.guard),
            link,
            last_words,
        })
    }

    /// Waits until the child has ended, or has closed its input or output and is therefore
    /// ended here. Returns why, when all it has written is delivered. May be dropped and
    /// called again.
    async fn until_ended(&mut self) -> DuplexError {
        let status = tokio::select! {
            status = self.leash.wait() => status,
            () = self.link.broken() => match timeout(DRAIN, self.leash.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    let status = self.stop().await;
                    format!("it closed its standard input or output, then {status}")
                }
            },
        };
        // Without a guard a grandchild may hold the pipes open for ever.
        let _ = timeout(DRAIN, async {
            if !self.errors.is_finished() {
                let _ = (&mut self.errors).await;
            }
            self.link.broken().await;
        })
        .await;
        DuplexError::Exited {
            status,
            last_words: self.last_words.lock().clone(),
        }
    }

    /// Ends the child in order, beginning with its input. Returns how it ended.
    async fn stop(&mut self) -> String {
        self.writer.abort();
        self.leash.stop().await
    }
}

impl Connection for Process {
    fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn pid(&self) -> Option<u32> {
        Some(self.leash.id())
    }

    fn greeted(&mut self) {
        // It has answered, and so surely runs.
        self.leash.note_child();
    }

    fn ended(&mut self) -> BoxFuture<'_, DuplexError> {
        self.until_ended().boxed()
    }

    fn end(&mut self) -> BoxFuture<'_, ()> {
        self.stop().map(|_| ()).boxed()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
        self.errors.abort();
        self.link.close(&DuplexError::Closed);
    }
}

/// Logs what a child writes to its standard error, within bounds, and keeps the last line.
/// Not as errors: servers write whatever they like there (specification, stdio).
async fn log_errors(
    backend: String,
    hidden: Hidden,
    from: ChildStderr,
    last_words: Arc<Mutex<String>>,
) {
    let mut lines = Lines::new(from, MAX_STDERR_LINE);
    let mut throttle = Throttle::new();
    while let Ok(Some(line)) = lines.next().await {
        let text = match &line {
            Line::Whole(text) => {
                let text = String::from_utf8_lossy(text);
                hidden.out_of(text.trim_end()).into_owned()
            }
            Line::TooLong(_, beginning) => {
                hidden.out_of_beginning(&String::from_utf8_lossy(beginning))
            }
        };
        if text.is_empty() {
            continue;
        }
        last_words.lock().clone_from(&text);
        if let Some(suppressed) = throttle.admit() {
            tracing::info!(target: "mcp::stdio", backend, suppressed, "stderr: {text}");
        }
    }
}

/// The directories of `PATH` for the child, in order.
fn search_path(config: &StdioConfig) -> Vec<PathBuf> {
    let path = config
        .env
        .get("PATH")
        .map(Into::into)
        .or_else(|| env::var_os("PATH"));
    let configured = path.iter().flat_map(env::split_paths);
    configured
        .chain(config.extra_path.iter().cloned())
        .collect()
}

/// Finds the program of a backend, as [`Process::start`] will.
pub(super) fn find(config: &StdioConfig) -> Result<PathBuf, String> {
    find_in(&config.command, &search_path(config), config.cwd.as_deref())
}

/// Finds the program as a shell does: a path as it is, from `cwd`; a name in `path`.
fn find_in(command: &str, path: &[PathBuf], cwd: Option<&Path>) -> Result<PathBuf, String> {
    let here = || env::current_dir().map_err(|e| format!("the current directory is unknown: {e}"));
    let from_cwd = |path: &Path| match cwd {
        Some(cwd) if cwd.is_absolute() => Ok(cwd.join(path)),
        Some(cwd) => Ok(here()?.join(cwd).join(path)),
        None => Ok::<_, String>(here()?.join(path)),
    };
    if command.contains('/') {
        let program = from_cwd(Path::new(command))?;
        return runnable(&program)
            .map(|()| program.clone())
            .map_err(|error| format!("{}: {error}", program.display()));
    }
    let mut found = None;
    for directory in path {
        let program = from_cwd(&directory.join(command))?;
        match runnable(&program) {
            Ok(()) => return Ok(program),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found = Some(format!("{}: {error}", program.display())),
        }
    }
    Err(found.unwrap_or_else(|| {
        let directories: Vec<_> = path.iter().map(|p| p.as_os_str().as_bytes()).collect();
        let directories = directories.join(&b':');
        let directories = String::from_utf8_lossy(&directories);
        format!("no such program in PATH ({directories}); install it, or give its full path")
    }))
}

fn runnable(program: &Path) -> io::Result<()> {
    if !program.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "not a file"));
    }
    Ok(access(program, Access::EXEC_OK)?)
}
