//! Lists whose entries are known by name.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use super::{Listing, Named, Writer};
use crate::{
    catalog::{Lists, list::List},
    envelope,
    table::{Gateway, Naming},
};

/// The list, and the owner of each exposed name where names are bare.
pub(super) fn list(
    gateway: &Gateway,
    parts: &[Arc<Lists>],
    of: impl Fn(&Lists) -> &List,
) -> (Listing, HashMap<String, Named>) {
    let is_bare = gateway.naming == Naming::Bare;
    let mut claims: HashMap<Cow<'_, str>, usize> = HashMap::new();
    if is_bare {
        for item in parts.iter().flat_map(|p| of(p).iter()) {
            *claims.entry(item.id()).or_default() += 1;
        }
    }
    let separator = gateway.naming.separator();
    let prefixes = gateway.backends.iter();
    let prefixes = prefixes.map(|b| b.name().len() + separator.len());
    let mut out = Writer::new(parts.iter().map(|p| of(p)).zip(prefixes));
    let mut names = HashMap::new();
    let mut exposed = String::new();
    for (backend, part) in parts.iter().enumerate() {
        for item in of(part).iter() {
            let id = item.id();
            // A backend that is alone gets every name as the client writes it.
            let bare = is_bare
                && (parts.len() == 1
                    || claims.get(&id) == Some(&1) && !looks_prefixed(gateway, &id));
            exposed.clear();
            if !bare {
                exposed.push_str(gateway.backends[backend].name());
                exposed.push_str(separator);
            }
            exposed.push_str(&id);
            if is_bare {
                if !bare {
                    tracing::warn!(
                        gateway = gateway.id,
                        name = &*id,
                        exposed,
                        "several tools have this name, or it begins like a prefix: it gets its own prefix"
                    );
                }
                let literal = envelope::quote(&id).into();
                names.insert(exposed.clone(), Named { backend, literal });
            }
            out.push(&item, (!bare).then_some(&exposed));
        }
    }
    (out.listing(), names)
}

/// Whether a bare name could be the prefixed one of a backend: a name like
/// that would take the calls for the other backend's tool.
fn looks_prefixed(gateway: &Gateway, name: &str) -> bool {
    let separator = gateway.naming.separator();
    name.match_indices(separator).any(|(at, _)| {
        let backends = &gateway.backends;
        backends
            .binary_search_by(|b| b.name().cmp(&name[..at]))
            .is_ok()
    })
}
