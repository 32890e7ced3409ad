//! `fleet-bench`: what `make bench` and its kin run.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
use fleet_bench::{
    backend, big, guard, loader, report,
    rig::{Peer, Programs, Rig},
    run::{self, Times},
};

/// Measures mcp-fleet.
#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    what: What,
    /// The data plane; left out: the one beside this program.
    #[arg(long, global = true)]
    dataplane: Option<PathBuf>,
    /// Its workers; 0: one per core.
    #[arg(long, global = true, default_value_t = 0)]
    workers: usize,
    /// Write the figures into docs/ of this repository.
    #[arg(long, global = true, value_name = "REPOSITORY")]
    write: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// The backend, nginx, the data plane and peers, side by side.
    Run {
        /// Another proxy: NAME=URL[,session][,TOOL]. With `session` it is called as 2025-11-25
        /// servers are, else as those of 2026-07-28.
        #[arg(long)]
        peer: Vec<Peer>,
        /// A minute instead of a quarter of an hour.
        #[arg(long)]
        quick: bool,
        /// Times that each is measured.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// A list of 20,000 tools beside the same bytes as a file.
    List {
        /// Times that each is measured.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// A table of 10,000 backends: memory, and changes under load.
    Table,
    /// Whether memory grows over many calls.
    Soak {
        /// How many; rounded down to millions.
        #[arg(long, default_value_t = 10_000_000)]
        calls: u64,
    },
    /// Instructions and allocations of a call, beside what is recorded in bench/hot_path.txt.
    Guard {
        /// This repository.
        #[arg(long, default_value = ".")]
        root: PathBuf,
        /// Record them.
        #[arg(long)]
        record: bool,
        /// Print so many functions that take most instructions or allocations, too.
        #[arg(long, default_value_t = 0)]
        top: usize,
    },
    /// Our load beside wrk, both straight at the backend.
    Loader {
        /// Times that each is measured.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// The server behind all of it: prints its address and serves until stdin ends.
    Backend(backend::Options),
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<()> {
    let write = flags.write.as_deref();
    let programs = || Programs::find(flags.dataplane.clone(), flags.workers);
    match flags.what {
        What::Backend(options) => backend::main(options),
        What::List { rounds } => {
            let times = Times {
                rounds,
                warm: Duration::from_millis(300),
                measured: Duration::from_secs(2),
            };
            big::list(&programs()?, times, write)
        }
        What::Table => big::table(&programs()?, write),
        What::Soak { calls } => big::soak(&programs()?, calls, write),
        What::Guard { root, record, top } => guard::run(&root, record, top),
        What::Loader { rounds } => loader::run(Times {
            rounds,
            warm: Duration::from_millis(300),
            measured: Duration::from_secs(2),
        }),
        What::Run {
            ref peer,
            quick,
            rounds,
            seconds,
        } => {
            let rig = Rig::start(&programs()?, peer)?;
            let times = Times {
                rounds: if quick { 3 } else { rounds },
                warm: Duration::from_millis(300),
                measured: Duration::from_secs_f64(if quick { 0.8 } else { seconds }),
            };
            let cells = if quick {
                run::quick_cells()
            } else {
                run::all_cells()
            };
            println!("{}", report::machine());
            let rows = run::run(&rig, &cells, times)?;
            let text = report::tables(&rig.targets, &rows);
            report::put_in(write, "calls", &text)?;
            if let (Some(root), Some(svg)) = (write, report::plot::svg(&rig.targets, &rows)) {
                std::fs::write(root.join("docs/performance.svg"), svg)?;
            }
            Ok(())
        }
    }
}
