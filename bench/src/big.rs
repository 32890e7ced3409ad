//! Big tables: a list of 20,000 tools beside the same bytes as a file, and 10,000 backends: start,
//! memory, and changes under load.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    backend,
    child::usage,
    load::{Ask, Endpoint, Era, Line, Load, Outcome, Plan, wait_for},
    report,
    rig::{self, Backend, DataPlane, Nginx, Programs},
    run::{Cell, Times, of, side_by_side},
};

/// Tools in the long list.
const TOOLS: usize = 20_000;
/// Backends in the big table.
const BACKENDS: usize = 10_000;
/// Connections of the load under which tables are changed.
const CONNECTIONS: usize = 32;
/// How long ten thousand backends may take to be asked what they offer.
const PATIENCE: Duration = Duration::from_secs(300);

/// `tools/list` of [`TOOLS`] tools beside nginx with the same bytes.
///
/// # Errors
/// Something does not start, or does not answer.
pub fn list(programs: &Programs, times: Times, write: Option<&Path>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let backend = Backend::start(backend::Options {
        threads: 1,
        tools: TOOLS,
        close: false,
    })?;
    let plane = programs.dataplane(dir.path(), "list", &rig::bare(backend.address))?;
    let fleet = plane.target("mcp-fleet", "/mcp", "server__echo");
    let ask = Ask::List { tools: TOOLS };
    wait_for(&fleet.endpoint, Era::Modern, &ask, PATIENCE)?;
    let bytes = answer(&fleet.endpoint, &ask)?;
    fs::create_dir(dir.path().join("static"))?;
    fs::write(dir.path().join("static/list.json"), &bytes)?;
    let nginx = Nginx::start(dir.path(), backend.address)?;
    let mut file = nginx.file("list.json");
    file.endpoint.name = "nginx".to_owned();
    wait_for(&file.endpoint, Era::Modern, &Ask::File, PATIENCE)?;

    let targets = [file, fleet];
    let mut text = format!(
        "`tools/list` of {TOOLS} tools, {:.1} MB, warm, 2026-07-28; nginx serves the same bytes as a file, `sendfile off`.\n\n| connections | | lists/s | to nginx | p50 µs | p99 µs | CPU µs a list | RSS MiB | errors |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|\n",
        bytes.len() as f64 / 1e6
    );
    for connections in [1, 8] {
        let cell = Cell {
            era: Era::Modern,
            ask: ask.clone(),
            connections,
        };
        let figures = side_by_side(&targets, &cell, times)?;
        crate::run::show(&targets, &cell, &figures);
        let nginx = of(&targets, &figures, "nginx").context("nginx was measured")?;
        for (target, figures) in targets.iter().zip(figures.iter().flatten()) {
            text.push_str(&format!(
                "| {connections} | {} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} | {} |\n",
                target.endpoint.name,
                figures.rate,
                figures.rate / nginx.rate,
                figures.p50,
                figures.p99,
                figures.cpu.unwrap_or_default(),
                figures.memory.unwrap_or_default(),
                figures.errors,
            ));
        }
    }
    report::put_in(write, "list", &text)
}

fn answer(to: &Endpoint, ask: &Ask) -> Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { Line::open(to, Era::Modern, ask).await?.answer().await })
}

/// [`BACKENDS`] backends: memory, and what calls feel of a change.
///
/// # Errors
/// Something does not start, or does not answer.
pub fn table(programs: &Programs, write: Option<&Path>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let backend = Backend::start(backend::Options {
        threads: 1,
        tools: 2,
        close: true,
    })?;
    let begun = Instant::now();
    let first = config(&backend, "30s", "30s", "a");
    let plane = programs.dataplane(dir.path(), "big", &first)?;
    let target = plane.target("mcp-fleet", "/mcp", "server-05000__echo");
    wait_for(&target.endpoint, Era::Modern, &Ask::Small, PATIENCE)?;
    let serving = begun.elapsed();
    let ask = Ask::List {
        tools: 2 * BACKENDS,
    };
    wait_for(&target.endpoint, Era::Modern, &ask, PATIENCE)?;
    let complete = begun.elapsed();
    settle(&plane);
    let memory = usage(plane.child.pid()).memory;
    println!(
        "{BACKENDS} backends: serving after {serving:.1?}, all discovered after {complete:.1?}, RSS {memory:.0} MiB"
    );
    let mut text = format!(
        "{BACKENDS} HTTP backends with 2 tools each behind one gateway: serving {:.1} s after the start, all backends asked for their lists after {:.1} s, RSS {memory:.0} MiB without connections and with the lists of both eras rendered.\n\nChanges under load, {CONNECTIONS} connections; the time is that from the change of the file to the swapped table, half a second of looking at files included.\n\n| change | swapped after ms | p99 µs before | p99 µs during | ratio | failed calls | RSS MiB after |\n|---|---:|---:|---:|---:|---:|---:|\n",
        serving.as_secs_f64(),
        complete.as_secs_f64(),
    );
    for (what, all, one, header) in [
        ("`timeout` of one backend", "30s", "31s", "a"),
        ("`timeout` of all", "32s", "32s", "a"),
        (
            "a header of all: new transports, all asked anew",
            "32s",
            "32s",
            "b",
        ),
        ("the same again", "32s", "32s", "c"),
    ] {
        let changed = config(&backend, all, one, header);
        text.push_str(&swap(&plane, &target.endpoint, what, &changed)?);
    }
    report::put_in(write, "table", &text)
}

