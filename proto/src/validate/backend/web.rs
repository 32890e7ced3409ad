//! Rules of what is reached over HTTP: addresses, headers, tokens.

use std::collections::{BTreeMap, HashMap};

use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};

use crate::{
    reference::Part,
    v1::{HttpBackend, SseBackend, UnixBackend, WebSocketBackend},
    validate::{
        problem::{Report, entry},
        secret::Uses,
    },
};

use super::check_nul;

/// Longest path of a socket (`sun_path` of Linux, without the NUL at its end).
const SOCKET_PATH_MAX: usize = 107;

/// Headers that HTTP or MCP set themselves. An ending `-` stands for all that
/// start so.
const OWN_HEADERS: [&str; 18] = [
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
    "sec-websocket-",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "mcp-param-",
    "last-event-id",
];

/// Headers and token that a backend is sent.
struct Sent<'a> {
    /// `http`, `unix`, `websocket` or `sse`.
    of: &'static str,
    headers: &'a BTreeMap<String, String>,
    bearer_token: &'a str,
}

pub(super) fn check_http(http: &HttpBackend, uses: Uses<'_>, report: &mut Report<'_>) {
    let example = "https://mcp.example.com/mcp";
    let sent = Sent {
        of: "http",
        headers: &http.headers,
        bearer_token: &http.bearer_token,
    };
    sent.check_to(&http.url, ["http://", "https://"], example, uses, report);
}

pub(super) fn check_sse(sse: &SseBackend, uses: Uses<'_>, report: &mut Report<'_>) {
    let example = "https://mcp.example.com/sse";
    let sent = Sent {
        of: "sse",
        headers: &sse.headers,
        bearer_token: &sse.bearer_token,
    };
    sent.check_to(&sse.url, ["http://", "https://"], example, uses, report);
}

pub(super) fn check_websocket(
    websocket: &WebSocketBackend,
    uses: Uses<'_>,
    report: &mut Report<'_>,
) {
    let example = "wss://mcp.example.com/ws";
    let sent = Sent {
        of: "websocket",
        headers: &websocket.headers,
        bearer_token: &websocket.bearer_token,
    };
    sent.check_to(&websocket.url, ["ws://", "wss://"], example, uses, report);
}

pub(super) fn check_unix(unix: &UnixBackend, uses: Uses<'_>, report: &mut Report<'_>) {
    check_socket(&unix.path, report);
    let url_path = &unix.url_path;
    if !url_path.is_empty()
        && (!url_path.starts_with('/') || url_path.parse::<PathAndQuery>().is_err())
    {
        report.add(
            "unix.url_path",
            "is not a path: write what follows the host in an address, such as `/mcp`",
        );
    }
    let sent = Sent {
        of: "unix",
        headers: &unix.headers,
        bearer_token: &unix.bearer_token,
    };
    sent.check(uses, report);
}

/// References may stand for anything; what they will hold is checked on the data plane.
fn check_socket(path: &str, report: &mut Report<'_>) {
    const AT: &str = "unix.path";
    if path.is_empty() {
        return report.add(
            AT,
            "is missing or empty: write where the socket is, such as `/run/mcp.sock`",
        );
    }
    let why = "but nothing of a path is a secret: write it, or use `${env:NAME}`";
    let parts = report.open_parts(AT, path, why);
    check_nul(AT, path, report);
    match &parts[..] {
        [Part::Literal(first), ..] if !first.starts_with('/') => {
            report.add(AT, "is not absolute: begin it with `/`");
        }
        [Part::Literal(all)] if all.len() > SOCKET_PATH_MAX => {
            let message = format!(
                "has {} bytes: the path of a socket has at most {SOCKET_PATH_MAX}",
                all.len()
            );
            report.add(AT, message);
        }
        _ => {}
    }
}

fn check_url(
    path: &str,
    url: &str,
    schemes: [&str; 2],
    example: &str,
    uses: Uses<'_>,
    report: &mut Report<'_>,
) {
    if url.is_empty() {
        let message = format!(
            "is missing or empty: write the address of the MCP endpoint, such as {example}"
        );
        return report.add(path, message);
    }
    let parts = uses.parts(path, url, report);
    if let Some(message) = bad_url(&parts, schemes) {
        report.add(path, message);
    }
}

/// References may stand for anything after the scheme; what they will hold is
/// checked on the data plane.
fn bad_url(parts: &[Part], schemes: [&str; 2]) -> Option<String> {
    let first = match parts.first()? {
        Part::Literal(text) => text,
        Part::Env(_) | Part::File(_) | Part::Secret(_) => return None,
    };
    let lower = first.to_ascii_lowercase();
    if !schemes.iter().any(|scheme| lower.starts_with(scheme)) {
        return Some(format!("must start with {} or {}", schemes[0], schemes[1]));
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

impl Sent<'_> {
    /// Looks at them, and at the address that they are sent to.
    fn check_to(
        &self,
        url: &str,
        schemes: [&str; 2],
        example: &str,
        uses: Uses<'_>,
        report: &mut Report<'_>,
    ) {
        let path = format!("{}.url", self.of);
        check_url(&path, url, schemes, example, uses, report);
        self.check(uses, report);
    }

    fn check(&self, uses: Uses<'_>, report: &mut Report<'_>) {
        self.check_headers(uses, report);
        let path = format!("{}.bearer_token", self.of);
        let parts = uses.parts(&path, self.bearer_token, report);
        if literals(&parts).any(|text| !text.bytes().all(|b| b.is_ascii_graphic())) {
            report.add(
                path,
                "holds blanks or characters outside ASCII, which no `Authorization` header can carry",
            );
        }
    }

    fn check_headers(&self, uses: Uses<'_>, report: &mut Report<'_>) {
        let mut seen: HashMap<String, &str> = HashMap::new();
        for (name, value) in self.headers {
            let path = entry(&format!("{}.headers", self.of), name);
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
            } else if lower == "authorization" && !self.bearer_token.is_empty() {
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
