//! Lists whose entries are known by URI, and whose each of these is.

use std::{collections::HashMap, sync::Arc};

use super::{Listing, Owner, Writer};
use crate::{
    catalog::{Lists, list::List},
    table::Gateway,
};

/// Who owns each URI or template.
pub(super) fn owners(
    gateway: &Gateway,
    parts: &[Arc<Lists>],
    of: impl Fn(&Lists) -> &List,
) -> HashMap<String, Owner> {
    let mut owners: HashMap<String, Owner> = HashMap::new();
    for (backend, part) in parts.iter().enumerate() {
        for item in of(part).iter() {
            let id = item.id();
            match owners.get_mut(&*id) {
                None => {
                    owners.insert(id.into_owned(), Owner::One(backend));
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
                            uri = &*id,
                            "several backends offer this URI: it is refused until `resource_owner` names one"
                        );
                    }
                }
            }
        }
    }
    owners
}

/// The list: entries of their owners.
pub(super) fn owned(
    parts: &[Arc<Lists>],
    of: impl Fn(&Lists) -> &List,
    owners: &HashMap<String, Owner>,
) -> Listing {
    let mut out = Writer::new(parts.iter().map(|p| (of(p), 0)));
    for (backend, part) in parts.iter().enumerate() {
        for item in of(part).iter() {
            if owners.get(&*item.id()) == Some(&Owner::One(backend)) {
                out.push(&item, None);
            }
        }
    }
    out.listing()
}

pub(super) fn literal_prefix(template: &str) -> String {
    template.split('{').next().unwrap_or_default().to_owned()
}
