//! Rules of Gateway, alone and among the resources it names.

use std::collections::HashSet;

use super::{
    auth, common,
    problem::{Report, Sort, entry},
    set::{Index, Project},
};
use crate::{
    duration::Duration,
    select::{self, Selector},
    v1::Gateway,
};

/// What stands between backend and tool where `separator` is left out.
pub const DEFAULT_SEPARATOR: &str = "__";
/// `Gateway.resume_grace` where it is left out.
pub const DEFAULT_RESUME_GRACE: Duration = Duration::from_secs(60);
/// The longest one.
const RESUME_GRACE_MAX: Duration = Duration::from_secs(600);
/// Paths that the data plane answers itself, with everything below them.
const RESERVED_PATHS: [&str; 5] = ["/livez", "/readyz", "/metrics", "/admin", "/.well-known"];
/// Longest separator.
const SEPARATOR_MAX: usize = 4;

pub(super) fn check(gateway: &Gateway, number: usize, index: &Index<'_>, report: &mut Report<'_>) {
    common::check(&gateway.name, &gateway.project, &gateway.labels, report);
    common::check_labels("backend_labels", &gateway.backend_labels, report);
    if let Some(message) = bad_path(&gateway.path) {
        report.add("path", message);
    } else if let Some(other) = index.path_taken(gateway, number) {
        let message = format!(
            "{:?} is already the path of Gateway {}/{}",
            gateway.path, other.project, other.name
        );
        report.add_sort(Sort::Clash, "path", message);
    }
    let separator_is_good = check_separator(gateway, report);
    check_hosts(gateway, report);
    if gateway
        .resume_grace
        .is_some_and(|grace| grace > RESUME_GRACE_MAX)
    {
        let message =
            format!("must be at most {RESUME_GRACE_MAX}: streams are kept in memory for it");
        report.add("resume_grace", message);
    }
    let empty = Project::default();
    let project = index.project(&gateway.project).unwrap_or(&empty);
    check_selection(gateway, project, index, report);
    check_auth(gateway, project, index, report);
    check_owner(
        "resource_owner",
        &gateway.resource_owner,
        gateway,
        project,
        index,
        report,
    );
    check_method_owners(gateway, project, index, report);
    if separator_is_good {
        check_prefixes(gateway, project, report);
    }
}

fn bad_path(path: &str) -> Option<String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@".contains(c);
    if path.is_empty() {
        return Some(
            "is missing or empty: write the path of the endpoint, such as /mcp".to_owned(),
        );
    }
    if !path.starts_with('/') {
        return Some(format!("{path:?} must start with `/`"));
    }
    if let Some(bad) = path.chars().find(|c| !known(*c)) {
        return Some(format!(
            "{path:?} holds {bad:?}: write a plain path, without query, fragment and escapes"
        ));
    }
    if path != "/" && path.ends_with('/') {
        return Some(format!("{path:?} ends with `/`: drop it"));
    }
    if path.contains("//") || path.split('/').any(|part| part == "." || part == "..") {
        return Some(format!(
            "{path:?} has an empty, `.` or `..` part, which clients rewrite"
        ));
    }
    RESERVED_PATHS
        .into_iter()
        .find(|reserved| {
            path.strip_prefix(reserved)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .map(|reserved| {
            format!("{path:?} is reserved: the data plane answers {reserved} and what is below it")
        })
}

/// Whether the separator can be used for further checks.
fn check_separator(gateway: &Gateway, report: &mut Report<'_>) -> bool {
    let separator = &gateway.separator;
    if separator.is_empty() {
        return true;
    }
    if gateway.bare_names {
        report.add(
            "separator",
            "has no use together with `bare_names`: remove one of them",
        );
        return false;
    }
    let good = separator.len() <= SEPARATOR_MAX
        && separator
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b));
    if !good {
        report.add(
            "separator",
            format!("{separator:?} must be 1 to {SEPARATOR_MAX} of `A-Z a-z 0-9 _ - . /`"),
        );
    }
    good
}

