//! [`Index`]: what the backends of one gateway offer together: the lists as
//! bytes ready to send, and which backend owns which name and URI.
//!
//! Made when a list or a bare name is first wanted after a change of any
//! catalogue, then shared by all workers.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::{Item, Snapshot, State};
use crate::{
    call::{Era, Method},
    envelope,
    table::{Gateway, Naming},
};

/// What the backends of a gateway offer.
pub struct Index {
    epoch: u64,
    tools: Listing,
    prompts: Listing,
    resources: Listing,
    templates: Listing,
    /// Owner and own name of each exposed tool, where names are bare.
    pub tool_names: HashMap<String, Named>,
    /// The same for prompts.
    pub prompt_names: HashMap<String, Named>,
    /// Owner of each listed URI.
    pub uris: HashMap<String, Owner>,
    /// Templates: what stands before their first variable, the template, its owner.
    pub uri_templates: Vec<(String, String, Owner)>,
    /// Who wins a URI that several may own.
    resource_owner: Option<usize>,
    /// Whether each backend has told at least once.
    pub complete: bool,
    /// Least `ttlMs` of the parts.
    pub ttl: Duration,
    /// Whether every part may be shared between users.
    pub public: bool,
}

/// A result of a list method, for each era.
struct Listing {
    legacy: Bytes,
    modern: Bytes,
}

/// A name of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Place of the backend in [`Gateway::backends`].
    pub backend: usize,
    /// JSON string literal of its own name for it.
    pub literal: Bytes,
}

/// Whose a URI is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Place of the backend in [`Gateway::backends`].
    One(usize),
    /// Several backends offer it, and `resource_owner` names none of them.
    Clash,
}

/// The index of a gateway, made anew when it is out of date.
#[derive(Default)]
pub(crate) struct IndexCell(ArcSwapOption<Index>);

impl IndexCell {
    pub(crate) fn get(&self, gateway: &Gateway) -> Arc<Index> {
        let epoch = gateway.epoch.load(Ordering::Acquire);
        if let Some(index) = self.0.load_full()
            && index.epoch == epoch
        {
            return index;
        }
        // Two workers may do this at once; both come to the same.
        let index = Arc::new(Index::new(gateway, epoch));
        self.0.store(Some(index.clone()));
        index
    }
}

impl Index {
    fn new(gateway: &Gateway, epoch: u64) -> Self {
        let parts: Vec<_> = gateway
            .backends
            .iter()
            .map(|b| b.catalog.snapshot())
            .collect();
        let hints = Hints::of(&parts);
        let mut names = Names::new(gateway);
        let (tools, tool_names) = names.list("tools", &parts, |p| &p.lists.tools, &hints);
        let (prompts, prompt_names) = names.list("prompts", &parts, |p| &p.lists.prompts, &hints);
        let uris = owners(gateway, &parts, |p| &p.lists.resources);
        let templates = owners(gateway, &parts, |p| &p.lists.templates);
        Self {
            epoch,
            tools,
            prompts,
            resources: owned("resources", &parts, |p| &p.lists.resources, &uris, &hints),
            templates: owned(
                "resourceTemplates",
                &parts,
                |p| &p.lists.templates,
                &templates,
                &hints,
            ),
            tool_names,
            prompt_names,
            uris,
            uri_templates: templates
                .into_iter()
                .map(|(t, owner)| (literal_prefix(&t), t, owner))
                .collect(),
            resource_owner: gateway.resource_owner,
            complete: parts.iter().all(|p| p.told.is_some()),
            ttl: hints.ttl,
            public: hints.public,
        }
    }

    /// The result of a list method: a JSON text.
    #[must_use]
    pub fn listing(&self, method: Method, era: Era) -> Option<&Bytes> {
        let listing = match method {
            Method::ToolsList => &self.tools,
            Method::PromptsList => &self.prompts,
            Method::ResourcesList => &self.resources,
            Method::TemplatesList => &self.templates,
            _ => return None,
        };
        Some(match era {
            Era::Legacy => &listing.legacy,
            Era::Modern => &listing.modern,
        })
    }

