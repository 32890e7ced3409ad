//! Parameters of tools that HTTP headers mirror (2026-07-28, Streamable HTTP: Custom
//! Headers from Tool Parameters): checked where the client sends them, made where its
//! revision does not know of them.

use crate::{
    backend::Backend,
    call::{Call, Era, Method},
    catalog::params,
    error::{CallError, HEADER_MISMATCH},
};

/// Looks at a call on its way to this backend. A tool whose schema is not known, or asks
/// for nothing, costs a look at the catalogue.
///
/// # Errors
/// A header says something else than the arguments.
#[inline]
pub(super) fn settle(backend: &Backend, call: &mut Call) -> Result<(), CallError> {
    if call.method != Method::ToolsCall {
        return Ok(());
    }
    match backend.catalog.mirrored() {
        None => Ok(()),
        Some(lists) => compare(&lists, call),
    }
}

#[cold]
fn compare(lists: &crate::catalog::Lists, call: &mut Call) -> Result<(), CallError> {
    let own = call.message.name.map(|n| call.body.slice(n.range()));
    let literal = call.target.clone().or(own);
    let name = literal.and_then(|l| serde_json::from_slice::<String>(&l).ok());
    let Some(found) = name.and_then(|name| lists.params.get(&name)) else {
        return Ok(());
    };
    let arguments = call
        .message
        .arguments
        .map_or(&b"{}"[..], |a| a.of(&call.body));
    match call.version.era() {
        Era::Legacy => call.param_headers = params::of_arguments(found, arguments),
        Era::Modern => params::check(found, arguments, &call.param_headers)
            .map_err(|what| CallError::refused(HEADER_MISMATCH, what))?,
    }
    Ok(())
}
