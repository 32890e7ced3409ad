//! The located tree: what a file says, before anybody asks what it means.
//! Scalars keep their source text: 1.10 is not yet a number.

/// A position in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value and where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) data: Data,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// A scalar; `plain` when it was written without quotes.
    Scalar { text: String, plain: bool },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file; no key twice.
    Map(Vec<(Name, Node)>),
}

/// The key of an entry of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) mark: Mark,
    pub(crate) text: String,
}

impl Node {
    /// Whether it is nothing: `key:` without a value, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.data {
            _ if self.is_null() => "nothing",
            Data::Scalar { plain: true, text } if matches!(text.as_str(), "true" | "false") => {
                "true or false"
            }
            Data::Scalar { plain: true, text } if text.parse::<f64>().is_ok() => "a number",
            Data::Scalar { .. } => "a text",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }

    /// Its size in memory, roughly, in bytes.
    pub(crate) fn weight(&self) -> usize {
        64 + match &self.data {
            Data::Scalar { text, .. } => text.len(),
            Data::List(items) => items.iter().map(Self::weight).sum(),
            Data::Map(entries) => entries
                .iter()
                .map(|(name, node)| 64 + name.text.len() + node.weight())
                .sum(),
        }
    }
}
