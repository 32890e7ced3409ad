//! Mistakes in files: each at its place, with words that help.

use super::*;

#[test]
fn five_mistakes_in_one_file_give_five_messages_at_their_places() {
    let text = "\
kind: Backend
name: files
tiemout: 5s
stdio:
  command: npx
  args: -y
max_duration: 5 parsecs
---
kind: Gateway
name: default
path: /mcp
auth: staf
---
kind: AuthPolicy
name: staff
bearer: { tokens: [\"${env:MCP_TOKEN}\"] }
---
kind: Backend
name: files
http: { url: http://127.0.0.1:3001/mcp }
";
    let expected = [
        "3:1 Backend files: unknown field `tiemout`: did you mean `timeout`?",
        "6:9 Backend files: stdio.args: must be a list, such as [a, b]; this is a text",
        "7:15 Backend files: max_duration: \"5 parsecs\" is not a duration: write a whole number and a unit, such as 500ms, 30s, 5m, 24h or 1m30s",
        "12:7 Gateway default: auth: there is no AuthPolicy \"staf\" in project \"default\": did you mean `staff`?",
        "19:7 Backend files: name: Backend files is defined twice: remove one, or give it another name (the first is at f.yaml:2:7)",
    ];
    assert_eq!(wrong(text), expected);
}

#[test]
fn unknown_fields_are_answered_with_the_nearest_known() {
    assert_wrong(
        "kind: Backend\nname: a\nurl: http://h/\n",
        &[(
            "3:1",
            "Backend a: unknown field `url`: it belongs inside `http`",
        )],
    );
    assert_wrong(
        "kind: Backend\nname: a\nhttp:\n  urll: http://h/\n",
        &[(
            "4:3",
            "Backend a: http: unknown field `urll`: did you mean `url`?",
        )],
    );
    assert_wrong(
        "{\"kind\": \"Backend\", \"name\": \"a\", \"http\": {\"url\": \"http://h/\", \"bearerToken\": \"x\", \"zz\": 1}}",
        &[
            (
                "1:63",
                "unknown field `bearerToken`: did you mean `bearer_token`?",
            ),
            (
                "1:83",
                "unknown field `zz`: known here are `url`, `headers`, `bearer_token`",
            ),
        ],
    );
}

#[test]
fn wrong_types_are_refused_where_they_are() {
    let gateway = "kind: Gateway\nname: g\npath: /mcp\n";
    for (line, place, words) in [
        (
            "bare_names: yes",
            "4:13",
            "bare_names: \"yes\" must be true or false",
        ),
        ("bare_names: \"true\"", "4:13", "without quotes"),
        (
            "bare_names: [true]",
            "4:13",
            "must be true or false; this is a list",
        ),
        ("labels: core", "4:9", "labels: must be a mapping"),
        (
            "labels: {a: [b]}",
            "4:13",
            "labels[\"a\"]: must be a text; this is a list",
        ),
        (
            "labels: {a: }",
            "4:10",
            "labels[\"a\"]: must be a text; this is nothing",
        ),
        ("auth:", "4:1", "auth: has no value"),
        ("auth: ~", "4:7", "auth: has no value"),
        ("auth: \"\"", "4:7", "auth: is empty"),
        (
            "auth: {name: a}",
            "4:7",
            "auth: must be a text; this is a mapping",
        ),
        (
            "backends: []",
            "4:11",
            "backends: is empty, which would mean no limit",
        ),
        ("backends: {a: b}", "4:11", "backends: must be a list"),
        (
            "hosts: [h, [i]]",
            "4:12",
            "hosts[1]: must be a text; this is a list",
        ),
        ("auth: !x none", "4:7", "tags"),
        ("path: /other", "4:1", "`path` is here twice"),
        ("[a]: b", "4:1", "the key of an entry must be a text"),
    ] {
        assert_wrong(&format!("{gateway}{line}\n"), &[(place, words)]);
    }
    assert_wrong(
        "kind: Backend\nname: a\nhttp: http://h/\n",
        &[(
            "3:7",
            "http: must be a mapping with the fields url, headers, bearer_token; this is a text",
        )],
    );
    assert_wrong(
        "kind: Backend\nname: a\nhttp: {url: http://h/}\nstdio: {command: c}\n",
        &[("4:1", "stdio: excludes `http`, which is set as well")],
    );
    assert_wrong(
        "kind: Backend\nname: a\nhttp: {url: http://h/}\ntimeout: 30\n",
        &[("4:10", "\"30\" is not a duration")],
    );
    assert_wrong(
        "kind: Backend\nname: a\nhttp: {url: http://h/}\ntimeout: {s: 3}\n",
        &[("4:10", "must be a duration, such as")],
    );
}

#[test]
fn a_document_needs_a_kind_and_a_name() {
    assert_wrong(
        "name: a\n",
        &[(
            "1:1",
            "has no `kind`: write `kind:` and one of Backend, Gateway, AuthPolicy",
        )],
    );
    assert_wrong(
        "kind: Backnd\nname: a\n",
        &[("1:7", "unknown kind \"Backnd\": did you mean `Backend`?")],
    );
    assert_wrong("kind: [Backend]\n", &[("1:7", "`kind` must be one of")]);
    assert_wrong(
        "# x\nkind: Backend\nhttp: {url: http://h/}\n",
        &[("2:1", "Backend: name: has no `name`")],
    );
    assert_wrong("just text\n", &[("1:1", "a document must be a mapping")]);
    assert!(wrong("").is_empty());
    assert!(wrong("# nothing\n---\n---\n...\n").is_empty());
}

#[test]
fn what_follows_from_a_problem_is_not_reported() {
    let gateway = "---\nkind: Gateway\nname: g\npath: /mcp\nbackends: [files]\n";
    // The kind cannot be read, but files exists.
    assert_wrong(
        &format!("kind: Backnd\nname: files\n{gateway}"),
        &[("1:7", "unknown kind")],
    );
    // No transport, because its name is misspelt.
    assert_wrong(
        &format!("kind: Backend\nname: files\nhtpp: {{url: http://h/}}\n{gateway}"),
        &[("3:1", "did you mean `http`?")],
    );
    // Labels that cannot be read cannot be missed.
    assert_wrong(
        &format!(
            "kind: Backend\nname: files\nlabels: core\nhttp: {{url: http://h/}}\n{gateway}backend_labels: {{team: core}}\n"
        ),
        &[("3:9", "must be a mapping")],
    );
    // But what has nothing to do with it is.
    assert_wrong(
        "kind: Backend\nname: files\ntimeout: long\n",
        &[("1:1", "has no transport"), ("3:10", "is not a duration")],
    );
    // After a syntax error nobody knows what else there is.
    assert_wrong(
        &format!("{}---\nkind: [\n", &gateway[4..]),
        &[("7:1", "is not YAML")],
    );
}

#[test]
fn validation_problems_are_at_their_fields() {
    assert_wrong(
        "kind: Backend\nname: a__b\nstdio:\n  args:\n    - ${TOKEN}\n  env:\n    GOOD: \"1\"\n    A=B: c\n",
        &[
            ("2:7", "holds `__`"),
            ("3:1", "stdio.command: is missing"),
            (
                "5:7",
                "stdio.args[0]: `${TOKEN}` is not a known reference: write `${env:TOKEN}`",
            ),
            ("8:10", "stdio.env[\"A=B\"]: an environment variable needs"),
        ],
    );
}
