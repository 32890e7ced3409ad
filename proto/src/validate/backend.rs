//! Rules of Backend.

mod web;

use super::{
    common,
    problem::{Report, entry},
    secret::Uses,
    set::Index,
};
use crate::{
    duration::Duration,
    v1::{Backend, StdioBackend, backend::Transport},
};

/// `Backend.timeout` where it is left out.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// `Backend.max_duration` where it is left out.
pub const DEFAULT_MAX_DURATION: Duration = Duration::from_secs(15 * 60);

pub(super) fn check(backend: &Backend, index: &Index<'_>, report: &mut Report<'_>) {
    common::check(&backend.name, &backend.project, &backend.labels, report);
    if common::bad_name(&backend.name).is_none() {
        check_prefix(&backend.name, report);
    }
    let uses = Uses { backend, index };
    match &backend.transport {
        None => report.add(
            "",
            "has no transport: add `http:`, `stdio:`, `unix:`, `websocket:` or `sse:`",
        ),
        Some(Transport::Stdio(stdio)) => check_stdio(stdio, uses, report),
        Some(Transport::Http(http)) => web::check_http(http, uses, report),
        Some(Transport::Unix(unix)) => web::check_unix(unix, uses, report),
        Some(Transport::Sse(sse)) => web::check_sse(sse, uses, report),
        Some(Transport::Websocket(websocket)) => web::check_websocket(websocket, uses, report),
    }
    check_times(backend, report);
}

/// `a__b` would make the owner of `a__b__c` a guess.
fn check_prefix(name: &str, report: &mut Report<'_>) {
    if name.contains("__") {
        report.add(
            "name",
            format!(
                "{name:?} holds `__`, which separates a backend's name from the tool's: use one `_`"
            ),
        );
    } else if name.ends_with('_') {
        report.add(
            "name",
            format!("{name:?} ends with `_`, which runs into the separator `__`: drop it"),
        );
    }
}

fn check_times(backend: &Backend, report: &mut Report<'_>) {
    let zero = Duration::default();
    for (path, value) in [
        ("timeout", backend.timeout),
        ("max_duration", backend.max_duration),
    ] {
        if value == Some(zero) {
            report.add(path, "must be more than 0: leave it out for the default");
        }
    }
    let timeout = backend.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let max = backend.max_duration.unwrap_or(DEFAULT_MAX_DURATION);
    if timeout > max && max != zero {
        let (path, message) = if backend.timeout.is_some() {
            let default = if backend.max_duration.is_some() {
                ""
            } else {
                " (its default)"
            };
            (
                "timeout",
                format!(
                    "{timeout} is longer than max_duration {max}{default}: lower it, or raise max_duration"
                ),
            )
        } else {
            let message = format!(
                "{max} is shorter than timeout {timeout} (its default): raise it, or set a lower timeout"
            );
            ("max_duration", message)
        };
        report.add(path, message);
    }
}

fn check_stdio(stdio: &StdioBackend, uses: Uses<'_>, report: &mut Report<'_>) {
    if stdio.command.is_empty() {
        report.add(
            "stdio.command",
            "is missing or empty: name the program to run",
        );
    }
    check_argument("stdio.command", &stdio.command, report);
    for (number, argument) in stdio.args.iter().enumerate() {
        check_argument(&format!("stdio.args[{number}]"), argument, report);
    }
    for (name, value) in &stdio.env {
        let path = entry("stdio.env", name);
        if name.is_empty() || name.contains(['=', '\0']) {
            report.add(
                &path,
                "an environment variable needs a name without `=` and NUL",
            );
        }
        uses.parts(&path, value, report);
        check_nul(&path, value, report);
    }
    check_argument("stdio.cwd", &stdio.cwd, report);
}

/// What other users of the machine can see of a process.
fn check_argument(path: &str, text: &str, report: &mut Report<'_>) {
    let why = "and other users of the machine can see this of a process: give it to the program in `stdio.env`";
    report.open_parts(path, text, why);
    check_nul(path, text, report);
}

/// The operating system ends texts at NUL.
fn check_nul(path: &str, text: &str, report: &mut Report<'_>) {
    if text.contains('\0') {
        report.add(path, "holds a NUL character, which no program can be given");
    }
}
