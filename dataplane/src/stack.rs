//! The whole call path, top to bottom: what the proxy answers itself, and what
//! goes to a backend.

mod handshake;
mod own;
mod params;

use std::{sync::Arc, time::Instant};

use futures_util::StreamExt;

use crate::{
    bridge,
    call::{Call, Method, Reply},
    error::CallError,
    node::Node,
    rounds,
    route::{Route, route},
    session::inflight::CallId,
    subscriptions::legacy,
    table::Gateway,
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
    if rounds::is_retry(&call) {
        rounds::open(&gateway.scope, backend.name(), &mut call)?;
    }
    call.rounds.scope = Some(gateway.scope.clone());
    // A long call keeps its own backend, and not what else was served with it.
    drop(gateway);
    call.target = target;
    params::settle(&backend, &mut call)?;
    if call.session.is_some()
        && call.method.is_about_subscription()
        && Box::pin(legacy::is_needed(&backend, &call)).await?
    {
        return Box::pin(legacy::answer(&backend, &call)).await;
    }
    let place = call
        .session
        .as_ref()
        .map(|session| session.enter(call.worker, CallId::of(call.id()), backend.serial));
    let metrics = backend.metrics.clone();
    let (worker, started) = (call.worker, Instant::now());
    let counted = call.method == Method::ToolsCall;
    let answer = if bridge::is_needed(&backend, &call) {
        Box::pin(bridge::call(node, backend, call)).await
    } else {
        backend.call(call).await
    };
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
