//! Child processes, and what `/proc` says of them. A child ends with the value that holds it.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child as Process, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// `utime` and `stime` count in these on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A running child.
pub struct Child {
    name: String,
    process: Process,
    lines: Receiver<String>,
}

impl Child {
    /// Starts it, with a stdin that ends when this process does.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command
            .spawn()
            .with_context(|| format!("{name} does not start: {command:?}"))?;
        let (send, lines) = channel();
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            process.stdout.take().map(|s| Box::new(s) as _),
            process.stderr.take().map(|s| Box::new(s) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let send = send.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    // Read on even when nobody listens: a full pipe would stop the child.
                    let _ = send.send(line);
                }
            });
        }
        Ok(Self {
            name: name.to_owned(),
            process,
            lines,
        })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its stdin.
    pub fn stdin(&mut self) -> Option<&mut std::process::ChildStdin> {
        self.process.stdin.as_mut()
    }

    /// Waits for a line of output of which `pick` makes something.
    ///
    /// # Errors
    /// There is none in time.
    pub fn line<T>(&self, patience: Duration, pick: impl Fn(&str) -> Option<T>) -> Result<T> {
        let until = Instant::now() + patience;
        let mut printed = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(picked) = pick(&line) {
                        return Ok(picked);
                    }
                    printed.push(line);
                }
                Err(why) => {
                    let why = match why {
                        RecvTimeoutError::Timeout => format!("within {patience:?}"),
                        RecvTimeoutError::Disconnected => "before it ended".to_owned(),
                    };
                    bail!(
                        "{} did not get ready {why}:\n{}",
                        self.name,
                        printed.join("\n")
                    );
                }
            }
        }
    }

    /// Drops the lines that have come so far.
    pub fn forget_lines(&self) {
        while self.lines.try_recv().is_ok() {}
    }

    /// Waits until it ends by itself; its stdin is closed first.
    ///
    /// # Errors
    /// It fails.
    pub fn ended(&mut self) -> Result<()> {
        drop(self.process.stdin.take());
        let status = self.process.wait()?;
        if !status.success() {
            let printed: Vec<_> = self.lines.iter().collect();
            bail!("{} ended with {status}:\n{}", self.name, printed.join("\n"));
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return;
        }
        // nginx ends its workers on SIGTERM only.
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What a process and its children have used and hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time in seconds, user and system.
    pub cpu: f64,
    /// Resident memory in MiB.
    pub memory: f64,
}

/// What the process of this pid and its children use.
#[must_use]
pub fn usage(pid: u32) -> Usage {
    let mut all = vec![pid];
    let mut next = 0;
    let mut usage = Usage::default();
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        usage.cpu += cpu(pid).unwrap_or_default();
        usage.memory += memory(pid).unwrap_or_default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    usage
}

fn cpu(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th field
    // behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn memory(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// The pid of the process that listens on this port of this machine.
#[must_use]
pub fn listener(port: u16) -> Option<u32> {
    let wanted = format!(":{port:04X}");
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            fs::read_to_string(table).ok()?.lines().find_map(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                let listens = fields.get(3) == Some(&"0A") && fields[1].ends_with(&wanted);
                listens.then(|| fields[9].to_owned())
            })
        })?;
    let socket = format!("socket:[{inode}]");
    let is_its = |pid: u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        open.flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
    };
    let all = fs::read_dir("/proc").ok()?.flatten();
    // A master has its listener before its workers inherit it, and the lower pid.
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| is_its(*pid))
        .min()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn this_process_is_found_by_its_port_and_uses_something() {
        let here = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let pid = std::process::id();
        assert_eq!(listener(here.local_addr().unwrap().port()), Some(pid));
        let memory = usage(pid).memory;
        assert!(memory > 1.0 && memory < 10_000.0, "{memory}");
    }

    #[test]
    fn children_count() {
        let mut command = Command::new("sh");
        // Ends by itself in some seconds, whatever becomes of this test.
        let busy = "i=0; while [ $i -lt 3000000 ]; do i=$((i+1)); done & echo up; wait";
        command.args(["-c", busy]);
        let mut child = Child::start("busy", command).unwrap();
        child
            .line(Duration::from_secs(10), |line| (line == "up").then_some(()))
            .unwrap();
        while usage(child.pid()).cpu < 0.05 {
            let runs = matches!(child.process.try_wait(), Ok(None));
            assert!(runs, "it has ended, and its child was not seen to work");
            std::thread::yield_now();
        }
        let tasks =
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.pid())).unwrap();
        for pid in tasks.split_whitespace() {
            let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
        }
    }
}
