//! YAML text to located trees, one per document.
//!
//! Anchors and aliases are followed within a bound; tags, keys that are not
//! texts and repeated keys are problems. JSON is read by the same way.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

use super::tree::{Data, Mark, Name, Node};

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 32;
/// How much aliases may add to a file, in bytes: enough for people, too little
/// for an expansion bomb.
const ALIASES_MAX: usize = 4 << 20;

/// One document of a file.
#[derive(Debug)]
pub(super) struct Tree {
    /// `None` for an empty document.
    pub(super) root: Option<Node>,
    /// What is wrong with its notation.
    pub(super) problems: Vec<(Mark, String)>,
}

/// The documents of a text, and what ended the reading too early.
pub(super) fn trees(text: &str) -> (Vec<Tree>, Option<(Mark, String)>) {
    let text = join_surrogates(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut composer = Composer {
        parser: Parser::new_from_str(&text),
        anchors: HashMap::new(),
        aliases: 0,
        problems: Vec::new(),
    };
    let mut trees = Vec::new();
    loop {
        match composer.document() {
            Ok(Some(tree)) => trees.push(tree),
            Ok(None) => return (trees, None),
            Err(Stop(mark, message)) => {
                // What its notation had before still counts.
                let problems = std::mem::take(&mut composer.problems);
                if !problems.is_empty() {
                    trees.push(Tree {
                        root: None,
                        problems,
                    });
                }
                return (trees, Some((mark, message)));
            }
        }
    }
}

/// A problem after which the rest of the file cannot be read.
struct Stop(Mark, String);

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        Self(
            mark(error.marker()),
            format!("is not YAML: {}", error.info()),
        )
    }
}

struct Composer<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Finished nodes by the number of their anchor.
    anchors: HashMap<usize, Node>,
    aliases: usize,
    problems: Vec<(Mark, String)>,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Mark), Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, mark(&span.start))),
            Some(Err(error)) => Err(error.into()),
            None => Ok((Event::StreamEnd, Mark { line: 1, column: 1 })),
        }
    }

    /// The next document; `None` at the end.
    fn document(&mut self) -> Result<Option<Tree>, Stop> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(None),
                (Event::DocumentStart(_), _) => break,
                _ => {}
            }
        }
        self.anchors.clear();
        let (event, mark) = self.next()?;
        let root = match event {
            Event::DocumentEnd => None,
            event => Some(self.node(event, mark, 0)?).filter(|node| !node.is_null()),
        };
        Ok(Some(Tree {
            root,
            problems: std::mem::take(&mut self.problems),
        }))
    }

    fn node(&mut self, event: Event<'a>, mark: Mark, depth: usize) -> Result<Node, Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop(
                mark,
                format!("is nested more than {DEPTH_MAX} levels deep"),
            ));
        }
        let (data, anchor, tagged) = match event {
            Event::Alias(anchor) => return self.alias(anchor, mark),
            Event::Scalar(text, style, anchor, tag) => {
                let data = Data::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                (data, anchor, tag.is_some())
            }
            Event::SequenceStart(anchor, tag) => (self.list(depth)?, anchor, tag.is_some()),
            Event::MappingStart(anchor, tag) => (self.map(depth)?, anchor, tag.is_some()),
            other => return Err(Stop(mark, format!("is not YAML: unexpected {other:?}"))),
        };
        if tagged {
            self.problems.push((
                mark,
                "tags (`!...`) have no meaning here: remove it".to_owned(),
            ));
        }
        let node = Node { mark, data };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Data, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Data::List(items)),
                (event, mark) => items.push(self.node(event, mark, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Data, Stop> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        loop {
            let (event, mark) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Data::Map(entries));
            }
            let key = self.node(event, mark, depth + 1)?;
            let (event, value_mark) = self.next()?;
            let mut value = self.node(event, value_mark, depth + 1)?;
            // What is not there can only be shown by its key.
            if matches!(&value.data, Data::Scalar { text, plain: true } if text.is_empty()) {
                value.mark = key.mark;
            }
            match key.data {
                Data::Scalar { text, .. } if seen.insert(text.clone()) => {
                    entries.push((Name { mark, text }, value));
                }
                Data::Scalar { text, .. } => {
                    self.problems
                        .push((mark, format!("`{text}` is here twice: remove one of them")));
                }
                Data::List(_) | Data::Map(_) => {
                    self.problems
                        .push((mark, "the key of an entry must be a text".to_owned()));
                }
            }
        }
    }

    fn alias(&mut self, anchor: usize, mark: Mark) -> Result<Node, Stop> {
        // An anchor around its own alias is not finished yet.
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Stop(
                mark,
                "this alias stands for something that contains it".to_owned(),
            ));
        };
        self.aliases += node.weight();
        if self.aliases > ALIASES_MAX {
            return Err(Stop(
                mark,
                "the aliases of this file expand to more than 4 MiB: write it out".to_owned(),
            ));
        }
        Ok(Node {
            mark,
            data: node.data.clone(),
        })
    }
}

fn mark(marker: &Marker) -> Mark {
    Mark {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

/// JSON writes what is beyond U+FFFF as two escapes, YAML as one (`\U0001F600`).
/// Only in JSON is every backslash the start of an escape.
fn join_surrogates(text: &str) -> Cow<'_, str> {
    if !text.trim_start().starts_with(['{', '[']) || !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let unit = |rest: &str| {
        let digits = rest.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut joined = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        joined.push_str(&rest[..at]);
        rest = &rest[at..];
        let pair = unit(rest).zip(rest.get(6..).and_then(unit));
        let decoded = pair.and_then(|(high, low)| char::decode_utf16([high, low]).next()?.ok());
        let length = match decoded {
            Some(c) if c.len_utf16() == 2 => {
                joined.push_str(&format!("\\U{:08X}", u32::from(c)));
                12
            }
            // The backslash and what it escapes.
            _ => {
                let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                joined.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[length..];
    }
    joined.push_str(rest);
    Cow::Owned(joined)
}