    /// Whose this URI is: listed ones first, then the very template, then the
    /// template with the longest literal prefix. Where backends share that
    /// prefix, none of them owns the URI unless it is the gateway's `resource_owner`.
    #[must_use]
    pub fn owner(&self, uri: &str) -> Option<Owner> {
        let listed = self.uris.get(uri).copied();
        listed
            .or_else(|| {
                let mut templates = self.uri_templates.iter();
                templates
                    .find(|(_, template, _)| template == uri)
                    .map(|(.., owner)| *owner)
            })
            .or_else(|| self.owner_by_prefix(uri))
    }

    fn owner_by_prefix(&self, uri: &str) -> Option<Owner> {
        let fitting = || {
            self.uri_templates
                .iter()
                .filter(|(prefix, ..)| !prefix.is_empty() && uri.starts_with(prefix.as_str()))
        };
        let longest = fitting().map(|(prefix, ..)| prefix.len()).max()?;
        let mut owners = fitting()
            .filter(|(prefix, ..)| prefix.len() == longest)
            .map(|(.., owner)| *owner);
        let first = owners.next()?;
        let chosen = self.resource_owner.map(Owner::One);
        Some(owners.fold(first, |so_far, owner| match owner {
            _ if so_far == owner => so_far,
            _ if chosen == Some(so_far) => so_far,
            _ if chosen == Some(owner) => owner,
            _ => Owner::Clash,
        }))
    }
}

/// Caching hints of the merged lists (2026-07-28, Caching): the least of all
/// parts. A backend that gives none is not known to stay fresh, nor to be public.
struct Hints {
    ttl: Duration,
    public: bool,
}

impl Hints {
    fn of(parts: &[Arc<Snapshot>]) -> Self {
        let fresh = parts.iter().all(|p| p.state == State::Fresh);
        let ttl = parts
            .iter()
            .map(|p| p.lists.ttl.unwrap_or_default())
            .min()
            .unwrap_or_default();
        Self {
            ttl: if fresh { ttl } else { Duration::ZERO },
            public: !parts.is_empty() && parts.iter().all(|p| p.told.is_some() && p.lists.public),
        }
    }

    fn members(&self) -> String {
        let scope = if self.public { "public" } else { "private" };
        format!(
            r#""resultType":"complete","ttlMs":{},"cacheScope":"{scope}","_meta":{{"io.modelcontextprotocol/serverInfo":{}}},"#,
            self.ttl.as_millis(),
            crate::codec::SERVER_INFO
        )
    }
}

impl Listing {
    fn new(member: &str, items: &[u8], hints: &Hints) -> Self {
        let with = |front: &str| {
            [
                b"{",
                front.as_bytes(),
                b"\"",
                member.as_bytes(),
                b"\":[",
                items,
                b"]}",
            ]
            .concat()
            .into()
        };
        Self {
            legacy: with(""),
            modern: with(&hints.members()),
        }
    }
}

/// Renders lists whose entries are known by name.
struct Names<'a> {
    gateway: &'a Gateway,
}

impl<'a> Names<'a> {
    const fn new(gateway: &'a Gateway) -> Self {
        Self { gateway }
    }

