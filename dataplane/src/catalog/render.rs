//! [`Index`]: what the backends of one gateway offer together: the lists as
//! bytes ready to send, and which backend owns which name and URI.
//!
//! Made when a list or a bare name is first wanted after a change of any
//! catalogue, then shared by all workers. What is long is made [aside](cell).

pub(crate) mod cell;
mod names;
mod owners;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Lists, Snapshot, State,
    list::{Item, List},
};
use crate::{
    call::{Era, Method},
    envelope,
    table::Gateway,
};
use owners::{literal_prefix, owned, owners};

/// What the backends of a gateway offer.
pub struct Index {
    epoch: u64,
    contents: Arc<Contents>,
    /// What stands before the entries of a list in the modern era.
    front: String,
    /// Whether each backend has told at least once.
    pub complete: bool,
    /// Least `ttlMs` of the parts.
    pub ttl: Duration,
    /// Whether every part may be shared between users.
    pub public: bool,
}

/// What depends on nothing but the lists of the backends.
pub struct Contents {
    /// What it was made of, in the order of [`Gateway::backends`].
    parts: Vec<Arc<Lists>>,
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
}

/// The entries of a list, and what ends a response that has them as its last member: the same
/// bytes in both eras.
type Listing = Bytes;

/// What ends a response behind the last entry.
const END: &[u8] = b"]}}";

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

impl std::ops::Deref for Index {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        &self.contents
    }
}

impl Index {
    /// Of the catalogues as they are, which is `epoch` or later. Where no list differs from
    /// those that `before` was made of, its contents are taken over.
    fn new(gateway: &Gateway, epoch: u64, before: Option<&Self>) -> Self {
        let parts: Vec<_> = gateway
            .backends
            .iter()
            .map(|b| b.catalog.snapshot())
            .collect();
        let hints = Hints::of(&parts);
        let contents = match before {
            Some(before) if before.contents.is_of(&parts) => before.contents.clone(),
            _ => Arc::new(Contents::new(gateway, &parts)),
        };
        Self {
            epoch,
            contents,
            front: hints.members(),
            complete: parts.iter().all(|p| p.told.is_some()),
            ttl: hints.ttl,
            public: hints.public,
        }
    }

    /// The response to a list method, in parts that follow one another: what is the request's
    /// own, and what all share. `id` is the source text of its id.
    #[must_use]
    pub fn listing(&self, method: Method, era: Era, id: &[u8]) -> Option<Vec<Bytes>> {
        let (member, listing) = match method {
            Method::ToolsList => ("tools", &self.tools),
            Method::PromptsList => ("prompts", &self.prompts),
            Method::ResourcesList => ("resources", &self.resources),
            Method::TemplatesList => ("resourceTemplates", &self.templates),
            _ => return None,
        };
        let front = match era {
            Era::Legacy => "",
            Era::Modern => self.front.as_str(),
        };
        let head = [
            br#"{"jsonrpc":"2.0","id":"#,
            id,
            br#","result":{"#,
            front.as_bytes(),
            b"\"",
            member.as_bytes(),
            b"\":[",
        ];
        Some(vec![head.concat().into(), listing.clone()])
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

impl Contents {
    fn new(gateway: &Gateway, snapshots: &[Arc<Snapshot>]) -> Self {
        let parts: Vec<_> = snapshots.iter().map(|p| p.lists.clone()).collect();
        let (tools, tool_names) = names::list(gateway, &parts, |p| &p.tools);
        let (prompts, prompt_names) = names::list(gateway, &parts, |p| &p.prompts);
        let uris = owners(gateway, &parts, |p| &p.resources);
        let templates = owners(gateway, &parts, |p| &p.templates);
        Self {
            tools,
            prompts,
            resources: owned(&parts, |p| &p.resources, &uris),
            templates: owned(&parts, |p| &p.templates, &templates),
            tool_names,
            prompt_names,
            uris,
            uri_templates: templates
                .into_iter()
                .map(|(t, owner)| (literal_prefix(&t), t, owner))
                .collect(),
            resource_owner: gateway.resource_owner,
            parts,
        }
    }

    /// Whether it was made of these lists: the very same, not equal ones.
    fn is_of(&self, snapshots: &[Arc<Snapshot>]) -> bool {
        let lists = snapshots.iter().map(|p| Arc::as_ptr(&p.lists));
        lists.eq(self.parts.iter().map(Arc::as_ptr))
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

/// A list that is being written: the size is known before.
struct Writer(Vec<u8>);

impl Writer {
    /// With room for the entries of these lists and `added` bytes more for each.
    fn new<'a>(lists: impl Iterator<Item = (&'a List, usize)>) -> Self {
        let size: usize = lists
            .map(|(list, added)| list.bytes() + list.len() * (added + 1))
            .sum();
        Self(Vec::with_capacity(size + END.len()))
    }

    /// Adds an entry as the backend wrote it, but for the name.
    fn push(&mut self, item: &Item<'_>, exposed: Option<&str>) {
        let out = &mut self.0;
        if !out.is_empty() {
            out.push(b',');
        }
        match exposed {
            None => out.extend_from_slice(item.json),
            Some(exposed) => {
                let name = item.name.range();
                out.extend_from_slice(&item.json[..name.start]);
                out.extend_from_slice(&envelope::quote(exposed));
                out.extend_from_slice(&item.json[name.end..]);
            }
        }
    }

    fn listing(mut self) -> Listing {
        self.0.extend_from_slice(END);
        self.0.into()
    }
}

#[cfg(test)]
mod tests;
