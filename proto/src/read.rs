//! Files to resources: the first step of the configuration's way.
//!
//! Text -> located trees (`yaml`) -> messages checked against the descriptors
//! (`build`) -> [`Documents`], which know where every field is written and so can
//! say `file:line:column` for problems found later, by [`validate`] or by the
//! control plane.
//!
//! [`validate`]: crate::validate

mod build;
mod check;
mod scalar;
#[cfg(test)]
mod tests;
pub(crate) mod tree;
mod yaml;

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use prost_reflect::{DynamicMessage, Value};

use crate::{
    descriptor,
    key::{DEFAULT_PROJECT, Key, Kind},
    nearest::nearest,
    v1::Resource,
    validate::Problem,
};
use build::{Bad, Builder};
use tree::{Data, Mark, Name, Node};

/// A place in a file; line and column (in characters) count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file, as it was named to [`read_yaml`].
    pub file: String,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A message about a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The place; `None` where the files do not hold what the message is about.
    pub location: Option<Location>,
    /// What is wrong and what to do.
    pub message: String,
}

/// `file:line:column: message`.
impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// One document of a file, whose kind is known.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it says, as far as it could be read; not normalised.
    pub resource: Resource,
    /// Whether all of it could be read.
    pub complete: bool,
    /// Index into the files that were read.
    file: usize,
    start: Mark,
    positions: HashMap<String, Mark>,
    bad: Vec<Bad>,
}

/// All that was read, from any number of files.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// The documents in the order in which they were read.
    pub documents: Vec<Document>,
    /// What could not be read.
    pub problems: Vec<Located>,
    files: Vec<String>,
    /// (project, name) of documents whose kind is not known.
    ghosts: HashSet<(String, String)>,
    /// Whether the rest of a file could not be read at all.
    broken: bool,
}

impl Documents {
    /// The resources of all documents that could be read completely, in order.
    #[must_use]
    pub fn resources(&self) -> Vec<Resource> {
        self.documents
            .iter()
            .filter(|d| d.complete)
            .map(|d| d.resource.clone())
            .collect()
    }

    /// Where a problem is, which validation or the control plane has found: the
    /// place of its field or else of the nearest field around it.
    #[must_use]
    pub fn locate(&self, problem: &Problem) -> Located {
        let mut of_key = self
            .documents
            .iter()
            .filter(|d| Key::of(&d.resource) == problem.key);
        // A key that is there twice: the second one is too many.
        let document = if problem.path == "name" {
            of_key.next_back()
        } else {
            of_key.next()
        };
        Located {
            location: document.map(|d| self.location(d, &problem.path)),
            message: problem.to_string(),
        }
    }

    fn location(&self, document: &Document, path: &str) -> Location {
        self.place(document.file, document.find(path).unwrap_or(document.start))
    }

    fn place(&self, file: usize, mark: Mark) -> Location {
        Location {
            file: self.files[file].clone(),
            line: mark.line,
            column: mark.column,
        }
    }

    fn problem(&mut self, file: usize, mark: Mark, message: impl Into<String>) {
        let location = Some(self.place(file, mark));
        self.problems.push(Located {
            location,
            message: message.into(),
        });
    }

