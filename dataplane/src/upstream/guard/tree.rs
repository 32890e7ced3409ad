//! Who descends from whom, read from `/proc/*/stat` (proc_pid_stat(5)).

use std::{collections::BTreeMap, fs};

use rustix::process::Pid;

/// One process.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    /// It runs something still: not a zombie, or one whose other threads go on.
    lives: bool,
}

/// The direct children of `pid`, by id.
pub(super) fn children(pid: Pid) -> Vec<Pid> {
    let parent = pid.as_raw_nonzero().get();
    let mut children: Vec<_> = processes()
        .filter(|process| process.parent == parent)
        .filter_map(|process| Pid::from_raw(process.pid))
        .collect();
    children.sort_by_key(|pid| pid.as_raw_nonzero());
    children
}

/// Everything below `root` that still runs.
pub(super) fn living_descendants(root: Pid) -> Vec<Pid> {
    let mut below = BTreeMap::<i32, Vec<Process>>::new();
    for process in processes() {
        below.entry(process.parent).or_default().push(process);
    }
    let mut living = Vec::new();
    let mut parents = vec![root.as_raw_nonzero().get()];
    while let Some(parent) = parents.pop() {
        // Taken out, so that ids reused between two reads cannot make a circle.
        for process in below.remove(&parent).unwrap_or_default() {
            parents.push(process.pid);
            if process.lives {
                living.extend(Pid::from_raw(process.pid));
            }
        }
    }
    living
}

fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            parse(pid, &fs::read(entry.path().join("stat")).ok()?)
        })
}

/// Reads one `stat` line. The command's name, in parentheses, may hold anything, parentheses
/// included; what follows the last one is plain.
fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let name_end = memchr::memrchr(b')', stat)?;
    let fields: Vec<_> = std::str::from_utf8(&stat[name_end + 1..])
        .ok()?
        .split_whitespace()
        .collect();
    let (state, parent, threads) = (fields.first()?, fields.get(1)?, fields.get(17)?);
    Some(Process {
        pid,
        parent: parent.parse().ok()?,
        lives: !matches!(*state, "Z" | "X") || threads.parse::<u32>().ok()? > 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, state: &str, threads: u32) -> String {
        format!("7 ({name}) {state} 3 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 99 0 0\n")
    }

    #[test]
    fn a_name_with_parentheses_does_not_mislead() {
        let line = stat("a) Z 1 (b", "S", 1);
        assert_eq!(
            parse(7, line.as_bytes()),
            Some(Process {
                pid: 7,
                parent: 3,
                lives: true
            })
        );
    }

    #[test]
    fn a_zombie_lives_only_by_its_other_threads() {
        assert!(!parse(7, stat("x", "Z", 1).as_bytes()).unwrap().lives);
        assert!(parse(7, stat("x", "Z", 2).as_bytes()).unwrap().lives);
    }

    #[test]
    fn a_truncated_line_is_no_process() {
        assert_eq!(parse(7, b"7 (x) S 3"), None);
    }
}
