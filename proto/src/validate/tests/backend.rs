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
fn sockets_have_absolute_paths_that_fit() {
    let long = format!("/{}", "x".repeat(107));
    for (unix, words) in [
        ("{path: /run/mcp.sock}", ""),
        ("{path: '/run/${env:NAME}.sock', url_path: '/a/b?c=d'}", ""),
        ("{path: '${env:SOCKET}'}", ""),
        ("{}", "is missing or empty"),
        ("{path: run/mcp.sock}", "is not absolute"),
        (
            "{path: '/run/${secret:s}'}",
            "nothing of a path is a secret",
        ),
        ("{path: \"/a\\0b\"}", "NUL"),
        (&format!("{{path: {long}}}"), "has 108 bytes"),
        ("{path: /a, url_path: mcp}", "is not a path"),
        ("{path: /a, url_path: '/a b'}", "is not a path"),
        ("{path: /a, headers: {Host: x}}", "set by the proxy"),
        ("{path: /a, bearer_token: 'a b'}", "holds blanks"),
    ] {
        assert_one(&format!("kind: Backend\nname: a\nunix: {unix}"), words);
    }
}

#[test]
fn websockets_have_addresses_of_their_own() {
    for (websocket, words) in [
        ("{url: 'ws://127.0.0.1:1/ws'}", ""),
        (
            "{url: 'WSS://h', bearer_token: '${env:T}', headers: {X-A: b}}",
            "",
        ),
        ("{}", "such as wss://"),
        ("{url: 'https://h/'}", "must start with ws:// or wss://"),
        ("{url: 'ws://u@h/'}", "holds a user or password"),
        (
            "{url: 'ws://h', headers: {Sec-WebSocket-Protocol: x}}",
            "set by the proxy",
        ),
        (
            "{url: 'ws://h/', bearer_token: x, headers: {Authorization: y}}",
            "would be sent twice",
        ),
    ] {
        assert_one(
            &format!("kind: Backend\nname: a\nwebsocket: {websocket}"),
            words,
        );
    }
}

#[test]
fn streams_of_2024_11_05_have_addresses_of_http() {
    for (sse, words) in [
        ("{url: 'https://${env:H}/sse', bearer_token: t}", ""),
        ("{}", "is missing or empty"),
        ("{url: 'ws://h/'}", "must start with http:// or https://"),
        (
            "{url: 'http://h/', headers: {Accept: x}}",
            "set by the proxy",
        ),
    ] {
        assert_one(&format!("kind: Backend\nname: a\nsse: {sse}"), words);
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
