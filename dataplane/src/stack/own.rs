//! What the proxy answers itself: the handshakes, the lists, `ping` and the log
//! level.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

use super::handshake;
use crate::{
    call::{Answer, Call, Method, Reply},
    error::{CallError, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, result_message},
    node::Node,
    subscriptions,
    table::Gateway,
    upstream::{
        http::Http,
        message::logs::{SEVERITIES, Severity},
    },
};

/// How long the first list waits for backends that have not answered yet.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits, within [`PATIENCE`] of their start, for backends that have not told
/// yet what they offer.
pub(super) async fn settled(gateway: &Gateway) {
    for backend in &gateway.backends {
        backend.catalog.settled(PATIENCE).await;
    }
}

/// The answer, when it is the proxy's to give.
pub(super) async fn answer(
    node: &Arc<Node>,
    gateway: &Arc<Gateway>,
    call: &Call,
) -> Result<Option<Reply>, CallError> {
    if !call.method.exists_in(call.version.era()) {
        let method = String::from_utf8_lossy(call.method_name()).into_owned();
        return Err(CallError::refused(
            METHOD_NOT_FOUND,
            format!("Method not found: {method}"),
        ));
    }
    let result = match call.method {
        Method::Listen => return subscriptions::listen(node, gateway, call).map(Some),
        Method::Ping => Bytes::from_static(b"{}"),
        Method::SetLevel => set_level(node, call)?,
        Method::Discover => {
            settled(gateway).await;
            handshake::discover(gateway).await?
        }
        Method::ToolsList | Method::PromptsList | Method::ResourcesList | Method::TemplatesList => {
            return list(gateway, call).await.map(Some);
        }
        // One that opens a session has been answered; this came in a batch.
        Method::Initialize => {
            return Err(CallError::refused(
                INVALID_REQUEST,
                "`initialize` opens a session: it cannot be part of a batch",
            ));
        }
        _ => return Ok(None),
    };
    Ok(Some(Reply::Whole(Answer::ok(result_message(
        call.id(),
        &result,
    )))))
}

async fn list(gateway: &Arc<Gateway>, call: &Call) -> Result<Reply, CallError> {
    if call.message.cursor.is_some() {
        // Lists have one page: no cursor was ever given out.
        return Err(CallError::refused(INVALID_PARAMS, "Invalid cursor"));
    }
    gateway.touch();
    let mut index = gateway.fresh_index().await;
    if !index.complete {
        settled(gateway).await;
        index = gateway.fresh_index().await;
    }
    let parts = index.listing(call.method, call.version.era(), call.id());
    Ok(Reply::Parts(parts.unwrap_or_default()))
}

fn set_level(node: &Arc<Node>, call: &Call) -> Result<Bytes, CallError> {
    let level = call.message.level;
    let level = level.and_then(|level| Severity::parse(&call.body, level));
    let level = level.ok_or_else(|| {
        CallError::refused(
            INVALID_PARAMS,
            format!("params.level must be one of {}", SEVERITIES.join(", ")),
        )
    })?;
    if let Some(session) = &call.session {
        session.set_log_level(level);
        let worker = node.background_worker();
        for live in session.upstreams().iter().filter_map(|slot| slot.live()) {
            // Where one waits to be set already, it is the newest that is.
            if live.level_waits.swap(true, Ordering::AcqRel) {
                continue;
            }
            let session = session.clone();
            node.background.spawn(async move {
                if let Some(http) = Http::of(&live) {
                    http.set_newest_level(worker, &live, &session).await;
                }
            });
        }
    }
    Ok(Bytes::from_static(b"{}"))
}
