//! `docs/mcpctl.md` is made from the command line itself. This test fails when it
//! is not up to date; with `UPDATE_DOCS=1` it writes it.

use std::{env, fs, path::Path};

use clap::{Arg, Command, CommandFactory as _};

use crate::args::Cli;

const HEAD: &str = include_str!("manual_head.md");
/// Flags that the head explains, by the flag that only such verbs have.
const SHARED: [(&str, &[&str], &str); 2] = [
    (
        "control_plane",
        &["context", "control_plane", "token", "ca_file"],
        "Takes the flags of [Which control plane](#which-control-plane).",
    ),
    (
        "protocol",
        &["context", "url", "token", "protocol", "timeout"],
        "Takes the flags of [Which gateway](#which-gateway).",
    ),
];
/// Flags of every verb, or of none.
const EVERYWHERE: [&str; 3] = ["help", "version", "log"];

fn page() -> String {
    let mut cli = Cli::command();
    cli.build();
    let log = cli.get_arguments().find(|arg| arg.get_id() == "log");
    let mut page = format!(
        "{HEAD}\n# Verbs\n\nEvery verb takes `--help`, and {}\n",
        entry(log.expect("a flag of all verbs"))
    );
    for verb in cli.get_subcommands().filter(|c| c.get_name() != "help") {
        section(verb, "", &mut page);
    }
    page
}

fn section(verb: &Command, parent: &str, page: &mut String) {
    let name = format!("{parent}{}", verb.get_name());
    let about = verb.get_about().map(ToString::to_string);
    page.push_str(&format!(
        "\n## {name}\n\n{}\n",
        one_line(&about.unwrap_or_default())
    ));
    let nested: Vec<&Command> = verb
        .get_subcommands()
        .filter(|c| c.get_name() != "help")
        .collect();
    for verb in &nested {
        section(verb, &format!("{name} "), page);
    }
    if !nested.is_empty() {
        return;
    }
    let has = |id: &str| verb.get_arguments().any(|arg| arg.get_id() == id);
    let shared: Vec<_> = SHARED.iter().filter(|(id, ..)| has(id)).collect();
    let known = |arg: &Arg| {
        let id = arg.get_id().as_str();
        EVERYWHERE.contains(&id) || shared.iter().any(|(_, ids, _)| ids.contains(&id))
    };
    let own: Vec<&Arg> = verb.get_arguments().filter(|arg| !known(arg)).collect();
    if !own.is_empty() {
        page.push('\n');
        for arg in own {
            page.push_str(&format!("- {}\n", entry(arg)));
        }
    }
    for (_, _, sentence) in shared {
        page.push_str(&format!("\n{sentence}\n"));
    }
}

/// A flag or a word, its variable, its default and what it means.
fn entry(arg: &Arg) -> String {
    let values: Vec<String> = arg
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(|name| format!("<{name}>"))
        .collect();
    let takes = arg.get_action().takes_values();
    let value = if takes {
        values.join(" ")
    } else {
        String::new()
    };
    let mut names: Vec<String> = Vec::new();
    names.extend(arg.get_short().map(|short| format!("`-{short}`")));
    if let Some(long) = arg.get_long() {
        let optional = arg.get_num_args().is_some_and(|n| n.min_values() == 0) && takes;
        names.push(match (value.is_empty(), optional) {
            (true, _) => format!("`--{long}`"),
            (false, true) => format!("`--{long}[={value}]`"),
            (false, false) => format!("`--{long} {value}`"),
        });
    } else {
        names.push(format!("`{value}`"));
    }
    let mut text = names.join(", ");
    if let Some(variable) = arg.get_env().and_then(|name| name.to_str()) {
        text.push_str(&format!(" (`{variable}`)"));
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    text.push_str(&format!(": {}", one_line(&help)));
    let defaults: Vec<&str> = arg
        .get_default_values()
        .iter()
        .filter_map(|v| v.to_str())
        .collect();
    if takes && !defaults.concat().is_empty() {
        text.push_str(&format!(" Default: `{}`.", defaults.join(" ")));
    }
    let words: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(|word| format!("`{}`", word.get_name()))
        .collect();
    if takes && !words.is_empty() {
        text.push_str(&format!(" One of {}.", words.join(", ")));
    }
    text
}

/// One line that ends like a sentence, as help texts do not.
fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if !line.is_empty() && !line.ends_with(['.', '?']) {
        line.push('.');
    }
    line
}

#[test]
fn the_manual_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mcpctl.md");
    let page = page();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept.replace("\r\n", "\n") == page,
        "docs/mcpctl.md is not what the command line says: run UPDATE_DOCS=1 cargo test -p mcpctl manual"
    );
}

#[test]
fn every_verb_is_in_the_manual() {
    let page = page();
    for verb in Cli::command().get_subcommands() {
        let title = format!("\n## {}\n", verb.get_name());
        assert!(page.contains(&title), "{}", verb.get_name());
    }
}

#[test]
fn every_promised_exit_code_is_in_the_manual() {
    for code in 0..=8 {
        assert!(HEAD.contains(&format!("\n| {code} | ")), "{code}");
    }
}
