//! Takes out of what a child writes what it must not show: values that it was given.

use std::borrow::Cow;

/// What stands for a value.
const MARK: &str = "(hidden)";
/// Shorter values are left: they are in half of all words.
const SHORTEST: usize = 4;

/// Values to be taken out, the longest first.
pub(super) struct Hidden(Vec<String>);

impl Hidden {
    /// Takes out these values, and each line of one that has several.
    pub(super) fn new(values: &[String]) -> Self {
        let lines = values.iter().flat_map(|value| value.lines());
        let all = values.iter().map(String::as_str).chain(lines);
        let mut all: Vec<_> = all
            .map(str::trim)
            .filter(|text| text.len() >= SHORTEST)
            .map(str::to_owned)
            .collect();
        all.sort_unstable();
        all.dedup();
        all.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Self(all)
    }

    pub(super) fn out_of<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for value in &self.0 {
            if text.contains(value) {
                text = Cow::Owned(text.replace(value, MARK));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_out_and_the_rest_stays() {
        let values = ["tok3n", "tok3n-long", "one-line\ntwo-line", "a"].map(str::to_owned);
        let hidden = Hidden::new(&values);
        assert_eq!(hidden.out_of("plain a"), "plain a");
        assert_eq!(
            hidden.out_of("x=tok3n-long y=tok3n"),
            "x=(hidden) y=(hidden)"
        );
        assert_eq!(hidden.out_of("say two-line"), "say (hidden)");
    }
}
