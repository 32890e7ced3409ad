//! `mcpctl explain`: what a kind or a field of it means.

use clap::Args;
use prost_reflect::{FieldDescriptor, MessageDescriptor};

use crate::{
    failure::Failure,
    kinds,
    model::{self, Holds},
    output,
};

/// Longest line of text.
const WIDTH: usize = 80;

/// Flags of `explain`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// `KIND` or `KIND.field.field`, where KIND is backend, gateway or auth-policy.
    #[arg(value_name = "KIND[.FIELD]")]
    what: String,
}

/// Explains.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    output::data(&explain(&flags.what)?)
}

fn explain(what: &str) -> Result<String, Failure> {
    let mut parts = what.split('.');
    let kind = kinds::parse_kind(parts.next().unwrap_or_default())?;
    let mut message = model::message(kind);
    let mut last = None;
    let mut at = kind.to_string();
    let mut inside = true;
    for name in parts {
        let field = inside.then(|| message.get_field_by_name(name)).flatten();
        let field = field.ok_or_else(|| unknown(name, &at, inside.then_some(&message)))?;
        at = format!("{at}.{name}");
        inside = match model::holds(&field) {
            Holds::Fields(next) => {
                message = next;
                true
            }
            _ => false,
        };
        last = Some(field);
    }
    let mut text = format!("KIND:   {kind}\n");
    let meaning = match &last {
        None => model::of_message(&message),
        Some(field) => {
            text.push_str(&format!("FIELD:  {at} <{}>\n", model::type_of(field)));
            model::of_field(field)
        }
    };
    text.push_str(&format!("\n{}", wrapped(&meaning, 0)));
    if inside {
        for choice in message.oneofs().filter(|c| !c.is_synthetic()) {
            let names: Vec<String> = choice.fields().map(|f| f.name().to_owned()).collect();
            let line = format!("{}: {}", names.join(" or "), model::of_choice(&choice));
            text.push_str(&format!("\n{}", wrapped(&line, 0)));
        }
        text.push_str("\nFIELDS:\n");
        text.extend(message.fields().map(|field| entry(&field)));
    }
    Ok(text)
}

fn entry(field: &FieldDescriptor) -> String {
    let meaning = wrapped(&model::of_field(field), 4);
    format!("  {} <{}>\n{meaning}", field.name(), model::type_of(field))
}

fn unknown(name: &str, at: &str, message: Option<&MessageDescriptor>) -> Failure {
    let known = match message {
        Some(message) => {
            let names: Vec<String> = message.fields().map(|f| f.name().to_owned()).collect();
            format!("it has {}", names.join(", "))
        }
        None => "it has no fields".to_owned(),
    };
    Failure::Usage(format!("{at} has no field {name:?}: {known}"))
}

fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_lists_its_fields_and_a_field_its_own() {
        let text = explain("backend").unwrap();
        assert!(
            text.starts_with("KIND:   Backend\n\nAn MCP server"),
            "{text}"
        );
        assert!(
            text.contains("\n  http <HttpBackend>\n    A server"),
            "{text}"
        );
        assert!(text.contains("stdio or http"), "{text}");
        let text = explain("Backend.http.url").unwrap();
        assert!(text.contains("FIELD:  Backend.http.url <text>"), "{text}");
        assert!(!text.contains("FIELDS:"), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn what_is_not_there_says_what_is() {
        for (what, words) in [
            ("pod", "backend, gateway"),
            ("backend.htpp", "it has name, "),
            ("backend.name.x", "it has no fields"),
        ] {
            let failure = explain(what).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }
}
