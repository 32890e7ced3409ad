//! A child process: its output as lines, its end, and what `/proc` says about any pid.

use std::{process::Stdio, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
};

use crate::wait::soon;

/// A running child. It is killed, by its own pid, when this value is dropped, and its output is
/// printed then.
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    output: Arc<Output>,
}

/// Every line of a child so far, both streams in the order of arrival.
struct Output {
    lines: Mutex<Vec<String>>,
    changed: watch::Sender<(usize, u8)>,
}

impl Process {
    /// Starts `command` with nothing on stdin.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} does not start: {command:?}"))?;
        let output = Arc::new(Output {
            lines: Mutex::default(),
            changed: watch::Sender::new((0, 0)),
        });
        tokio::spawn(read(
            child.stdout.take().context("stdout is piped")?,
            Arc::clone(&output),
        ));
        tokio::spawn(read(
            child.stderr.take().context("stderr is piped")?,
            Arc::clone(&output),
        ));
        let pid = child.id().context("the child has just been started")?;
        Ok(Self {
            name: name.to_owned(),
            child,
            pid,
            output,
        })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has printed so far.
    #[must_use]
    pub fn printed(&self) -> String {
        self.output.lines.lock().join("\n")
    }

    /// Waits for a line, on stdout or stderr, of which `pick` makes something.
    ///
    /// # Errors
    /// The child closed its output, or too much time has passed.
    pub async fn line<T>(&self, what: &str, pick: impl Fn(&str) -> Option<T>) -> Result<T> {
        let mut changed = self.output.changed.subscribe();
        let mut seen = 0;
        let wait = async {
            loop {
                let (count, closed) = *changed.borrow_and_update();
                for line in &self.output.lines.lock()[seen..count] {
                    if let Some(picked) = pick(line) {
                        return Ok(picked);
                    }
                }
                seen = count;
                if closed == 2 {
                    return Err(anyhow!("it closed its output"));
                }
                changed.changed().await.context("it is gone")?;
            }
        };
        let outcome = soon(what, wait).await.and_then(|found| found);
        outcome.with_context(|| format!("{} did not print {what}:\n{}", self.name, self.printed()))
    }

    /// Whether it has ended. A zombie has.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !runs(self.pid)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has already been waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.child.id().is_none() {
            bail!("{} has already ended", self.name);
        }
        rustix::process::kill_process(pid(self.pid)?, signal)
            .context("the child cannot be signalled")
    }

    /// Waits for its end and gives its exit code; -1 when a signal ended it.
    ///
    /// # Errors
    /// It goes on running.
    pub async fn ended(&mut self) -> Result<i32> {
        let status = soon("the end of a child", self.child.wait()).await;
        let status = status.with_context(|| format!("{}:\n{}", self.name, self.printed()))??;
        Ok(status.code().unwrap_or(-1))
    }

    /// Kills it as `kill -9` does and waits for its end.
    ///
    /// # Errors
    /// It has already ended.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.ended().await.map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Shown by the test runner when the test has failed.
        eprintln!("--- {} printed:\n{}\n---", self.name, self.printed());
    }
}

async fn read(stream: impl AsyncRead + Unpin, output: Arc<Output>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let count = {
            let mut all = output.lines.lock();
            all.push(line);
            all.len()
        };
        output
            .changed
            .send_modify(|(lines, _)| *lines = (*lines).max(count));
    }
    output.changed.send_modify(|(_, closed)| *closed += 1);
}

fn pid(number: u32) -> Result<Pid> {
    i32::try_from(number)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("no pid: {number}"))
}

/// Whether the process runs. A zombie does not: its parent has yet to take note, that is all.
#[must_use]
pub fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The name, in parentheses, may hold anything; the state follows it.
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().next());
    !matches!(state, Some("Z" | "X") | None)
}

/// Kills a process that a test has left running.
pub fn kill(number: u32) {
    if let Ok(pid) = pid(number) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Its children, and theirs.
#[must_use]
pub fn below(number: u32) -> Vec<u32> {
    let mut found = vec![number];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        next += 1;
    }
    found.split_off(1)
}

/// What a process holds on to.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Resident memory in KiB.
    pub memory: u64,
    /// The most that it has been.
    pub peak: u64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

/// What a process holds on to now.
///
/// # Errors
/// It does not run.
pub fn held(number: u32) -> Result<Held> {
    let count = |what: &str| {
        Ok::<_, anyhow::Error>(std::fs::read_dir(format!("/proc/{number}/{what}"))?.count())
    };
    let status = std::fs::read_to_string(format!("/proc/{number}/status"))?;
    let size = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let size = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        size.with_context(|| format!("no {name}"))
    };
    Ok(Held {
        memory: size("VmRSS:")?,
        peak: size("VmHWM:")?,
        descriptors: count("fd")?,
        threads: count("task")?,
    })
}
