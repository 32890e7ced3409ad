//! Gateways: paths, naming, and what they name.

use super::*;

#[test]
fn paths_of_gateways_are_plain_and_free() {
    for (path, words) in [
        ("/", ""),
        ("/mcp", ""),
        ("/mcp/team-a", ""),
        ("/administration", ""),
        ("mcp", "must start with `/`"),
        ("/mcp/", "ends with `/`"),
        ("/a//b", "empty, `.` or `..` part"),
        ("/a/../b", "empty, `.` or `..` part"),
        ("/mcp?x=1", "holds '?'"),
        ("/mcp#x", "holds '#'"),
        ("/m%63p", "holds '%'"),
        ("/livez", "reserved"),
        ("/metrics/x", "reserved"),
        (
            "/.well-known/oauth-protected-resource",
            "the data plane answers /.well-known",
        ),
    ] {
        assert_one(&format!("kind: Gateway\nname: g\npath: '{path}'"), words);
    }
    let two =
        "kind: Gateway\nname: a\npath: /mcp\n---\nkind: Gateway\nname: b\nproject: p\npath: /mcp";
    assert_one(
        two,
        "Gateway p/b: path: \"/mcp\" is already the path of Gateway default/a",
    );
    assert_one("kind: Gateway\nname: g", "path: is missing");
}

#[test]
fn separators_keep_names_apart() {
    let backends = "kind: Backend\nname: a\nhttp: {url: http://h/}\n---\nkind: Backend\nname: a-b\nhttp: {url: http://h/}\n---\n";
    for (fields, words) in [
        ("", ""),
        ("separator: __", ""),
        ("separator: /", ""),
        ("bare_names: true", ""),
        (
            "separator: '-'",
            "the prefix \"a-\" of Backend a starts the prefix \"a-b-\" of Backend a-b",
        ),
        ("separator: '-'\nbackends: [a]", ""),
        (
            "separator: /\nbare_names: true",
            "has no use together with `bare_names`",
        ),
        ("separator: -----", "must be 1 to 4"),
        ("separator: ':'", "must be 1 to 4"),
    ] {
        assert_one(
            &format!("{backends}kind: Gateway\nname: g\npath: /mcp\n{fields}"),
            words,
        );
    }
}

#[test]
fn hosts_and_origins_are_whole() {
    for (field, words) in [
        ("hosts: [mcp.example.com, localhost, '[::1]', 10.0.0.1]", ""),
        (
            "hosts: ['mcp.example.com:443']",
            "hosts[0]: \"mcp.example.com:443\" is not a host name",
        ),
        ("hosts: [a, 'https://b']", "hosts[1]"),
        ("hosts: ['[::x]']", "hosts[0]"),
        ("hosts: ['a..b']", "hosts[0]"),
        (
            "origins: ['https://app.example.com', 'http://localhost:3000', 'http://[::1]:80', 'http://[::1]']",
            "",
        ),
        ("origins: [app.example.com]", "origins[0]"),
        ("origins: ['https://a/']", "origins[0]"),
        ("origins: ['https://a:b']", "origins[0]"),
        ("origins: ['https://a:']", "origins[0]"),
        ("origins: ['null']", "origins[0]"),
        ("origins: ['*']", "origins[0]"),
    ] {
        assert_one(
            &format!("kind: Gateway\nname: g\npath: /mcp\n{field}"),
            words,
        );
    }
}

#[test]
fn gateways_name_what_exists_in_their_project() {
    let others = "kind: Backend\nname: files\nlabels: {team: core}\nhttp: {url: http://h/}\n---\n\
        kind: AuthPolicy\nname: staff\nbearer: {tokens: ['${env:T}']}\n---\n\
        kind: Backend\nname: secret\nproject: p\nhttp: {url: http://h/}\n---\n\
        kind: AuthPolicy\nname: others\nproject: p\nbearer: {tokens: ['${env:T}']}\n---\n";
    for (fields, words) in [
        (
            "auth: staff\nbackends: [files, 'x*']\nresource_owner: files",
            "",
        ),
        ("auth: none", ""),
        ("backend_labels: {team: core}\nbackends: [files]", ""),
        (
            "auth: stuff",
            "auth: there is no AuthPolicy \"stuff\" in project \"default\": did you mean `staff`?",
        ),
        (
            "auth: others",
            "there is no AuthPolicy \"others\" in project \"default\"",
        ),
        (
            "backends: [file]",
            "backends[0]: there is no Backend \"file\" in project \"default\": did you mean `files`?",
        ),
        (
            "backends: [files, secret]",
            "backends[1]: there is no Backend \"secret\"",
        ),
        (
            "backends: [files, files]",
            "backends[1]: \"files\" is listed twice",
        ),
        ("backends: ['[ab]*']", "backends[0]: a glob holds"),
        ("backends: ['a b']", "backends[0]: \"a b\" holds ' '"),
        (
            "backends: [files]\nbackend_labels: {team: web}",
            "backends[0]: Backend files does not carry all of `backend_labels`",
        ),
        (
            "resource_owner: secret",
            "resource_owner: there is no Backend \"secret\"",
        ),
        (
            "resource_owner: files\nbackends: ['x*']",
            "resource_owner: Backend files is not behind this gateway",
        ),
        ("method_owner: {acme/search: files, 'acme/*': files}", ""),
        (
            "method_owner: {acme/search: secret}",
            "method_owner[\"acme/search\"]: there is no Backend \"secret\"",
        ),
        (
            "method_owner: {'acme*search': files}",
            "method_owner[\"acme*search\"]: is neither a method",
        ),
        ("resume_grace: 0s", ""),
        ("resume_grace: 11m", "resume_grace: must be at most 10m"),
    ] {
        assert_one(
            &format!("{others}kind: Gateway\nname: g\npath: /mcp\n{fields}"),
            words,
        );
    }
}

#[test]
fn without_gateways_a_default_one_is_served() {
    let valid = validate([backend("a"), backend("b")]).unwrap();
    let served = valid.gateways_served();
    assert_eq!(
        (
            served.len(),
            served[0].path.as_str(),
            served[0].name.as_str()
        ),
        (1, "/mcp", "default")
    );
    assert_eq!(valid.backends_of(&served[0]).count(), 2);

    let gateway = Gateway {
        name: "g".into(),
        path: "/x".into(),
        backends: vec!["a".into()],
        ..Default::default()
    };
    let gateway = Resource {
        kind: Some(resource::Kind::Gateway(gateway)),
    };
    let valid = validate([backend("a"), backend("b"), gateway]).unwrap();
    let served = valid.gateways_served();
    assert_eq!((served.len(), served[0].path.as_str()), (1, "/x"));
    assert_eq!(
        valid
            .backends_of(&served[0])
            .map(|(key, _)| key.name.as_str())
            .collect::<Vec<_>>(),
        ["a"]
    );
}