fn check_hosts(gateway: &Gateway, report: &mut Report<'_>) {
    for (number, host) in gateway.hosts.iter().enumerate() {
        if !is_host(host) {
            let message = format!(
                "{host:?} is not a host name: write it without scheme, port and path, such as mcp.example.com"
            );
            report.add(format!("hosts[{number}]"), message);
        }
    }
    for (number, origin) in gateway.origins.iter().enumerate() {
        if !is_origin(origin) {
            let message = format!(
                "{origin:?} is not an origin: write scheme://host or scheme://host:port, such as https://app.example.com"
            );
            report.add(format!("origins[{number}]"), message);
        }
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inside) = host.strip_prefix('[') {
        return inside
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// An origin as browsers write it (RFC 6454, 6.2); `null` is never one.
fn is_origin(origin: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else {
        return false;
    };
    let scheme_is_good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let port_is_good = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    scheme_is_good && port_is_good && is_host(host)
}

fn check_selection(
    gateway: &Gateway,
    project: &Project<'_>,
    index: &Index<'_>,
    report: &mut Report<'_>,
) {
    let selector = Selector::new(gateway);
    let mut seen = HashSet::new();
    for (number, name) in gateway.backends.iter().enumerate() {
        let path = format!("backends[{number}]");
        if !seen.insert(name) {
            report.add(&path, format!("{name:?} is listed twice"));
        } else if select::is_glob(name) {
            if let Err(message) = select::compile(name) {
                report.add(&path, message);
            }
        } else if let Some(message) = common::bad_name(name) {
            report.add(&path, message);
        } else if let Some(backend) = project.backends.get(name.as_str()) {
            if !selector.matches(backend) {
                let message = format!(
                    "Backend {name} does not carry all of `backend_labels`, so it would be left out: label it, or do not name it"
                );
                report.add_sort(Sort::Selection, &path, message);
            }
        } else if !index.is_ghost(&gateway.project, name) {
            dangling(
                &path,
                "Backend",
                name,
                &gateway.project,
                project.backends.keys().copied(),
                report,
            );
        }
    }
}

fn check_auth(
    gateway: &Gateway,
    project: &Project<'_>,
    index: &Index<'_>,
    report: &mut Report<'_>,
) {
    let name = gateway.auth.as_str();
    let exists = name.is_empty() || name == auth::RESERVED || project.policies.contains(name);
    if !exists && !index.is_ghost(&gateway.project, name) {
        let known = project.policies.iter().copied().chain([auth::RESERVED]);
        dangling("auth", "AuthPolicy", name, &gateway.project, known, report);
    }
}

/// Whether what owns something is a backend behind the gateway.
fn check_owner(
    path: &str,
    name: &str,
    gateway: &Gateway,
    project: &Project<'_>,
    index: &Index<'_>,
    report: &mut Report<'_>,
) {
    if name.is_empty() || index.is_ghost(&gateway.project, name) {
        return;
    }
    match project.backends.get(name) {
        None => dangling(
            path,
            "Backend",
            name,
            &gateway.project,
            project.backends.keys().copied(),
            report,
        ),
        Some(backend) if !Selector::new(gateway).matches(backend) => {
            let message = format!(
                "Backend {name} is not behind this gateway: `backends` and `backend_labels` leave it out"
            );
            report.add_sort(Sort::Selection, path, message);
        }
        Some(_) => {}
    }
}

fn check_method_owners(
    gateway: &Gateway,
    project: &Project<'_>,
    index: &Index<'_>,
    report: &mut Report<'_>,
) {
    for (method, name) in &gateway.method_owner {
        let path = entry("method_owner", method);
        let plain = method.strip_suffix('*').unwrap_or(method);
        let known = |c: char| c.is_ascii_graphic() && !"*\"\\".contains(c);
        if method.is_empty() || !plain.chars().all(known) {
            let message = "is neither a method, such as acme/search, nor the beginning of some, such as acme/*";
            report.add(&path, message);
        }
        if name.is_empty() {
            report.add(&path, "is empty: name a backend");
        }
        check_owner(&path, name, gateway, project, index, report);
    }
}

fn dangling<'a>(
    path: &str,
    kind: &str,
    name: &str,
    project: &str,
    known: impl Iterator<Item = &'a str>,
    report: &mut Report<'_>,
) {
    // Looking for near names reads them all: only for as many as people read.
    let few = report
        .found
        .iter()
        .filter(|found| found.sort == Sort::Dangling)
        .take(20)
        .count()
        < 20;
    let hint = if few {
        common::hint(name, known)
    } else {
        String::new()
    };
    report.add_sort(
        Sort::Dangling,
        path,
        format!("there is no {kind} {name:?} in project {project:?}{hint}"),
    );
}

/// No prefix may start another: with `-`, `a-b-c` would be tool `b-c` of `a` or
/// tool `c` of `a-b`. With `__`, the rules for names rule it out already.
fn check_prefixes(gateway: &Gateway, project: &Project<'_>, report: &mut Report<'_>) {
    let separator = gateway.separator.as_str();
    if separator.is_empty() || separator == DEFAULT_SEPARATOR {
        return;
    }
    let selector = Selector::new(gateway);
    let selected = project
        .backends
        .values()
        .filter(|backend| selector.matches(backend));
    let mut prefixes: Vec<_> = selected
        .map(|backend| format!("{}{separator}", backend.name))
        .collect();
    prefixes.sort_unstable();
    // In order, what starts with a prefix follows it directly.
    for pair in prefixes
        .windows(2)
        .filter(|pair| pair[1].starts_with(&pair[0]))
    {
        let name = |prefix: &str| prefix[..prefix.len() - separator.len()].to_owned();
        let message = format!(
            "with {separator:?}, the prefix {:?} of Backend {} starts the prefix {:?} of Backend {}: choose another separator, or rename one",
            pair[0],
            name(&pair[0]),
            pair[1],
            name(&pair[1]),
        );
        report.add_sort(Sort::Selection, "separator", message);
    }
}
