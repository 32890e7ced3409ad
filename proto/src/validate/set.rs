//! An index over the set being checked, for what resources say about each other.

use std::collections::{HashMap, HashSet};

use crate::v1::{Backend, Gateway, Resource, Secret, resource};

/// Resources of a set by project and name.
pub(super) struct Index<'a> {
    projects: HashMap<&'a str, Project<'a>>,
    /// The first gateway of each path, over all projects.
    paths: HashMap<&'a str, (usize, &'a Gateway)>,
    ghosts: &'a HashSet<(String, String)>,
}

/// What one project has.
#[derive(Default)]
pub(super) struct Project<'a> {
    pub(super) backends: HashMap<&'a str, &'a Backend>,
    pub(super) policies: HashSet<&'a str>,
    pub(super) secrets: HashMap<&'a str, &'a Secret>,
}

impl<'a> Index<'a> {
    pub(super) fn new(resources: &[&'a Resource], ghosts: &'a HashSet<(String, String)>) -> Self {
        let mut projects: HashMap<&str, Project<'_>> = HashMap::new();
        let mut paths = HashMap::new();
        for (number, resource) in resources.iter().enumerate() {
            match &resource.kind {
                Some(resource::Kind::Backend(b)) => {
                    projects
                        .entry(&b.project)
                        .or_default()
                        .backends
                        .insert(&b.name, b);
                }
                Some(resource::Kind::Gateway(g)) => {
                    projects.entry(&g.project).or_default();
                    paths.entry(g.path.as_str()).or_insert((number, g));
                }
                Some(resource::Kind::AuthPolicy(a)) => {
                    projects
                        .entry(&a.project)
                        .or_default()
                        .policies
                        .insert(&a.name);
                }
                Some(resource::Kind::Secret(s)) => {
                    let project = projects.entry(&s.project).or_default();
                    project.secrets.insert(&s.name, s);
                }
                None => {}
            }
        }
        Self {
            projects,
            paths,
            ghosts,
        }
    }

    pub(super) fn project(&self, name: &str) -> Option<&Project<'a>> {
        self.projects.get(name)
    }

    /// The gateway that has the path of gateway `number` already. One of the same
    /// key does not count: that is a duplicate.
    pub(super) fn path_taken(&self, gateway: &Gateway, number: usize) -> Option<&'a Gateway> {
        let (first, other) = self.paths.get(gateway.path.as_str())?;
        let same = (&other.project, &other.name) == (&gateway.project, &gateway.name);
        (*first != number && !same).then_some(*other)
    }

    /// Whether something of that name exists that could not be read.
    pub(super) fn is_ghost(&self, project: &str, name: &str) -> bool {
        !self.ghosts.is_empty() && self.ghosts.contains(&(project.to_owned(), name.to_owned()))
    }
}
