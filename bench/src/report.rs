//! Figures as text: lines for the terminal, tables and a plot for `docs/performance.md`.

pub mod plot;

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    rig::Target,
    run::{Cell, Figures, Row, of},
};

/// The head of the columns of [`line`].
pub const HEAD: &str =
    "                       calls/s  /nginx /direct    p50 us    p99 us  CPU us    MiB  errors";

/// The figures of one target.
#[must_use]
pub fn line(
    name: &str,
    figures: &Figures,
    nginx: Option<&Figures>,
    direct: Option<&Figures>,
) -> String {
    let ratio = |to: Option<&Figures>| ratio(figures, to);
    format!(
        "  {name:<18} {:>9.0}  {:>6} {:>7}  {:>8.0}  {:>8.0}  {:>6}  {:>5}  {:>6}",
        figures.rate,
        ratio(nginx),
        ratio(direct),
        figures.p50,
        figures.p99,
        optional(figures.cpu, 1),
        optional(figures.memory, 0),
        figures.errors,
    )
}

fn ratio(figures: &Figures, to: Option<&Figures>) -> String {
    to.filter(|to| to.rate > 0.0).map_or_else(
        || "-".to_owned(),
        |to| format!("{:.2}", figures.rate / to.rate),
    )
}

fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// Tables of all rows, one for each kind of answer and era.
#[must_use]
pub fn tables(targets: &[Target], rows: &[Row]) -> String {
    let mut text = String::new();
    let mut last: Option<&Cell> = None;
    for (cell, figures) in rows {
        let same = |last: &&Cell| last.era == cell.era && last.ask == cell.ask;
        if last.filter(same).is_none() {
            let title = cell.to_string();
            let title = title
                .rsplit_once(", ")
                .map_or(title.as_str(), |(title, _)| title);
            text.push_str(&format!(
                "\n### {title}\n\n| connections | | calls/s | to nginx | to direct | p50 µs | p99 µs | CPU µs a call | RSS MiB | errors |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
            ));
        }
        last = Some(cell);
        let (nginx, direct) = (
            of(targets, figures, "nginx"),
            of(targets, figures, "direct"),
        );
        for (target, figures) in targets.iter().zip(figures) {
            let Some(figures) = figures else { continue };
            text.push_str(&format!(
                "| {} | {} | {:.0} | {} | {} | {:.0} | {:.0} | {} | {} | {} |\n",
                cell.connections,
                target.endpoint.name,
                figures.rate,
                ratio(figures, nginx),
                ratio(figures, direct),
                figures.p50,
                figures.p99,
                optional(figures.cpu, 1),
                optional(figures.memory, 0),
                figures.errors,
            ));
        }
    }
    text
}

/// What the figures were measured on.
#[must_use]
pub fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<_> = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, model)| model)
        .collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel
        .split('-')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    let model = models.first().copied().unwrap_or("unknown CPU");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores of {model}, Linux {kernel}")
}

/// Puts a text, and what it was measured on, between the marks of this name in
/// `docs/performance.md` of a repository, where there is one to write to.
///
/// # Errors
/// The document cannot be read or written, or has no such marks.
pub fn put_in(root: Option<&Path>, name: &str, text: &str) -> Result<()> {
    let Some(root) = root else {
        return Ok(());
    };
    let document = &root.join("docs/performance.md");
    let text = format!("{}\n\nMeasured on {}.", text.trim_end(), machine());
    let before = fs::read_to_string(document).with_context(|| document.display().to_string())?;
    let after = between(&before, name, &text)
        .with_context(|| format!("{} has no marks for {name}", document.display()))?;
    fs::write(document, after)?;
    println!("written: {name} in {}", document.display());
    Ok(())
}

fn between(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- begin {name} -->"),
        format!("<!-- end {name} -->"),
    );
    let (front, rest) = document.split_once(&begin)?;
    let (_, back) = rest.split_once(&end)?;
    Some(format!("{front}{begin}\n{}\n{end}{back}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let document = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb";
        let after = between(document, "x", "\nnew\n").unwrap();
        assert_eq!(after, document.replace("old", "new"));
        assert!(between(document, "y", "new").is_none());
    }
}
