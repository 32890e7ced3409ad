//! The guard process: starts the child, then waits for the first of three ends.
//!
//! - The data plane is gone: everything below the guard is killed.
//! - The child has ended: what it left behind is killed, and the guard ends with its status.
//! - `SIGTERM`: passed on to the child's group; what is left after [`GRACE`] is killed.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, kill_process, kill_process_group,
        pidfd_open, set_child_subreaper, wait,
    },
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};

use super::{GRACE, tree};

/// Exit code of a guard that could not start the child, as a shell's.
const NOT_STARTED: u8 = 127;
/// Exit code of a guard that has killed its child.
const KILLED: u8 = 128 + 9;
/// Between two looks at what is still alive.
const ROUND: Duration = Duration::from_millis(5);
/// After so many rounds (10 s) only processes are left that cannot be killed, such as those
/// of another user; they have got their `SIGKILL`.
const ROUNDS: u32 = 2000;
/// How often the parent is asked for on a kernel without pidfds.
const POLL: Duration = Duration::from_millis(200);

/// Runs a guard with the arguments after `__stdio-guard`: the data plane's process id, the
/// program, its arguments.
pub(super) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(what) => {
            eprintln!("stdio guard: {what}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

pub(super) fn run(mut args: impl Iterator<Item = OsString>) -> Result<u8, String> {
    let parent = args
        .next()
        .and_then(|id| id.to_str()?.parse().ok())
        .and_then(Pid::from_raw)
        .ok_or("the first argument must be the process id of the data plane")?;
    let program = args
        .next()
        .ok_or("the second argument must be the program to run")?;
    let mut command = Command::new(&program);
    command.args(args).process_group(0);

    set_child_subreaper(Some(getpid())).map_err(|e| format!("cannot become subreaper: {e}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .and_then(|runtime| runtime.block_on(watch(parent, command)))
        .map_err(|e| format!("cannot run {}: {e}", program.display()))
}

async fn watch(parent: Pid, mut command: Command) -> io::Result<u8> {
    let mut ended = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut parent_gone = watch_parent(parent)?;
    let child = command.spawn()?;
    let child = Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
    release_streams()?;

    let mut deadline = None;
    loop {
        if let Some(code) = reap(child) {
            end_all().await;
            return Ok(code);
        }
        tokio::select! {
            _ = ended.recv() => continue,
            _ = &mut parent_gone => {
                let _ = kill_process_group(child, Signal::KILL);
                end_all().await;
                return Ok(KILLED);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let _ = kill_process_group(child, Signal::KILL);
                end_all().await;
                return Ok(KILLED);
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        if deadline.is_none() {
            let _ = kill_process_group(child, Signal::TERM);
            deadline = Some(Instant::now() + GRACE);
        }
    }
}

/// Completes when `parent` is gone. A thread waits for it, because the safe interface of
/// tokio has no place for a pidfd; it ends with the process.
///
/// # Errors
/// When `parent` is gone already, or nobody's parent.
fn watch_parent(parent: Pid) -> io::Result<oneshot::Receiver<()>> {
    // An error means a kernel older than 5.3, or a process that has just gone.
    let pidfd = pidfd_open(parent, PidfdFlags::empty());
    // Asked when the pidfd is open, so that one of a process that merely got the same id
    // is not trusted.
    if getppid() != Some(parent) {
        return Err(io::Error::other("the data plane has gone"));
    }
    let (gone, is_gone) = oneshot::channel();
    thread::Builder::new()
        .name("parent".to_owned())
        .spawn(move || {
            if let Ok(pidfd) = pidfd {
                let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
                while poll(&mut polled, None) == Err(Errno::INTR) {}
            }
            while getppid() == Some(parent) {
                thread::sleep(POLL);
            }
            let _ = gone.send(());
        })?;
    Ok(is_gone)
}

/// Gives up the pipes that the child has now, so that the data plane sees them close when
/// the child closes them. Standard error stays, for our own last words.
fn release_streams() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Takes in every process that has ended; returns the exit code of `child` if it was among
/// them, 128 + N when it was killed by signal N.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            let status = status
                .exit_status()
                .unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0));
            code = Some(u8::try_from(status).unwrap_or(u8::MAX));
        }
    }
    code
}

/// Kills everything below this process, again and again until nothing is left: what is being
/// forked meanwhile, too. Orphans become our own children and turn up in the next round.
async fn end_all() {
    for _ in 0..ROUNDS {
        let living = tree::living_descendants(getpid());
        if living.is_empty() {
            return;
        }
        for pid in living {
            let _ = kill_process(pid, Signal::KILL);
        }
        sleep(ROUND).await;
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}
