//! What goes where: data to stdout, everything else to stderr; never a colour,
//! so `NO_COLOR` is always honoured.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

/// How resources are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Table,
    /// Aligned columns, more of them.
    Wide,
    /// JSON.
    Json,
    /// YAML that `apply` takes back.
    Yaml,
    /// `kind/name`, one per line.
    Name,
}

/// How what is not configuration is shown: nodes, revisions, what a gateway offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    /// Aligned columns.
    Table,
    /// Aligned columns, nothing cut.
    Wide,
    /// JSON; what a gateway offers, as it sent it.
    Json,
    /// Names (or URIs, or numbers), one per line.
    Name,
}

/// Writes data to stdout, with a line end.
///
/// # Errors
/// stdout cannot be written. A reader that has gone (`mcpctl get | head`) is
/// not a failure.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let mut written = out.write_all(text.as_bytes());
    if !text.ends_with('\n') && !text.is_empty() {
        written = written.and_then(|()| out.write_all(b"\n"));
    }
    match written.and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::other(format!("cannot write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}

/// Tells the person at the terminal something. There is nowhere to report that
/// stderr is closed.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// What a control plane answers, as asked for: `json` as it is, the `items` of it
/// by `name` or as what `table` makes of them (wide or not).
///
/// # Errors
/// It cannot be written as JSON.
pub(crate) fn listing<T>(
    how: Listing,
    json: &impl Serialize,
    items: &[T],
    name: impl Fn(&T) -> String,
    table: impl FnOnce(&[T], bool) -> String,
) -> Result<String, Failure> {
    match how {
        Listing::Json => serde_json::to_string_pretty(json)
            .map_err(|e| Failure::other(format!("cannot write the answer as JSON: {e}"))),
        Listing::Name => Ok(items.iter().map(name).collect::<Vec<_>>().join("\n")),
        _ if items.is_empty() => Ok(String::new()),
        Listing::Table => Ok(table(items, false)),
        Listing::Wide => Ok(table(items, true)),
    }
}

/// Aligned columns under a head line; nothing after the last column.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| shown(cell)).collect())
        .collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut padding = 0;
        for (cell, width) in cells.zip(&widths) {
            text.extend(std::iter::repeat_n(' ', padding));
            text.push_str(cell);
            padding = width - cell.chars().count() + 3;
        }
        text.push('\n');
    };
    line(&mut head.iter().copied());
    for row in &rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// A cell as it is shown: `-` for nothing, and no control characters, because
/// names and descriptions come from servers that need not be friends of the
/// terminal.
fn shown(cell: &str) -> String {
    if cell.is_empty() {
        "-".to_owned()
    } else {
        one_line(cell)
    }
}

/// A text on one line without control characters.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The first line of a text, cut after `limit` characters.
pub(crate) fn brief(text: &str, limit: usize) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    if line.chars().count() <= limit {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(limit.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A word as a POSIX shell takes it back.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", one_line(word).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows = [
            vec!["a".to_owned(), "x".to_owned()],
            vec!["größer".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["NAME", "DETAIL"], &rows),
            "NAME     DETAIL\na        x\ngrößer   -\n"
        );
    }

    #[test]
    fn a_listing_is_what_was_asked_for() {
        let show = |how, items: &[u8]| {
            let table = |items: &[u8], wide| format!("{items:?} {wide}");
            listing(how, &items, items, u8::to_string, table).unwrap()
        };
        assert_eq!(show(Listing::Table, &[7, 8]), "[7, 8] false");
        assert_eq!(show(Listing::Wide, &[7]), "[7] true");
        assert_eq!(show(Listing::Name, &[7, 8]), "7\n8");
        assert_eq!(show(Listing::Json, &[]), "[]");
        assert_eq!(show(Listing::Wide, &[]), "", "no head without a body");
    }

    #[test]
    fn a_hostile_description_cannot_drive_the_terminal() {
        let rows = [vec!["a\u{1b}[2Jb\nc".to_owned()]];
        assert_eq!(table(&["X"], &rows), "X\na [2Jb c\n");
    }

    #[test]
    fn briefs_keep_one_line_and_the_limit() {
        assert_eq!(brief("  one\ntwo", 10), "one");
        assert_eq!(brief("0123456789", 5), "0123…");
    }

    #[test]
    fn shell_words_are_quoted_when_they_must_be() {
        assert_eq!(shell_word("demo__echo"), "demo__echo");
        assert_eq!(shell_word(r#"{"a":"it's"}"#), r#"'{"a":"it'\''s"}'"#);
        assert_eq!(shell_word(""), "''");
    }
}
