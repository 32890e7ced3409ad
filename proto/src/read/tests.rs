//! Tests of reading: what each mistake is answered with, and where.

mod mistakes;
mod notation;

use super::*;
use crate::{
    v1::{Backend, Resource, backend::Transport, resource},
    write::{to_json, write_yaml},
};

fn read(text: &str) -> Documents {
    let mut documents = Documents::default();
    read_yaml("f.yaml", text, &mut documents);
    documents
}

/// Problems as `line:column message`.
fn lines(problems: &[Located]) -> Vec<String> {
    let place = |located: &Located| {
        located
            .location
            .as_ref()
            .map(|at| (at.line, at.column))
            .unwrap_or_default()
    };
    problems
        .iter()
        .map(|p| format!("{}:{} {}", place(p).0, place(p).1, p.message))
        .collect()
}

/// Everything that is wrong with a text.
fn wrong(text: &str) -> Vec<String> {
    read(text)
        .check()
        .map_or_else(|problems| lines(&problems), |_| Vec::new())
}

/// Each problem is at its place and holds the words that help.
#[track_caller]
fn assert_wrong(text: &str, expected: &[(&str, &str)]) {
    let wrong = wrong(text);
    let fits = wrong.len() == expected.len()
        && wrong.iter().zip(expected).all(|(line, (place, words))| {
            line.starts_with(&format!("{place} ")) && line.contains(words)
        });
    assert!(fits, "{text}\ngave {wrong:#?}\ninstead of {expected:#?}");
}

fn backend(documents: &Documents, number: usize) -> &Backend {
    match &documents.documents[number].resource.kind {
        Some(resource::Kind::Backend(backend)) => backend,
        other => panic!("{other:?}"),
    }
}

const EXAMPLE: &str = r#"# The example of the design.
kind: Backend
name: files
stdio: { command: npx, args: ["-y", "@modelcontextprotocol/server-filesystem", "/srv/docs"] }
timeout: 30s
---
kind: Backend
name: everything
labels: { team: core, version: 1.10 }
http: { url: "http://127.0.0.1:3001/mcp" }
---
---
kind: Gateway
name: default
path: /mcp
backends: ["*"]            # names or globs
separator: "__"
auth: staff
---
kind: AuthPolicy
name: staff
bearer: { tokens: ["${env:MCP_TOKEN}"] }
"#;

#[test]
fn a_good_file_is_read_and_checked() {
    let (documents, valid) = read(EXAMPLE).check().unwrap();
    assert_eq!(valid.len(), 4);
    assert_eq!(documents.resources().len(), 4);
    let files = backend(&documents, 0);
    assert_eq!(files.timeout.unwrap().as_millis(), 30_000);
    let Some(Transport::Stdio(stdio)) = &files.transport else {
        panic!()
    };
    assert_eq!(
        stdio.args,
        ["-y", "@modelcontextprotocol/server-filesystem", "/srv/docs"]
    );
    assert_eq!(backend(&documents, 1).labels["version"], "1.10");
    assert_eq!(valid.gateways_served()[0].path, "/mcp");
}

#[test]
fn later_problems_are_located_by_key_and_path() {
    let documents = read(EXAMPLE);
    let place = |name: &str, path: &str| {
        let key = Some(Key::new("", Kind::Backend, name));
        let problem = Problem {
            key,
            path: path.into(),
            message: "m".into(),
        };
        documents.locate(&problem).to_string()
    };
    assert_eq!(
        place("files", "stdio.args[1]"),
        "f.yaml:4:37: Backend files: stdio.args[1]: m"
    );
    assert_eq!(
        place("files", "stdio.cwd"),
        "f.yaml:4:1: Backend files: stdio.cwd: m"
    );
    assert_eq!(place("everything", ""), "f.yaml:7:1: Backend everything: m");
    assert_eq!(
        place("everything", "labels[\"a.b[c]\"]"),
        "f.yaml:9:1: Backend everything: labels[\"a.b[c]\"]: m"
    );
    assert_eq!(place("unknown", "timeout"), "Backend unknown: timeout: m");
}

#[test]
fn files_are_checked_against_what_is_stored() {
    let stored = read("kind: Backend\nname: files\nhttp: {url: http://h/}\n").resources();
    let gateway = "kind: Gateway\nname: g\npath: /mcp\nbackends: [files]\n";
    assert_eq!(read(gateway).check().unwrap_err().len(), 1);
    let (_, valid) = read(gateway).check_with(stored.clone()).unwrap();
    assert_eq!(valid.len(), 2);
    let (_, valid) = read("kind: Backend\nname: files\nstdio: {command: c}\n")
        .check_with(stored)
        .unwrap();
    assert_eq!(valid.len(), 1);
}

#[test]
fn several_files_are_one_configuration() {
    let mut documents = Documents::default();
    read_yaml(
        "z.yaml",
        "kind: Backend\nname: a\nhttp: {url: ftp://h/}\n",
        &mut documents,
    );
    read_yaml(
        "a.json",
        "[{\"kind\": \"Backend\", \"name\": \"a\", \"http\": {\"url\": \"http://h/\"}},\n {\"kind\": \"AuthPolicy\", \"name\": \"p\", \"bearer\": {}}]",
        &mut documents,
    );
    let problems: Vec<_> = documents
        .check()
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        problems[0].starts_with("z.yaml:3:13: Backend a: http.url: must start with http"),
        "{problems:?}"
    );
    assert!(
        problems[1].starts_with("a.json:1:30: Backend a: name: Backend a is defined twice"),
        "{problems:?}"
    );
    assert!(
        problems[2].starts_with("a.json:2:38: AuthPolicy p: bearer.tokens: has no token"),
        "{problems:?}"
    );
    assert_eq!(problems.len(), 3);
}

#[test]
fn written_files_look_as_people_write_them() {
    let resources: Vec<Resource> = read(EXAMPLE).resources();
    let text = write_yaml(&resources[..2]);
    let expected = "\
kind: Backend
name: files
stdio:
  command: npx
  args:
    - \"-y\"
    - \"@modelcontextprotocol/server-filesystem\"
    - /srv/docs
timeout: 30s
---
kind: Backend
name: everything
labels:
  team: core
  version: \"1.10\"
http:
  url: http://127.0.0.1:3001/mcp
";
    assert_eq!(text, expected);
    assert_eq!(to_json(&resources[0])["kind"], "Backend");
    assert_eq!(to_json(&resources[0])["stdio"]["args"][2], "/srv/docs");
    assert_eq!(to_json(&resources[0])["timeout"], "30s");
}
