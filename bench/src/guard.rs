//! A guard against slower calls that is no clock: the instructions and allocations of a call,
//! counted by `valgrind --tool=callgrind`, beside what is recorded in `bench/hot_path.txt`.
//!
//! Only the data plane is counted, all of it but the kernel: the load and the backend run outside.

mod callgrind;
mod recorded;

use std::{
    env,
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    backend,
    child::Child,
    load::{Ask, Endpoint, Era, Line, check::Check},
};
use callgrind::Count;
use recorded::Recorded;

/// Calls that are counted; more make the figures no steadier.
const CALLS: u64 = 1_000;
/// Calls before these, so that everything is there that is made once.
const WARM: u64 = 100;
/// How much more than recorded is let through, and by how much 10,000 backends may differ from one.
const TOLERANCE: f64 = 0.03;
/// Valgrind takes its time to compile ten thousand backends.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a call costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Instructions.
    pub instructions: f64,
    /// Allocations.
    pub allocations: f64,
}

/// Counts, and compares with what is recorded, or records it. Prints the `top` functions, too.
///
/// # Errors
/// A call costs more than it did; valgrind is missing.
pub fn run(root: &Path, record: bool, top: usize) -> Result<()> {
    let file = root.join("bench/hot_path.txt");
    let host = recorded::here()?;
    let one = count(1, top)?;
    let many = count(10_000, 0)?;
    let names = ["legacy", "modern"];
    for ((name, one), many) in names.iter().zip(&one).zip(&many) {
        println!(
            "{name}: {:.0} instructions and {:.2} allocations a call; {:.0} with 10,000 backends",
            one.instructions, one.allocations, many.instructions
        );
        let ratio = many.instructions / one.instructions;
        ensure!(
            ratio < 1.0 + TOLERANCE,
            "with 10,000 backends a {name} call takes {ratio:.3} times the instructions that it takes with one"
        );
    }
    let costs: Vec<_> = names.iter().copied().zip(one).collect();
    if record {
        return recorded::write(&file, &host, &costs);
    }
    let recorded = Recorded::read(&file)?;
    if let Some(why) = recorded.differs(&host) {
        println!("not compared with {}: {why}", file.display());
        return Ok(());
    }
    compare(&recorded, &costs)
}

fn compare(recorded: &Recorded, costs: &[(&str, Cost)]) -> Result<()> {
    let mut worse = Vec::new();
    for (name, now) in costs {
        let before = recorded.cost(name)?;
        for (what, now, before) in [
            ("instructions", now.instructions, before.instructions),
            ("allocations", now.allocations, before.allocations),
        ] {
            let change = now / before - 1.0;
            if change > TOLERANCE {
                worse.push(format!(
                    "a {name} call takes {now:.1} {what}, {:.1} % more than the recorded {before:.1}",
                    change * 100.0
                ));
            } else if change < -TOLERANCE {
                println!(
                    "a {name} call takes {:.1} % less {what} than recorded: record it (`make guard-record`), so that it stays",
                    change * -100.0
                );
            }
        }
    }
    if worse.is_empty() {
        return Ok(());
    }
    bail!(
        "{}. If it is worth that, record it: `make guard-record`",
        worse.join("; ")
    )
}

/// The cost of a call in each era, with this many backends in the table.
fn count(backends: usize, top: usize) -> Result<[Cost; 2]> {
    let dir = tempfile::tempdir()?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let backend = listener.local_addr()?;
    backend::serve(
        listener,
        backend::Options {
            threads: 1,
            tools: 2,
            close: false,
        },
    )?;
    let mut plane = start(dir.path(), backend, backends)?;
    let address = plane.line(PATIENCE, |line| {
        line.strip_prefix("listening ")?.parse().ok()
    })?;
    let mut to = Endpoint::new("hot_path", address, "/mcp");
    to.tool = format!("server-{:05}__echo", backends / 2);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut costs = Vec::new();
    for (place, era) in [Era::Legacy, Era::Modern].into_iter().enumerate() {
        let mut check = Check::default();
        let mut line = runtime.block_on(Line::open(&to, era, &Ask::Small))?;
        runtime.block_on(calls(&mut line, &mut check, WARM))?;
        mark(&mut plane)?;
        runtime.block_on(calls(&mut line, &mut check, CALLS))?;
        mark(&mut plane)?;
        // The part before the first mark is 1.
        let part = dir.path().join(format!("out.{}", 2 * place + 2));
        let count = callgrind::read(&part)?;
        show(era, &count, top);
        costs.push(Cost {
            instructions: a_call(count.instructions),
            allocations: a_call(count.allocations),
        });
    }
    plane.ended()?;
    costs.try_into().ok().context("two eras")
}

fn a_call(count: u64) -> f64 {
    count as f64 / CALLS as f64
}

/// The functions that take most, and those that allocate most.
fn show(era: Era, count: &Count, top: usize) {
    for (what, by, digits) in [
        ("instructions", &count.functions, 0),
        ("allocations", &count.allocating, 2),
    ] {
        let mut all: Vec<_> = by.iter().collect();
        all.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
        for (name, count) in all.into_iter().take(top) {
            println!("{era} {what} {:>9.digits$}  {name}", a_call(*count));
        }
    }
}

async fn calls(line: &mut Line, check: &mut Check, calls: u64) -> Result<()> {
    for _ in 0..calls {
        line.next_call(check, &Ask::Small).await?;
    }
    Ok(())
}

fn start(dir: &Path, backend: SocketAddr, backends: usize) -> Result<Child> {
    let program: PathBuf = env::current_exe()?.with_file_name("hot_path");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--dump-before=*hot_path*mark*"])
        .arg(format!(
            "--callgrind-out-file={}",
            dir.join("out").display()
        ))
        .arg(program)
        .args([backend.to_string(), backends.to_string()])
        // What the environment changes in it must not change the figures.
        .env_clear();
    Child::start("hot_path under valgrind", command)
        .context("valgrind is needed (tests/setup.sh installs it)")
}

fn mark(plane: &mut Child) -> Result<()> {
    let stdin = plane.stdin().context("stdin is a pipe")?;
    stdin.write_all(b"mark\n")?;
    stdin.flush()?;
    plane.line(PATIENCE, |line| (line == "marked").then_some(()))
}
