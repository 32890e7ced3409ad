//! `make bench`: everything side by side, interleaved, several rounds, medians.

use std::time::Duration;

use anyhow::Result;

use crate::{
    child::{Usage, usage},
    load::{Ask, Era, Load, Outcome, Plan},
    rig::{Rig, Target},
};

/// One combination of what is asked, how and on how many connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The client's era.
    pub era: Era,
    /// What it asks.
    pub ask: Ask,
    /// On how many connections.
    pub connections: usize,
}

/// How long.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Times that each is measured.
    pub rounds: usize,
    /// Before anything is counted.
    pub warm: Duration,
    /// What is counted.
    pub measured: Duration,
}

/// Figures of one target in one cell.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Calls a second.
    pub rate: f64,
    /// Latency, microseconds.
    pub p50: f64,
    /// Latency, microseconds.
    pub p99: f64,
    /// CPU microseconds of its processes for each call; `None`: they are not known.
    pub cpu: Option<f64>,
    /// Resident memory, MiB.
    pub memory: Option<f64>,
    /// Calls without a right answer.
    pub errors: u64,
    /// The first of these.
    pub first_error: Option<String>,
}

/// A cell with the figures of each target, `None` where it does not speak that era.
pub type Row = (Cell, Vec<Option<Figures>>);

/// The cells of `make bench`.
#[must_use]
pub fn all_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for ask in [Ask::Small, Ask::Large] {
        for era in [Era::Legacy, Era::Modern] {
            for connections in [1, 8, 32, 128] {
                let ask = ask.clone();
                cells.push(Cell {
                    era,
                    ask,
                    connections,
                });
            }
        }
    }
    cells
}

/// The cells of `make bench-quick`.
#[must_use]
pub fn quick_cells() -> Vec<Cell> {
    let cell = |era, ask, connections| Cell {
        era,
        ask,
        connections,
    };
    vec![
        cell(Era::Modern, Ask::Small, 1),
        cell(Era::Modern, Ask::Small, 32),
        cell(Era::Legacy, Ask::Small, 32),
        cell(Era::Modern, Ask::Large, 32),
    ]
}

/// Measures all cells.
///
/// # Errors
/// The load cannot be made.
pub fn run(rig: &Rig, cells: &[Cell], times: Times) -> Result<Vec<Row>> {
    cells
        .iter()
        .map(|cell| {
            let figures = side_by_side(&rig.targets, cell, times)?;
            show(&rig.targets, cell, &figures);
            Ok((cell.clone(), figures))
        })
        .collect()
}

/// Measures targets in turn, round by round, so that what else the machine does falls on all.
///
/// # Errors
/// The load cannot be made.
pub fn side_by_side(targets: &[Target], cell: &Cell, times: Times) -> Result<Vec<Option<Figures>>> {
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); targets.len()];
    for _ in 0..times.rounds {
        for (target, rounds) in targets.iter().zip(&mut rounds) {
            if target.eras.contains(&cell.era) {
                let ask = match &cell.ask {
                    // The list has its own address on a server of files.
                    Ask::List { .. } if target.endpoint.path.starts_with("/static") => &Ask::File,
                    ask => ask,
                };
                rounds.push(once(target, cell, ask, times)?);
            }
        }
    }
    Ok(rounds.iter().map(|rounds| medians(rounds)).collect())
}

fn once(target: &Target, cell: &Cell, ask: &Ask, times: Times) -> Result<Figures> {
    let plan = Plan::new(&target.endpoint, cell.era, ask.clone(), cell.connections);
    let mut load = Load::start(&plan)?;
    std::thread::sleep(times.warm);
    let used = || target.pid.map(usage);
    let before = used();
    load.measure();
    std::thread::sleep(times.measured);
    let after = used();
    Ok(figures(load.stop()?, before, after))
}

fn figures(outcome: Outcome, before: Option<Usage>, after: Option<Usage>) -> Figures {
    let calls = outcome.latencies.total() as f64;
    let spent = before
        .zip(after)
        .map(|(before, after)| after.cpu - before.cpu);
    Figures {
        rate: outcome.rate,
        p50: outcome.latencies.quantile(0.5),
        p99: outcome.latencies.quantile(0.99),
        cpu: spent
            .filter(|_| calls > 0.0)
            .map(|spent| spent * 1e6 / calls),
        memory: after.map(|after| after.memory),
        errors: outcome.errors,
        first_error: outcome.first_error,
    }
}

/// The median of each figure; all errors.
fn medians(rounds: &[Figures]) -> Option<Figures> {
    let first = rounds.first()?;
    let of = |pick: fn(&Figures) -> f64| median(rounds.iter().map(pick).collect());
    Some(Figures {
        rate: of(|f| f.rate),
        p50: of(|f| f.p50),
        p99: of(|f| f.p99),
        cpu: first.cpu.map(|_| of(|f| f.cpu.unwrap_or_default())),
        memory: first.memory.map(|_| of(|f| f.memory.unwrap_or_default())),
        errors: rounds.iter().map(|f| f.errors).sum(),
        first_error: rounds.iter().find_map(|f| f.first_error.clone()),
    })
}

/// The middle one; of two, the mean.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// One cell on the terminal, as soon as it is measured.
pub fn show(targets: &[Target], cell: &Cell, figures: &[Option<Figures>]) {
    println!("\n{cell}");
    println!("{}", crate::report::HEAD);
    let nginx = of(targets, figures, "nginx");
    let direct = of(targets, figures, "direct");
    for (target, figures) in targets.iter().zip(figures) {
        if let Some(figures) = figures {
            let line = crate::report::line(&target.endpoint.name, figures, nginx, direct);
            println!("{line}");
            if let Some(error) = &figures.first_error {
                println!("  first error: {error}");
            }
        }
    }
}

/// The figures of the target of this name.
#[must_use]
pub fn of<'a>(
    targets: &[Target],
    figures: &'a [Option<Figures>],
    name: &str,
) -> Option<&'a Figures> {
    let mut all = targets.iter().zip(figures);
    all.find(|(target, _)| target.endpoint.name == name)?
        .1
        .as_ref()
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match &self.ask {
            Ask::Small => "small answers".to_owned(),
            Ask::Large => "64 KiB answers".to_owned(),
            Ask::List { tools } => format!("tools/list of {tools} tools"),
            Ask::File => "file".to_owned(),
        };
        let plural = if self.connections == 1 { "" } else { "s" };
        write!(
            f,
            "{what}, {}, {} connection{plural}",
            self.era, self.connections
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).abs() < 1e-9);
    }
}
