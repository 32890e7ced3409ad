//! The entries of one page of a list.

use std::collections::HashSet;

use bytes::Bytes;

use super::{
    discover::{Kind, bad},
    list::{Builder, Item, List},
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
    list: &mut Builder,
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
        if list.len() >= ENTRIES {
            break;
        }
        let json = element.map_err(broken)?.of(result);
        match Item::read(kind.id, json) {
            Some(item) if known.insert(item.id().into_owned()) => list.push(&item),
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
pub(super) fn kept(kind: &Kind, document: &Bytes) -> Option<List> {
    let mut members = envelope::members(document, all(document));
    let array = members.find_map(|member| match member {
        Ok((key, value)) => (key == kind.member).then_some(Some(value)),
        Err(_) => Some(None),
    })??;
    let mut list = Builder::default();
    for element in envelope::elements(document, array) {
        list.push(&Item::read(kind.id, element.ok()?.of(document))?);
    }
    Some(list.build())
}

fn all(text: &Bytes) -> Span {
    Span {
        start: 0,
        end: text.len() as u32,
    }
}
