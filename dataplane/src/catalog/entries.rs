//! The entries of one page of a list.

use std::collections::HashSet;

use bytes::Bytes;

use super::{
    Item,
    discover::{Kind, bad},
};
use crate::{
    backend::Backend,
    envelope::{self, Span},
    error::CallError,
};

/// Entries of one list that are kept.
pub(super) const ENTRIES: usize = 100_000;

/// The entries of a page. One without a name, with two, or with that of an
/// earlier one is left out; the others stay.
pub(super) fn read(
    backend: &Backend,
    kind: &Kind,
    result: &Bytes,
    known: &mut HashSet<String>,
    items: &mut Vec<Item>,
) -> Result<(), CallError> {
    let broken =
        |e: envelope::ScanError| bad(backend, format!("its {} cannot be read: {e}", kind.method));
    let mut array = None;
    for member in envelope::members(result, all(result)) {
        let (key, value) = member.map_err(broken)?;
        if key == kind.member {
            array = Some(value);
        }
    }
    let array = array.ok_or_else(|| {
        bad(
            backend,
            format!("its {} has no {}", kind.method, kind.member),
        )
    })?;
    let mut left_out = 0;
    for element in envelope::elements(result, array) {
        if items.len() >= ENTRIES {
            break;
        }
        let json = result.slice(element.map_err(broken)?.range());
        match item(kind, &json) {
            Some(item) if known.insert(item.id.clone()) => items.push(item),
            _ => left_out += 1,
        }
    }
    if left_out > 0 {
        tracing::warn!(
            backend = backend.name(),
            list = kind.method,
            left_out,
            "left out entries without a name, or with one that came before"
        );
    }
    Ok(())
}

/// The entries of a list that was kept; `None`: it cannot be read.
pub(super) fn kept(kind: &Kind, document: &Bytes) -> Option<Vec<Item>> {
    let mut members = envelope::members(document, all(document));
    let array = members.find_map(|member| match member {
        Ok((key, value)) => (key == kind.member).then_some(Some(value)),
        Err(_) => Some(None),
    })??;
    let elements = envelope::elements(document, array);
    let read = elements.map(|element| item(kind, &document.slice(element.ok()?.range())));
    read.collect()
}

fn item(kind: &Kind, json: &Bytes) -> Option<Item> {
    let (mut id, mut name) = (None, None);
    for member in envelope::members(json, all(json)) {
        let (key, value) = member.ok()?;
        if key == kind.id {
            if id.is_some() {
                return None;
            }
            id = Some(envelope::string_value(json, value)?.into_owned());
        }
        if key == "name" {
            envelope::string_value(json, value)?;
            name = Some(value);
        }
    }
    Some(Item {
        id: id?,
        json: json.clone(),
        name: name?,
    })
}

fn all(text: &Bytes) -> Span {
    Span {
        start: 0,
        end: text.len() as u32,
    }
}
