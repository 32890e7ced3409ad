//! Takes out of what a server writes what must not be shown: values that it was given.

use std::borrow::Cow;

/// What stands for a value.
const MARK: &str = "(hidden)";
/// Shorter values are left: they are in half of all words.
const SHORTEST: usize = 4;

/// Values to be taken out, the longest first.
pub(in crate::upstream) struct Hidden(Vec<String>);

impl Hidden {
    /// Takes out these values, and each line of one that has several.
    pub(in crate::upstream) fn new(values: &[String]) -> Self {
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

    /// The text without them.
    pub(in crate::upstream) fn out_of<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for value in &self.0 {
            if text.contains(value) {
                text = Cow::Owned(text.replace(value, MARK));
            }
        }
        text
    }
}

impl Hidden {
    /// As [`out_of`](Self::out_of), of the beginning of a text: its end may be the
    /// beginning of a value, and is left out.
    pub(in crate::upstream) fn out_of_beginning(&self, text: &str) -> String {
        let text = self.out_of(text);
        let longest = self.0.first().map_or(0, String::len);
        let end = text.len().saturating_sub(longest.saturating_sub(1));
        text[..text.floor_char_boundary(end)].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_cut_off_is_taken_out_too() {
        let hidden = Hidden::new(&["tok3n-long".to_owned()]);
        for shown in 1.."tok3n-long".len() {
            let text = format!("{}{}", "x".repeat(50), &"tok3n-long"[..shown]);
            let text = hidden.out_of_beginning(&text);
            assert!(text.starts_with("xxx") && !text.contains('t'), "{text}");
        }
        assert_eq!(Hidden::new(&[]).out_of_beginning("all"), "all");
    }

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
