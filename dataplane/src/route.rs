//! Which backend a request is for, and what that backend calls the thing.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    backend::Backend,
    call::{Call, Era, Method},
    catalog::render::{Index, Named, Owner},
    envelope,
    error::{CallError, INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND},
    table::{Gateway, Naming},
    tasks,
    upstream::message::target_span,
};

/// Where a request goes.
pub struct Route {
    /// The backend.
    pub backend: Arc<Backend>,
    /// What takes the place of the name: a JSON string literal. `None`: nothing.
    pub target: Option<Bytes>,
}

/// Finds the backend of a request.
///
/// # Errors
/// Nobody owns the name or URI, or it is missing.
pub fn route(gateway: &Arc<Gateway>, call: &Call) -> Result<Route, CallError> {
    match call.method {
        Method::ToolsCall | Method::PromptsGet => by_name(gateway, call),
        Method::Complete if call.message.ref_name.is_some() => by_name(gateway, call),
        Method::ResourcesRead | Method::Complete | Method::Subscribe | Method::Unsubscribe => {
            by_uri(gateway, call)
        }
        _ if call.method.is_about_task() && call.version.era() == Era::Modern => {
            by_task(gateway, call)
        }
        // Nothing in it names a backend.
        _ => match gateway.takes(call.method_name()) {
            Some(backend) => Ok(Route {
                backend: backend.clone(),
                target: None,
            }),
            None => {
                let method = String::from_utf8_lossy(call.method_name()).into_owned();
                let what = format!("Method not found: {method}");
                Err(CallError::refused(METHOD_NOT_FOUND, what))
            }
        },
    }
}

fn only(gateway: &Gateway) -> Option<Route> {
    match gateway.backends.as_slice() {
        [backend] => Some(Route {
            backend: backend.clone(),
            target: None,
        }),
        _ => None,
    }
}

fn by_name(gateway: &Arc<Gateway>, call: &Call) -> Result<Route, CallError> {
    let literal = target_span(call.method, &call.message)
        .ok_or_else(|| CallError::refused(INVALID_PARAMS, "params.name is missing"))?;
    let name = envelope::string_value(&call.body, literal)
        .ok_or_else(|| CallError::refused(INVALID_PARAMS, "params.name is not a string"))?;
    let found = match &gateway.naming {
        Naming::Prefixed { separator } => prefixed(gateway, separator, &name),
        Naming::Bare => bare(gateway, call.method, &name),
    };
    found.ok_or_else(|| {
        let what = if call.method == Method::ToolsCall {
            "tool"
        } else {
            "prompt"
        };
        CallError::refused(INVALID_PARAMS, format!("Unknown {what}: {name}"))
    })
}

/// No name of a backend contains the separator of its gateway in a way that
/// leaves two readings: validation sees to that.
fn prefixed(gateway: &Gateway, separator: &str, name: &str) -> Option<Route> {
    name.match_indices(separator).find_map(|(at, _)| {
        let (prefix, own) = (&name[..at], &name[at + separator.len()..]);
        let place = gateway
            .backends
            .binary_search_by(|b| b.name().cmp(prefix))
            .ok()?;
        let target = Some(envelope::quote(own).into());
        Some(Route {
            backend: gateway.backends[place].clone(),
            target,
        })
    })
}

fn bare(gateway: &Arc<Gateway>, method: Method, name: &str) -> Option<Route> {
    if let Some(only) = only(gateway) {
        // Whatever it is, this backend answers it best.
        return Some(only);
    }
    let index = gateway.latest_index()?;
    let names = |index: &Index, method| match method {
        Method::ToolsCall => index.tool_names.get(name).cloned(),
        _ => index.prompt_names.get(name).cloned(),
    };
    let Named { backend, literal } = names(&index, method)?;
    Some(Route {
        backend: gateway.backends[backend].clone(),
        target: Some(literal),
    })
}

fn by_uri(gateway: &Arc<Gateway>, call: &Call) -> Result<Route, CallError> {
    if let Some(only) = only(gateway) {
        return Ok(only);
    }
    let literal = target_span(call.method, &call.message)
        .ok_or_else(|| CallError::refused(INVALID_PARAMS, "params.uri is missing"))?;
    let uri = envelope::string_value(&call.body, literal)
        .ok_or_else(|| CallError::refused(INVALID_PARAMS, "params.uri is not a string"))?;
    let owner = gateway.latest_index().and_then(|index| index.owner(&uri));
    match owner {
        Some(Owner::One(backend)) => Ok(Route {
            backend: gateway.backends[backend].clone(),
            target: None,
        }),
        Some(Owner::Clash) => Err(not_found(
            call,
            &uri,
            "Resource is offered by several backends, and the gateway names no resource_owner",
        )),
        None => Err(not_found(call, &uri, "Resource not found")),
    }
}

/// The id says whose task it is.
fn by_task(gateway: &Gateway, call: &Call) -> Result<Route, CallError> {
    tasks::declared(call)?;
    let token = call
        .message
        .task_id
        .and_then(|id| envelope::string_value(&call.body, id));
    let task = token.and_then(|token| tasks::open(&gateway.scope, &call.principal, &token));
    let found = task.and_then(|task| {
        let place = gateway
            .backends
            .binary_search_by(|b| b.name().cmp(&task.backend))
            .ok()?;
        Some(Route {
            backend: gateway.backends[place].clone(),
            target: Some(envelope::quote(&task.own).into()),
        })
    });
    found.ok_or_else(|| CallError::refused(INVALID_PARAMS, "Task not found"))
}

fn not_found(call: &Call, uri: &str, message: &str) -> CallError {
    let code = match call.version.era() {
        Era::Modern => INVALID_PARAMS,
        Era::Legacy => RESOURCE_NOT_FOUND,
    };
    let uri = String::from_utf8_lossy(&envelope::quote(uri)).into_owned();
    CallError::refused(code, message).with_data(format!(r#"{{"uri":{uri}}}"#))
}

#[cfg(test)]
mod tests;
