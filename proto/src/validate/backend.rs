//! Rules of Backend.

use std::collections::HashMap;

use http::{HeaderName, HeaderValue, Uri};

use super::{
    common,
    problem::{Report, entry},
    secret::Uses,
    set::Index,
};
use crate::{
    duration::Duration,
    reference::Part,
    v1::{Backend, HttpBackend, StdioBackend, backend::Transport},
};

/// `Backend.timeout` where it is left out.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// `Backend.max_duration` where it is left out.
pub const DEFAULT_MAX_DURATION: Duration = Duration::from_secs(15 * 60);

/// Headers that HTTP or MCP set themselves. An ending `-` stands for all that
/// start so.
const OWN_HEADERS: [&str; 17] = [
    "host",
    "content-length",
    "content-type",
    "accept",
    "connection",
    "transfer-encoding",
    "te",
    "upgrade",
    "keep-alive",
    "trailer",
    "proxy-",
    "mcp-session-id",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "mcp-param-",
    "last-event-id",
];

pub(super) fn check(backend: &Backend, index: &Index<'_>, report: &mut Report<'_>) {
    common::check(&backend.name, &backend.project, &backend.labels, report);
    if common::bad_name(&backend.name).is_none() {
        check_prefix(&backend.name, report);
    }
    let uses = Uses { backend, index };
    match &backend.transport {
        None => report.add("", "has no transport: add `stdio:` or `http:`"),
        Some(Transport::Stdio(stdio)) => check_stdio(stdio, uses, report),
        Some(Transport::Http(http)) => check_http(http, uses, report),
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

fn check_http(http: &HttpBackend, uses: Uses<'_>, report: &mut Report<'_>) {
    if http.url.is_empty() {
        report.add("http.url", "is missing or empty: write the address of the MCP endpoint, such as https://mcp.example.com/mcp");
    } else {
        let parts = uses.parts("http.url", &http.url, report);
        if let Some(message) = bad_url(&parts) {
            report.add("http.url", message);
        }
    }
    check_headers(http, uses, report);
    let parts = uses.parts("http.bearer_token", &http.bearer_token, report);
    if literals(&parts).any(|text| !text.bytes().all(|b| b.is_ascii_graphic())) {
        report.add(
            "http.bearer_token",
            "holds blanks or characters outside ASCII, which no `Authorization` header can carry",
        );
    }
}

/// References may stand for anything after the scheme; what they will hold is
/// checked on the data plane.
fn bad_url(parts: &[Part]) -> Option<String> {
    let first = match parts.first()? {
        Part::Literal(text) => text,
        Part::Env(_) | Part::File(_) | Part::Secret(_) => return None,
    };
    let lower = first.to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        return Some("must start with http:// or https://".to_owned());
    }
    // A digit can be host, port and path alike.
    let text: String = parts
        .iter()
        .map(|p| {
            if let Part::Literal(text) = p {
                text
            } else {
                "1"
            }
        })
        .collect();
    if text.contains('#') {
        return Some("has a fragment (`#...`), which is never sent: remove it".to_owned());
    }
    let uri: Uri = match text.parse() {
        Ok(uri) => uri,
        Err(e) => return Some(format!("is not an address: {e}")),
    };
    let authority = uri.authority()?.as_str();
    if authority.contains('@') {
        return Some("holds a user or password: use `bearer_token` or `headers`".to_owned());
    }
    if uri.host().is_none_or(str::is_empty) {
        return Some("has no host".to_owned());
    }
    let has_port = authority
        .rsplit(']')
        .next()
        .is_some_and(|rest| rest.contains(':'));
    if has_port && uri.port_u16().is_none_or(|port| port == 0) {
        return Some("has a port that is not a number from 1 to 65535".to_owned());
    }
    None
}

fn check_headers(http: &HttpBackend, uses: Uses<'_>, report: &mut Report<'_>) {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for (name, value) in &http.headers {
        let path = entry("http.headers", name);
        let lower = name.to_ascii_lowercase();
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            report.add(&path, "is not the name of a header");
        } else if let Some(other) = seen.insert(lower.clone(), name) {
            report.add(
                &path,
                format!("is the same header as {other:?}: names of headers ignore case"),
            );
        }
        if is_own(&lower) {
            report.add(&path, "is set by the proxy itself: remove it");
        } else if lower == "authorization" && !http.bearer_token.is_empty() {
            report.add(
                &path,
                "would be sent twice, as `bearer_token` sets it too: remove one of them",
            );
        }
        let parts = uses.parts(&path, value, report);
        if literals(&parts).any(|text| HeaderValue::from_str(text).is_err()) {
            report.add(
                &path,
                "has a value with line breaks or characters outside ASCII",
            );
        }
    }
}

fn is_own(lower: &str) -> bool {
    OWN_HEADERS.iter().any(|own| {
        if own.ends_with('-') {
            lower.starts_with(own)
        } else {
            lower == *own
        }
    })
}

fn literals(parts: &[Part]) -> impl Iterator<Item = &str> {
    parts.iter().filter_map(|part| match part {
        Part::Literal(text) => Some(text.as_str()),
        Part::Env(_) | Part::File(_) | Part::Secret(_) => None,
    })
}
