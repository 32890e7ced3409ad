//! What callgrind has written: its format, as far as it is needed
//! (Valgrind manual, "Callgrind Format Specification").

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result};

/// Functions that give memory.
const ALLOCATORS: [&str; 8] = [
    "mi_malloc_aligned",
    "mi_zalloc_aligned",
    "mi_realloc_aligned",
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

/// What one part of a run has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) instructions: u64,
    pub(super) allocations: u64,
    /// Instructions of each function itself.
    pub(super) functions: HashMap<String, u64>,
    /// Allocations by who asked for them.
    pub(super) allocating: HashMap<String, u64>,
}

/// Names are written out where they come first, `(12) malloc`, and are their number from then on.
#[derive(Default)]
struct Names<'a>(HashMap<&'a str, &'a str>);

impl<'a> Names<'a> {
    fn name(&mut self, text: &'a str) -> &'a str {
        match text.split_once(' ') {
            Some((number, name)) => {
                self.0.insert(number, name);
                name
            }
            None => self.0.get(text).copied().unwrap_or(text),
        }
    }
}

/// Reads one dump.
pub(super) fn read(path: &Path) -> Result<Count> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    count(&text).with_context(|| format!("{} is no callgrind dump", path.display()))
}

fn count(text: &str) -> Option<Count> {
    let mut names = Names::default();
    let mut count = Count::default();
    let (mut here, mut called) = ("", "");
    // The line behind `calls=` is what the call took, not what its caller did.
    let mut is_call = false;
    let mut complete = false;
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("summary:") {
            count.instructions = total.split_whitespace().next()?.parse().ok()?;
            complete = true;
        } else if let Some(name) = line.strip_prefix("fn=") {
            here = names.name(name);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            called = names.name(name);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            is_call = true;
            if ALLOCATORS.contains(&called) && !ALLOCATORS.contains(&here) {
                let calls: u64 = calls.split_whitespace().next()?.parse().ok()?;
                count.allocations += calls;
                *count.allocating.entry(here.to_owned()).or_default() += calls;
            }
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c))
            && !std::mem::take(&mut is_call)
        {
            let own = line.split_whitespace().nth(1).and_then(|n| n.parse().ok());
            *count.functions.entry(here.to_owned()).or_default() += own.unwrap_or(0);
        }
    }
    complete.then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_belong_to_functions_and_allocations_to_who_asks() {
        let text = "events: Ir\nsummary: 1234\n\nfn=(1) main\n0 5\ncfn=(2) malloc\ncalls=3 0\n0 30\n\
                    cfn=(3) other\ncalls=7 0\n+1 30\n* 2\n\nfn=(3)\n0 9\ncfn=(2)\ncalls=2 0\n0 20\n";
        let count = count(text).unwrap();
        assert_eq!((count.instructions, count.allocations), (1234, 5));
        assert_eq!((count.functions["main"], count.functions["other"]), (7, 9));
        assert_eq!(
            (count.allocating["main"], count.allocating["other"]),
            (3, 2)
        );
    }

    #[test]
    fn what_is_no_dump_is_not_read() {
        assert_eq!(count("nothing"), None);
    }
}