/// The big table: the `timeout` of the first backend may differ from that of the others.
fn config(backend: &Backend, timeout: &str, first: &str, header: &str) -> String {
    let documents: Vec<_> = (0..BACKENDS)
        .map(|n| {
            let timeout = if n == 0 { first } else { timeout };
            format!(
                "kind: Backend\nname: server-{n:05}\nhttp: {{ url: \"http://{}/{n}\", headers: {{ x-table: {header} }} }}\ntimeout: {timeout}\n",
                backend.address
            )
        })
        .collect();
    documents.join("---\n")
}

/// Waits until its processes rest.
fn settle(plane: &DataPlane) {
    let mut before = f64::MAX;
    loop {
        let now = usage(plane.child.pid()).cpu;
        // It still looks at its file, which is large.
        if now - before < 0.15 {
            return;
        }
        before = now;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Changes the table under load. What is measured before takes as long as what is measured during.
fn swap(plane: &DataPlane, to: &Endpoint, what: &str, config: &str) -> Result<String> {
    const WINDOW: Duration = Duration::from_secs(5);
    let plan = Plan::new(to, Era::Modern, Ask::Small, CONNECTIONS);
    let measured = |during: &dyn Fn() -> Result<Duration>| -> Result<(Outcome, Duration)> {
        let mut load = Load::start(&plan)?;
        std::thread::sleep(Duration::from_millis(500));
        load.measure();
        let took = during()?;
        std::thread::sleep(WINDOW.saturating_sub(took));
        Ok((load.stop()?, took))
    };
    let (before, _) = measured(&|| Ok(Duration::ZERO))?;
    let (during, took) = measured(&|| {
        plane.child.forget_lines();
        let begun = Instant::now();
        let aside = plane.file.with_extension("new");
        fs::write(&aside, config)?;
        fs::rename(&aside, &plane.file)?;
        plane
            .child
            .line(PATIENCE, |line| line.contains(" serving ").then_some(()))?;
        Ok(begun.elapsed())
    })?;
    settle(plane);
    let memory = usage(plane.child.pid()).memory;
    let (p99, p99_during) = (
        before.latencies.quantile(0.99),
        during.latencies.quantile(0.99),
    );
    let failed = before.errors + during.errors;
    println!(
        "{what} changed: swapped after {took:.1?}, p99 {p99:.0} us, then {p99_during:.0} us ({:.2}), {failed} of {} calls failed, RSS {memory:.0} MiB",
        p99_during / p99,
        before.latencies.total() + during.latencies.total(),
    );
    if let Some(error) = before.first_error.or(during.first_error) {
        println!("  first error: {error}");
    }
    Ok(format!(
        "| {what} | {:.0} | {p99:.0} | {p99_during:.0} | {:.2} | {failed} | {memory:.0} |\n",
        took.as_secs_f64() * 1e3,
        p99_during / p99,
    ))
}

/// Whether memory grows over many calls: RSS after the first million and at the end.
///
/// # Errors
/// Something does not start, or calls fail.
pub fn soak(programs: &Programs, calls: u64, write: Option<&Path>) -> Result<()> {
    const FIRST: u64 = 1_000_000;
    ensure!(calls > FIRST, "a soak has more than {FIRST} calls");
    let dir = tempfile::tempdir()?;
    let backend = Backend::start(backend::Options {
        threads: 2,
        tools: 2,
        close: false,
    })?;
    let plane = programs.dataplane(dir.path(), "soak", &rig::bare(backend.address))?;
    let target = plane.target("mcp-fleet", "/mcp", "server__echo");
    wait_for(&target.endpoint, Era::Modern, &Ask::Small, PATIENCE)?;
    let begun = Instant::now();
    let mut memory = Vec::new();
    // Both eras, and connections opened anew, so that what they leave behind shows.
    let parts = calls / FIRST;
    for part in 0..parts {
        let era = if part % 2 == 0 {
            Era::Modern
        } else {
            Era::Legacy
        };
        let mut plan = Plan::new(&target.endpoint, era, Ask::Small, CONNECTIONS);
        plan.calls = Some(calls / parts);
        let mut load = Load::start(&plan)?;
        load.measure();
        let outcome = load.finish()?;
        ensure!(
            outcome.errors == 0,
            "{} calls failed: {:?}",
            outcome.errors,
            outcome.first_error
        );
        memory.push(usage(plane.child.pid()).memory);
        println!(
            "{:>4} million calls, {:.0}/s, RSS {:.1} MiB",
            part + 1,
            outcome.rate,
            memory[memory.len() - 1]
        );
    }
    let (first, last) = (memory[0], memory[memory.len() - 1]);
    println!(
        "RSS {first:.1} MiB after the first million, {last:.1} MiB after {calls} calls ({:+.1}), {:.0?}",
        last - first,
        begun.elapsed()
    );
    let text = format!(
        "{calls} calls on {CONNECTIONS} connections, opened anew and with the other era after every million: RSS {first:.1} MiB after the first million, {last:.1} MiB at the end."
    );
    report::put_in(write, "soak", &text)
}
