//! The guard as a process of its own. This test program plays the guard: it runs itself again
//! with only the test [`plays_the_guard`], told by the environment what to guard.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{GRACE, run, tree};

/// Arguments of the guard, one on a line.
const ARGS: &str = "STDIO_GUARD_TEST_ARGS";
/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
#[ignore = "is run by the other tests, in a process of its own"]
fn plays_the_guard() {
    if let Ok(args) = env::var(ARGS) {
        let code = run::run(args.lines().map(Into::into)).unwrap_or_else(|error| {
            eprintln!("{error}");
            127
        });
        std::process::exit(i32::from(code));
    }
}

/// A child that leaves behind a process in its group and one in a session of its own, both
/// deaf to `SIGTERM`, writes down all three ids, and then does `then`.
fn family(pids: &Path, then: &str) -> String {
    let pids = pids.display();
    let child = format!(
        "trap '' TERM; sleep 1000 & echo $! > {pids}.part; \
         setsid sh -c 'trap \"\" TERM; echo $$ >> {pids}.part; mv {pids}.part {pids}; sleep 1000' & \
         until [ -f {pids} ]; do sleep 0.01; done; echo $$ >> {pids}.part; cat {pids} >> {pids}.part; \
         mv {pids}.part {pids}; {then}"
    );
    format!("sh\n-c\n{child}")
}

/// The guard of `child` with the parent that the shell expression `parent` gives, as a shell
/// command.
fn guard(parent: &str, child: &str) -> Command {
    let mut command = Command::new("sh");
    let this = env::current_exe().unwrap();
    let test = "upstream::guard::tests::plays_the_guard";
    command
        .arg("-c")
        .arg(format!(
            "{ARGS}=\"{parent}\n$CHILD\" '{}' --exact {test} --ignored & echo $! > \"$OUT\"; wait $!",
            this.display()
        ))
        .env("CHILD", child)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn read_pids(path: &Path, count: usize) -> Vec<i32> {
    let read = || -> Vec<i32> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    };
    until(&format!("{count} ids in {}", path.display()), || {
        read().len() >= count
    });
    read()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the process runs: it is there and no zombie.
fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').unwrap()..].starts_with(") Z"))
}

fn assert_ended(pids: &[i32]) {
    for &pid in pids {
        until(&format!("the end of {pid}"), || !lives(pid));
    }
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn paths() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (pids, guard) = (
        directory.path().join("pids"),
        directory.path().join("guard"),
    );
    (directory, pids, guard)
}

#[test]
fn a_killed_data_plane_leaves_no_descendant() {
    let (_directory, pids, out) = paths();
    // The shell is the data plane here.
    let mut plane = guard("$$", &family(&pids, "sleep 1000"))
        .env("OUT", &out)
        .spawn()
        .unwrap();
    let family = read_pids(&pids, 3);
    let guard = read_pids(&out, 1);
    assert!(family.iter().chain(&guard).all(|&pid| lives(pid)));
    plane.kill().unwrap();
    plane.wait().unwrap();
    assert_ended(&family);
    assert_ended(&guard);
}

#[test]
fn the_childs_exit_code_comes_through_and_ends_what_it_left() {
    let (_directory, pids, out) = paths();
    let status = guard("$$", &family(&pids, "exit 7"))
        .env("OUT", &out)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(7));
    assert_ended(&read_pids(&pids, 3));
}

#[test]
fn a_deadly_signal_comes_through_as_128_and_its_number() {
    let (_directory, _, out) = paths();
    let status = guard("$$", "sh\n-c\nkill -9 $$")
        .env("OUT", &out)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(128 + 9));
}

#[test]
fn sigterm_is_passed_on_and_after_a_grace_everything_is_killed() {
    let (_directory, pids, out) = paths();
    let mut plane = guard("$$", &family(&pids, "sleep 1000"))
        .env("OUT", &out)
        .spawn()
        .unwrap();
    let family = read_pids(&pids, 3);
    let asked = Instant::now();
    kill(read_pids(&out, 1)[0], Signal::TERM);
    assert_eq!(plane.wait().unwrap().code(), Some(128 + 9));
    // Only the deafness of the family makes it last.
    assert!(asked.elapsed() >= GRACE);
    assert_ended(&family);
}

#[test]
fn a_guard_whose_data_plane_has_gone_starts_nothing() {
    let (_directory, pids, out) = paths();
    // Process 1 lives, but is not the parent.
    let status = guard("1", &family(&pids, "exit 0"))
        .env("OUT", &out)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(127));
    assert!(!pids.exists());
}

#[test]
fn descendants_in_other_sessions_are_found() {
    let mut child = Command::new("setsid")
        .args(["sh", "-c", "sleep 1000 & wait"])
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    until("the grandchild", || !tree::children(pid).is_empty());
    let grandchild = tree::children(pid)[0];
    let found = tree::living_descendants(rustix::process::getpid());
    assert!(found.contains(&pid) && found.contains(&grandchild));
    child.kill().unwrap();
    child.wait().unwrap();
    kill_process(grandchild, Signal::KILL).unwrap();
}
