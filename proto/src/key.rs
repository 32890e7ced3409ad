//! What identifies a resource: (project, kind, name).

use std::fmt;

use crate::v1::{Resource, ResourceKey, resource};

/// The project of a resource that names none.
pub const DEFAULT_PROJECT: &str = "default";

/// The kinds of resources, in the order in which lists and files show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An MCP server.
    Backend,
    /// An endpoint for clients.
    Gateway,
    /// How clients prove who they are.
    AuthPolicy,
    /// A value that backends need and nobody is to read.
    Secret,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Backend, Self::Gateway, Self::AuthPolicy, Self::Secret];

    /// Its name in files (`kind:`) and in [`ResourceKey::kind`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "Backend",
            Self::Gateway => "Gateway",
            Self::AuthPolicy => "AuthPolicy",
            Self::Secret => "Secret",
        }
    }

    /// The kind of this exact name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies a resource. Orders by kind, project, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its project, never empty.
    pub project: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key; an empty project is `default`.
    #[must_use]
    pub fn new(project: &str, kind: Kind, name: &str) -> Self {
        let project = if project.is_empty() {
            DEFAULT_PROJECT
        } else {
            project
        };
        Self {
            kind,
            project: project.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of a resource; `None` where no kind is set.
    #[must_use]
    pub fn of(resource: &Resource) -> Option<Self> {
        Some(match resource.kind.as_ref()? {
            resource::Kind::Backend(b) => Self::new(&b.project, Kind::Backend, &b.name),
            resource::Kind::Gateway(g) => Self::new(&g.project, Kind::Gateway, &g.name),
            resource::Kind::AuthPolicy(a) => Self::new(&a.project, Kind::AuthPolicy, &a.name),
            resource::Kind::Secret(s) => Self::new(&s.project, Kind::Secret, &s.name),
        })
    }

    /// The key of a wire message; `None` where its kind is not known.
    #[must_use]
    pub fn from_wire(key: &ResourceKey) -> Option<Self> {
        Some(Self::new(&key.project, Kind::parse(&key.kind)?, &key.name))
    }

    /// The wire message.
    #[must_use]
    pub fn to_wire(&self) -> ResourceKey {
        ResourceKey {
            project: self.project.clone(),
            kind: self.kind.as_str().to_owned(),
            name: self.name.clone(),
        }
    }
}

/// `Backend files`, or `Backend team-a/files` outside the default project.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.project == DEFAULT_PROJECT {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.project, self.name)
        }
    }
}
