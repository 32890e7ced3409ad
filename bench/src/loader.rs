//! `fleet-bench loader`: is our own load the limit? It calls the backend directly, in turn with
//! `wrk`: once as `wrk` is fastest, the same bytes again and again and no answer looked at, and
//! once with a script that does what our load does.

use std::{fmt::Write, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    backend,
    load::{Ask, Endpoint, Era, TEXT, call_parts},
    rig::{Backend, Target},
    run::{Cell, Times, median, side_by_side},
};

/// Compares them on 1, 8, 32 and 128 connections.
///
/// # Errors
/// `wrk` is missing, or sees errors.
pub fn run(times: Times) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let backend = Backend::start(backend::Options {
        threads: 2,
        tools: 2,
        close: false,
    })?;
    let target = backend.target();
    let script = dir.path().join("checked.lua");
    std::fs::write(&script, lua(&target.endpoint, true))?;
    let plain = dir.path().join("plain.lua");
    std::fs::write(&plain, lua(&target.endpoint, false))?;
    println!("calls/s       ours  wrk, ids and bodies  wrk, neither");
    for connections in [1, 8, 32, 128] {
        let (mut ours, mut checked, mut unchecked) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..times.rounds {
            ours.push(own(&target, connections, times)?);
            checked.push(wrk(&target.endpoint, &script, connections, times)?);
            unchecked.push(wrk(&target.endpoint, &plain, connections, times)?);
        }
        println!(
            "{connections:>4} conn. {:>8.0}  {:>19.0}  {:>12.0}",
            median(ours),
            median(checked),
            median(unchecked)
        );
    }
    Ok(())
}

fn own(target: &Target, connections: usize, times: Times) -> Result<f64> {
    let cell = Cell {
        era: Era::Modern,
        ask: Ask::Small,
        connections,
    };
    let once = Times { rounds: 1, ..times };
    let figures = side_by_side(std::slice::from_ref(target), &cell, once)?;
    let figures = figures.into_iter().flatten().next().context("no figures")?;
    ensure!(figures.errors == 0, "{:?}", figures.first_error);
    Ok(figures.rate)
}

fn wrk(to: &Endpoint, script: &Path, connections: usize, times: Times) -> Result<f64> {
    let output = Command::new("wrk")
        .arg(format!("-t{}", connections.clamp(1, 2)))
        .arg(format!("-c{connections}"))
        // Whole seconds only.
        .arg(format!("-d{}s", times.measured.as_secs().max(1)))
        .arg("-s")
        .arg(script)
        .arg(format!("http://{}{}", to.address, to.path))
        .output()
        .context("wrk is needed to compare with (Debian: apt-get install wrk)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {text}");
    ensure!(!text.contains("Non-2xx"), "wrk saw errors: {text}");
    let rate = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .and_then(|rate| rate.trim().parse().ok());
    rate.with_context(|| format!("wrk does not say how fast it was: {text}"))
}

fn lua(to: &Endpoint, checked: bool) -> String {
    let (headers, front, back) = call_parts(to, Era::Modern);
    let mut lines = String::new();
    for (name, value) in headers {
        let _ = writeln!(lines, "  wrk.headers[\"{name}\"] = \"{value}\"");
    }
    let script = include_str!("../wrk.lua")
        .replace("@FRONT@", &front)
        .replace("@BACK@", &back)
        .replace("@PATH@", &to.path)
        .replace("@HEADERS@", &lines)
        .replace("@TEXT@", TEXT);
    if checked {
        return script;
    }
    // Without the two functions, wrk sends what `init` has set.
    let (init, _) = script
        .split_once("function request()")
        .unwrap_or((&script, ""));
    let body = "  wrk.body = front .. \"1000000000000000\" .. back\n  wrong = 0";
    init.replace("  wrong = 0", body)
}
