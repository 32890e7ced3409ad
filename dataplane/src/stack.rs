//! The whole call path, top to bottom: what the proxy answers itself, and what
//! goes to a backend.

mod handshake;
mod own;

use std::{sync::Arc, time::Instant};

use futures_util::StreamExt;

use crate::{
    call::{Call, Method, Reply},
    catalog::params,
    error::CallError,
    node::Node,
    route::{Route, route},
    session::inflight::CallId,
    table::Gateway,
    upstream::http::headers,
};

pub use handshake::initialize;

/// Answers a client's request.
///
/// # Errors
/// See [`CallError`].
pub async fn answer(
    node: &Arc<Node>,
    gateway: Arc<Gateway>,
    mut call: Call,
) -> Result<Reply, CallError> {
    if let Some(reply) = own::answer(node, &gateway, &call).await? {
        return Ok(reply);
    }
    let Route { backend, target } = match route(&gateway, &call) {
        Ok(route) => route,
        Err(_) => Box::pin(again(&gateway, &call)).await?,
    };
    // A long call keeps its own backend, and not what else was served with it.
    drop(gateway);
    call.target = target;
    if headers::is_needed(&call, crate::call::Era::Modern) {
        mirror_params(&backend, &mut call);
    }
    let place = call
        .session
        .as_ref()
        .map(|session| session.enter(call.worker, CallId::of(call.id()), backend.serial));
    let metrics = backend.metrics.clone();
    let (worker, started) = (call.worker, Instant::now());
    let counted = call.method == Method::ToolsCall;
    let answer = backend.call(call).await;
    if counted {
        metrics.record(worker, started.elapsed(), &answer);
    }
    if let Err(error) = &answer {
        tracing::info!(target: "mcp::calls", error = error.for_operator(), "call failed");
    }
    match answer {
        // It is in flight until its last message.
        Ok(Reply::Stream(messages)) => Ok(Reply::Stream(Box::pin(messages.map(move |message| {
            let _in_flight = &place;
            message
        })))),
        answer => answer,
    }
}

/// The second look at a name that nobody owns: a backend may not have told yet,
/// or offer more by now, which the next look will see.
async fn again(gateway: &Arc<Gateway>, call: &Call) -> Result<Route, CallError> {
    if !gateway.fresh_index().await.complete {
        own::settled(gateway).await;
        gateway.fresh_index().await;
    }
    let found = route(gateway, call);
    if found.is_err() {
        gateway.touch();
    }
    found
}

/// A client of the legacy era does not know that a tool's parameters are to be
/// mirrored in headers.
fn mirror_params(backend: &crate::backend::Backend, call: &mut Call) {
    let lists = backend.catalog.snapshot().lists.clone();
    if lists.params.is_empty() {
        return;
    }
    let literal = call
        .target
        .clone()
        .or_else(|| call.message.name.map(|n| call.body.slice(n.range())));
    let Some(name) = literal.and_then(|l| serde_json::from_slice::<String>(&l).ok()) else {
        return;
    };
    if let (Some(found), Some(arguments)) = (lists.params.get(&name), call.message.arguments) {
        call.param_headers = params::of_arguments(found, arguments.of(&call.body));
    }
}
