//! The file of an edit: a head of comments, then the resource. Comments at the
//! top are not part of what is written.

use std::path::Path;

use fleet_proto::{
    key::{Key, Kind},
    read::{Documents, read_yaml},
};

use crate::{change, failure::Failure, kinds, output};

/// The name of the file in messages.
const LABEL: &str = "line";

/// What was saved.
#[derive(Debug)]
pub(super) struct Edited {
    /// All of it.
    pub(super) whole: String,
    /// What follows the comments at the top.
    pub(super) body: String,
}

/// The comments at the top, with what was wrong the last time.
pub(super) fn header(key: &Key, problems: &[String]) -> String {
    let name = kinds::slashed(key);
    let mut text = format!(
        "# Edit {name} below. Lines at the top that begin with `#` are ignored;\n\
         # an empty file, or one without a change, leaves it as it is.\n"
    );
    if key.kind == Kind::Secret {
        text.push_str("# Its `value` is not shown: without one, the value that is stored stays.\n");
    }
    if !problems.is_empty() {
        text.push_str(&format!("#\n# {name} was not accepted:\n"));
        for problem in problems {
            text.push_str(&format!("# * {}\n", output::one_line(problem)));
        }
    }
    text.push_str("#\n");
    text
}

impl Edited {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let whole = std::fs::read_to_string(path)
            .map_err(|e| Failure::other(format!("cannot read {}: {e}", path.display())))?;
        Ok(Self::new(whole))
    }

    fn new(whole: String) -> Self {
        let head: usize = whole
            .split_inclusive('\n')
            .take_while(|line| line.starts_with('#'))
            .map(str::len)
            .sum();
        let body = whole[head..].to_owned();
        Self { whole, body }
    }

    /// What it says, if that is the one resource that was to be edited.
    pub(super) fn documents(&self, key: &Key) -> Result<Documents, Failure> {
        let mut documents = Documents::default();
        read_yaml(LABEL, &self.body, &mut documents);
        if !documents.problems.is_empty() {
            return Err(change::located(&documents, &[]));
        }
        let keys: Vec<_> = documents
            .documents
            .iter()
            .filter_map(|d| Key::of(&d.resource))
            .collect();
        if keys != [key.clone()] {
            let message = format!(
                "{LABEL}:1:1: must hold {key} and nothing else: kind, project and name stay; use `apply` and `delete` for others"
            );
            return Err(Failure::Invalid(vec![message]));
        }
        Ok(documents)
    }

    /// Problems with the lines that they will have below a head that lists them.
    pub(super) fn placed(&self, problems: &[String]) -> Vec<String> {
        let any = Key::new("", Kind::Backend, "x");
        let head = header(&any, problems).lines().count();
        let moved = |problem: &String| {
            let at = problem.strip_prefix(LABEL)?.strip_prefix(':')?;
            let (line, rest) = at.split_once(':')?;
            let line: usize = line.parse().ok()?;
            Some(format!("{LABEL} {}:{rest}", line + head))
        };
        let problems = problems.iter();
        problems
            .map(|p| moved(p).unwrap_or_else(|| p.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use fleet_proto::key::Kind;

    use super::*;

    #[test]
    fn problems_name_the_lines_of_the_file_that_is_opened_again() {
        let key = Key::new("", Kind::Backend, "a");
        let bad = "kind: Backend\nname: a\nhttp: { url: 'http://h/' }\ntimeuot: 3s\n";
        let edited = Edited::new(header(&key, &[]) + bad);
        assert_eq!(edited.body, bad);
        let Err(Failure::Invalid(lines)) = edited.documents(&key) else {
            panic!("it is bad")
        };
        let shown = header(&key, &edited.placed(&lines)) + bad;
        let line = shown
            .lines()
            .position(|l| l.starts_with("timeuot"))
            .unwrap()
            + 1;
        assert!(shown.contains(&format!("# * line {line}:1: ")), "{shown}");
        // Saved once more, the head is not taken for more of the resource.
        assert_eq!(Edited::new(shown).body, bad);
    }

    #[test]
    fn an_edit_keeps_to_its_resource() {
        let key = Key::new("", Kind::Backend, "a");
        let renamed = "kind: Backend\nname: b\nhttp: { url: 'http://h/' }\n";
        let failure = Edited::new(renamed.to_owned()).documents(&key).unwrap_err();
        assert!(
            failure.to_string().contains("must hold Backend a"),
            "{failure}"
        );
    }
}
