//! What the proxy answers itself: the handshakes, the lists, `ping` and the log
//! level.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};

use crate::{
    call::{Answer, Call, Era, Method, ProtocolVersion, Reply},
    catalog::Snapshot,
    codec::SERVER_INFO,
    error::{CallError, INVALID_PARAMS, METHOD_NOT_FOUND, result_message},
    node::Node,
    table::Gateway,
    upstream::http::Http,
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
        Method::Ping => Bytes::from_static(b"{}"),
        Method::SetLevel => set_level(node, call)?,
        Method::Discover => {
            settled(gateway).await;
            discover(gateway).into()
        }
        Method::ToolsList | Method::PromptsList | Method::ResourcesList | Method::TemplatesList => {
            list(gateway, call).await?
        }
        _ => return Ok(None),
    };
    Ok(Some(Reply::Whole(Answer::ok(result_message(
        call.id(),
        &result,
    )))))
}

async fn list(gateway: &Arc<Gateway>, call: &Call) -> Result<Bytes, CallError> {
    if call.message.cursor.is_some() {
        // Lists have one page: no cursor was ever given out.
        return Err(CallError::refused(INVALID_PARAMS, "Invalid cursor"));
    }
    for backend in &gateway.backends {
        backend.catalog.touch();
    }
    let mut index = gateway.index();
    if !index.complete {
        settled(gateway).await;
        index = gateway.index();
    }
    Ok(index
        .listing(call.method, call.version.era())
        .cloned()
        .unwrap_or_default())
}

fn set_level(node: &Arc<Node>, call: &Call) -> Result<Bytes, CallError> {
    const LEVELS: [&str; 8] = [
        "debug",
        "info",
        "notice",
        "warning",
        "error",
        "critical",
        "alert",
        "emergency",
    ];
    let level = call.message.level.map(|span| call.body.slice(span.range()));
    let known = |level: &Bytes| {
        serde_json::from_slice::<String>(level).is_ok_and(|l| LEVELS.contains(&l.as_str()))
    };
    let level = level.filter(known).ok_or_else(|| {
        CallError::refused(
            INVALID_PARAMS,
            format!("params.level must be one of {}", LEVELS.join(", ")),
        )
    })?;
    if let Some(session) = &call.session {
        session.set_log_level(level.clone());
        let worker = node.background_worker();
        for live in session.upstreams().iter().filter_map(|slot| slot.live()) {
            let level = level.clone();
            node.background.spawn(async move {
                if let Some(http) = Http::of(&live) {
                    http.set_level(worker, &live, &level).await;
                }
            });
        }
    }
    Ok(Bytes::from_static(b"{}"))
}

/// The `InitializeResult` for a client of this version.
pub async fn initialize(gateway: &Gateway, version: ProtocolVersion) -> Bytes {
    settled(gateway).await;
    let parts = snapshots(gateway);
    let mut result = json!({
        "protocolVersion": version.as_str(),
        "capabilities": capabilities(&parts, Era::Legacy),
    });
    add_common(&mut result, gateway, &parts);
    let text = result.to_string();
    // `serverInfo` is a text already.
    [
        &text.as_bytes()[..text.len() - 1],
        b",\"serverInfo\":",
        SERVER_INFO.as_bytes(),
        b"}",
    ]
    .concat()
    .into()
}

/// The `DiscoverResult`.
fn discover(gateway: &Gateway) -> String {
    let parts = snapshots(gateway);
    let index = gateway.index();
    let mut result = json!({
        "resultType": "complete",
        "supportedVersions": ProtocolVersion::ALL.map(ProtocolVersion::as_str),
        "capabilities": capabilities(&parts, Era::Modern),
        "ttlMs": u64::try_from(index.ttl.as_millis()).unwrap_or(u64::MAX),
        "cacheScope": if index.public { "public" } else { "private" },
    });
    add_common(&mut result, gateway, &parts);
    let text = result.to_string();
    format!(
        r#"{},"_meta":{{"io.modelcontextprotocol/serverInfo":{SERVER_INFO}}}}}"#,
        &text[..text.len() - 1]
    )
}

fn snapshots(gateway: &Gateway) -> Vec<Arc<Snapshot>> {
    gateway
        .backends
        .iter()
        .map(|b| b.catalog.snapshot())
        .collect()
}

fn add_common(result: &mut Value, gateway: &Gateway, parts: &[Arc<Snapshot>]) {
    let mut told: Vec<(&str, &str)> = gateway
        .backends
        .iter()
        .zip(parts)
        .filter_map(|(backend, part)| Some((backend.name(), part.about.instructions.as_deref()?)))
        .collect();
    told.retain(|(_, text)| !text.trim().is_empty());
    let instructions = match (told.as_slice(), gateway.backends.len()) {
        ([], _) => return,
        ([(_, only)], 1) => (*only).to_owned(),
        // Each backend's word under its name, which is the prefix of its tools.
        (several, _) => {
            let sections: Vec<_> = several
                .iter()
                .map(|(name, text)| format!("# {name}\n{text}"))
                .collect();
            sections.join("\n\n")
        }
    };
    result["instructions"] = instructions.into();
}

/// What a client may ask for: what any backend offers. A backend that has not
/// told yet may offer everything.
fn capabilities(parts: &[Arc<Snapshot>], era: Era) -> Value {
    // A single backend of the client's own era speaks for itself.
    if let [part] = parts
        && part.about.era == Some(era)
        && era == Era::Modern
        && let Some(own) = &part.about.capabilities
        && let Ok(own) = serde_json::from_str(own.get())
    {
        return own;
    }
    let mut offered = serde_json::Map::new();
    for part in parts {
        let own: BTreeMap<String, &RawValue> = part
            .about
            .capabilities
            .as_ref()
            .and_then(|c| serde_json::from_str(c.get()).ok())
            .unwrap_or_default();
        for name in ["tools", "prompts", "resources", "completions", "logging"] {
            let exists = era == Era::Legacy || name != "logging";
            if exists && (part.told.is_none() || own.contains_key(name)) {
                offered.entry(name).or_insert_with(|| json!({}));
            }
        }
    }
    Value::Object(offered)
}
