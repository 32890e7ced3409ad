//! Backends: addresses, headers, programs, times.

use super::*;

#[test]
fn addresses_are_those_of_mcp_servers() {
    for (url, words) in [
        ("http://127.0.0.1:3001/mcp", ""),
        ("HTTPS://mcp.example.com", ""),
        ("http://[::1]:8080/mcp?x=1", ""),
        ("https://${env:HOST}/mcp", ""),
        ("http://h:${env:PORT}/", ""),
        ("${env:URL}", ""),
        ("${env:SCHEME}://h", ""),
        ("ftp://h/", "must start with http"),
        ("localhost:3000/mcp", "must start with http"),
        ("http://", "http.url: "),
        ("http:///mcp", "http.url: "),
        ("http://u:p@h/", "holds a user or password"),
        ("http://${env:USER}@h/", "holds a user or password"),
        ("http://h/#frag", "fragment"),
        ("http://h:0/", "port"),
        ("http://h:99999/", "http.url: "),
        ("http://a b/", "is not an address"),
        ("http://h/${URL}", "write `${env:URL}`"),
    ] {
        assert_one(
            &format!("kind: Backend\nname: a\nhttp: {{url: '{url}'}}"),
            words,
        );
    }
}

#[test]
fn headers_of_the_protocol_are_its_own() {
    let with = |rest: &str| format!("kind: Backend\nname: a\nhttp: {{url: http://h/, {rest}}}");
    for name in [
        "Host",
        "content-length",
        "Content-Type",
        "accept",
        "connection",
        "transfer-encoding",
        "TE",
    ]
    .into_iter()
    .chain([
        "upgrade",
        "keep-alive",
        "trailer",
        "proxy-authorization",
        "Mcp-Session-Id",
        "mcp-param-x",
    ])
    .chain([
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
        "last-event-id",
    ]) {
        assert_one(
            &with(&format!("headers: {{{name}: a}}")),
            "is set by the proxy itself",
        );
    }
    for (rest, words) in [
        ("headers: {X-Team: 'a ${env:B}', x-other: ''}", ""),
        ("headers: {Authorization: Basic abc}", ""),
        ("headers: {mcp-custom: a}", ""),
        ("bearer_token: '${file:/run/token}'", ""),
        (
            "headers: {authorization: Basic abc}, bearer_token: abc",
            "would be sent twice",
        ),
        (
            "headers: {a b: c}",
            "headers[\"a b\"]: is not the name of a header",
        ),
        ("headers: {X-A: b, x-a: c}", "is the same header as \"X-A\""),
        ("headers: {x-a: \"b\\r\\nc: d\"}", "line breaks"),
        (
            "headers: {x-a: '${secret:b}'}",
            "there is no Secret b in project default",
        ),
        ("bearer_token: 'a b'", "bearer_token: holds blanks"),
    ] {
        assert_one(&with(rest), words);
    }
}

#[test]
fn programs_can_be_started() {
    for (stdio, words) in [
        (
            "command: npx, args: [-y, '', '${env:A}'], env: {A: '', B_1: '${file:/b}'}, cwd: /srv",
            "",
        ),
        ("args: [a]", "stdio.command: is missing"),
        ("command: \"a\\0\"", "NUL"),
        (
            "command: a, args: [b, \"\\0\"]",
            "stdio.args[1]: holds a NUL",
        ),
        (
            "command: a, env: {'': b}",
            "stdio.env[\"\"]: an environment variable needs a name",
        ),
        ("command: a, env: {A=B: b}", "needs a name"),
        (
            "command: a, env: {A: '${B}'}",
            "stdio.env[\"A\"]: `${B}` is not a known reference",
        ),
        ("command: a, cwd: '${env:}'", "stdio.cwd"),
    ] {
        assert_one(
            &format!("kind: Backend\nname: a\nstdio: {{{stdio}}}"),
            words,
        );
    }
}

#[test]
fn a_timeout_is_within_the_longest_duration() {
    for (times, words) in [
        ("timeout: 30s\nmax_duration: 30s", ""),
        ("timeout: 15m", ""),
        ("max_duration: 1h\ntimeout: 20m", ""),
        ("timeout: 0s", "timeout: must be more than 0"),
        ("max_duration: 0s", "max_duration: must be more than 0"),
        (
            "timeout: 16m",
            "timeout: 16m is longer than max_duration 15m (its default)",
        ),
        (
            "timeout: 2m\nmax_duration: 1m",
            "timeout: 2m is longer than max_duration 1m:",
        ),
        (
            "max_duration: 10s",
            "max_duration: 10s is shorter than timeout 30s (its default)",
        ),
    ] {
        assert_one(
            &format!("kind: Backend\nname: a\nhttp: {{url: http://h/}}\n{times}"),
            words,
        );
    }
}