    /// Takes the document of a mapping, which `sound` says was good YAML.
    fn take(&mut self, file: usize, root: &Node, sound: bool) {
        let Data::Map(entries) = &root.data else {
            let message = format!(
                "a document must be a mapping with `kind`, `name` and fields; this is {}",
                root.describe()
            );
            return self.problem(file, root.mark, message);
        };
        let Some((kind, field)) = self.kind(file, root, entries) else {
            return;
        };
        let desc = field
            .kind()
            .as_message()
            .cloned()
            .unwrap_or_else(|| descriptor::message(kind.as_str()));
        let mut builder = Builder::default();
        let message = builder.message("", &desc, entries, &["kind"]);
        if !entries.iter().any(|(name, _)| name.text == "name") {
            let message = "has no `name`: give it one".to_owned();
            builder.bad.push(Bad {
                path: "name".to_owned(),
                mark: root.mark,
                message,
                unknown: false,
            });
        }
        let mut resource = DynamicMessage::new(descriptor::message("Resource"));
        resource.set_field(&field, Value::Message(message));
        let resource: Resource = resource
            .transcode_to()
            .expect("made from the same descriptors");
        let key = Key::of(&resource).filter(|key| !key.name.is_empty());
        for bad in &builder.bad {
            let what = key
                .as_ref()
                .map_or_else(|| kind.to_string(), Key::to_string);
            let path = if bad.unknown {
                parent(&bad.path).unwrap_or("")
            } else {
                &bad.path
            };
            let path = if path.is_empty() {
                String::new()
            } else {
                format!("{path}: ")
            };
            self.problem(file, bad.mark, format!("{what}: {path}{}", bad.message));
        }
        self.documents.push(Document {
            resource,
            complete: sound && builder.bad.is_empty(),
            file,
            start: root.mark,
            positions: builder.positions,
            bad: builder.bad,
        });
    }

    fn kind(
        &mut self,
        file: usize,
        root: &Node,
        entries: &[(Name, Node)],
    ) -> Option<(Kind, prost_reflect::FieldDescriptor)> {
        let names = Kind::ALL.map(Kind::as_str);
        let list = names.join(", ");
        let (mark, message) = match entries.iter().find(|(name, _)| name.text == "kind") {
            None => (
                root.mark,
                format!("has no `kind`: write `kind:` and one of {list}"),
            ),
            Some((_, node)) => match &node.data {
                Data::Scalar { text, .. } if !node.is_null() => {
                    if let (Some(kind), Some(field)) =
                        (Kind::parse(text), descriptor::kind_field(text))
                    {
                        return Some((kind, field));
                    }
                    let hint = nearest(text, names).map_or_else(
                        || format!("known are {list}"),
                        |n| format!("did you mean `{n}`?"),
                    );
                    (node.mark, format!("unknown kind {text:?}: {hint}"))
                }
                _ => (
                    node.mark,
                    format!("`kind` must be one of {list}; this is {}", node.describe()),
                ),
            },
        };
        self.problem(file, mark, message);
        let text = |field: &str| {
            entries
                .iter()
                .find(|(name, _)| name.text == field)
                .and_then(|(_, node)| match &node.data {
                    Data::Scalar { text, .. } => Some(text.clone()),
                    Data::List(_) | Data::Map(_) => None,
                })
        };
        if let Some(name) = text("name") {
            self.ghosts.insert((
                text("project").unwrap_or_else(|| DEFAULT_PROJECT.to_owned()),
                name,
            ));
        }
        None
    }
}

impl Document {
    /// The position of a field, or of the nearest field around it that is there.
    fn find(&self, path: &str) -> Option<Mark> {
        let mut path = Some(path);
        while let Some(at) = path {
            if let Some(mark) = self.positions.get(at) {
                return Some(*mark);
            }
            path = parent(at);
        }
        None
    }
}

/// The path of what holds a field or an item; `None` at the top.
fn parent(path: &str) -> Option<&str> {
    // Keys of maps may hold dots and brackets; the text before such a dot is no
    // field's path, so going on from there finds the map.
    path.rfind(['.', '[']).map(|at| &path[..at])
}

/// Reads the documents of a YAML (or JSON) text into `into`: a document is a
/// mapping with `kind`, `name` and the fields of that kind, or a list of such.
/// `file` is the name for messages. Empty documents are skipped.
pub fn read_yaml(file: &str, text: &str, into: &mut Documents) {
    let number = into.files.len();
    into.files.push(file.to_owned());
    let (trees, stopped) = yaml::trees(text);
    for tree in trees {
        let sound = tree.problems.is_empty();
        for (mark, message) in tree.problems {
            into.problem(number, mark, message);
        }
        match tree.root {
            Some(Node {
                data: Data::List(items),
                ..
            }) => {
                for item in &items {
                    into.take(number, item, sound);
                }
            }
            Some(root) => into.take(number, &root, sound),
            None => {}
        }
    }
    if let Some((mark, message)) = stopped {
        into.broken = true;
        into.problem(number, mark, message);
    }
}