    fn list(
        &mut self,
        member: &str,
        parts: &[Arc<Snapshot>],
        of: impl Fn(&Snapshot) -> &Vec<Item>,
        hints: &Hints,
    ) -> (Listing, HashMap<String, Named>) {
        let mut claims: HashMap<&str, usize> = HashMap::new();
        if self.gateway.naming == Naming::Bare {
            for item in parts.iter().flat_map(|p| of(p)) {
                *claims.entry(&item.id).or_default() += 1;
            }
        }
        let mut out = Vec::new();
        let mut names = HashMap::new();
        for (backend, part) in parts.iter().enumerate() {
            for item in of(part) {
                // A backend that is alone gets every name as the client writes it.
                let bare = parts.len() == 1
                    || claims.get(item.id.as_str()) == Some(&1) && !self.looks_prefixed(&item.id);
                let bare = bare && self.gateway.naming == Naming::Bare;
                let exposed = if bare {
                    item.id.clone()
                } else {
                    self.prefixed(backend, &item.id)
                };
                if self.gateway.naming == Naming::Bare {
                    if !bare {
                        tracing::warn!(
                            gateway = self.gateway.id,
                            name = item.id,
                            exposed,
                            "several tools have this name, or it begins like a prefix: it gets its own prefix"
                        );
                    }
                    let literal = Bytes::from(envelope::quote(&item.id));
                    names.insert(exposed.clone(), Named { backend, literal });
                }
                push(&mut out, item, (!bare).then_some(&exposed));
            }
        }
        (Listing::new(member, &out, hints), names)
    }

    /// Whether a bare name could be the prefixed one of a backend: a name like
    /// that would take the calls for the other backend's tool.
    fn looks_prefixed(&self, name: &str) -> bool {
        let separator = self.gateway.naming.separator();
        name.match_indices(separator).any(|(at, _)| {
            let backends = &self.gateway.backends;
            backends
                .binary_search_by(|b| b.name().cmp(&name[..at]))
                .is_ok()
        })
    }

    fn prefixed(&self, backend: usize, name: &str) -> String {
        let prefix = self.gateway.backends[backend].name();
        [prefix, self.gateway.naming.separator(), name].concat()
    }
}

/// Adds an entry as the backend wrote it, but for the name.
fn push(out: &mut Vec<u8>, item: &Item, exposed: Option<&String>) {
    if !out.is_empty() {
        out.push(b',');
    }
    match exposed {
        None => out.extend_from_slice(&item.json),
        Some(exposed) => {
            let name = item.name.range();
            out.extend_from_slice(&item.json[..name.start]);
            out.extend_from_slice(&envelope::quote(exposed));
            out.extend_from_slice(&item.json[name.end..]);
        }
    }
}

/// Who owns each URI or template.
fn owners(
    gateway: &Gateway,
    parts: &[Arc<Snapshot>],
    of: impl Fn(&Snapshot) -> &Vec<Item>,
) -> HashMap<String, Owner> {
    let mut owners: HashMap<String, Owner> = HashMap::new();
    for (backend, part) in parts.iter().enumerate() {
        for item in of(part) {
            match owners.get_mut(&item.id) {
                None => {
                    owners.insert(item.id.clone(), Owner::One(backend));
                }
                Some(Owner::One(first)) if *first == backend => {}
                Some(owner) => {
                    // The chosen owner, where it offers the URI, wins.
                    *owner = match (gateway.resource_owner, *owner) {
                        (Some(chosen), _) if chosen == backend => Owner::One(backend),
                        (Some(chosen), Owner::One(first)) if chosen == first => Owner::One(first),
                        _ => Owner::Clash,
                    };
                    if *owner == Owner::Clash {
                        tracing::warn!(
                            gateway = gateway.id,
                            uri = item.id,
                            "several backends offer this URI: it is refused until `resource_owner` names one"
                        );
                    }
                }
            }
        }
    }
    owners
}

/// Renders entries known by URI: those of their owners.
fn owned(
    member: &str,
    parts: &[Arc<Snapshot>],
    of: impl Fn(&Snapshot) -> &Vec<Item>,
    owners: &HashMap<String, Owner>,
    hints: &Hints,
) -> Listing {
    let mut out = Vec::new();
    for (backend, part) in parts.iter().enumerate() {
        for item in of(part) {
            if owners.get(&item.id) == Some(&Owner::One(backend)) {
                push(&mut out, item, None);
            }
        }
    }
    Listing::new(member, &out, hints)
}

fn literal_prefix(template: &str) -> String {
    template.split('{').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
