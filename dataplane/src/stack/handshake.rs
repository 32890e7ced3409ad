//! `initialize` and `server/discover`: what a gateway says of itself.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};
use tower_mcp_types::protocol::{
    CacheScope, CompletionsCapability, DiscoverResult, Implementation, InitializeResult,
    LoggingCapability, PromptsCapability, ResourcesCapability, ServerCapabilities, ToolsCapability,
};

use super::own::settled;
use crate::{
    call::{Era, ProtocolVersion},
    catalog::Snapshot,
    codec::SERVER_INFO,
    error::{CallError, INTERNAL_ERROR},
    table::Gateway,
    upstream::Upstream,
};

/// The `InitializeResult` for a client of this version: a JSON text.
///
/// # Errors
/// It cannot be written.
pub async fn initialize(gateway: &Gateway, version: ProtocolVersion) -> Result<Bytes, CallError> {
    settled(gateway).await;
    let parts = snapshots(gateway);
    let result = InitializeResult {
        protocol_version: version.as_str().to_owned(),
        capabilities: capabilities(&parts, Era::Legacy),
        server_info: serde_json::from_str::<Implementation>(SERVER_INFO).map_err(unwritten)?,
        instructions: instructions(gateway, &parts),
        meta: None,
    };
    text(&serde_json::to_value(result).map_err(unwritten)?)
}

/// The `DiscoverResult`: a JSON text.
pub(super) async fn discover(gateway: &Arc<Gateway>) -> Result<Bytes, CallError> {
    let parts = snapshots(gateway);
    let index = gateway.fresh_index().await;
    let result = DiscoverResult {
        supported_versions: ProtocolVersion::ALL.map(|v| v.as_str().to_owned()).to_vec(),
        capabilities: capabilities(&parts, Era::Modern),
        ttl_ms: Some(u64::try_from(index.ttl.as_millis()).unwrap_or(u64::MAX)),
        cache_scope: Some(if index.public {
            CacheScope::Public
        } else {
            CacheScope::Private
        }),
        instructions: instructions(gateway, &parts),
        meta: None,
    };
    let mut result = serde_json::to_value(result).map_err(unwritten)?;
    let info: Value = serde_json::from_str(SERVER_INFO).map_err(unwritten)?;
    result["resultType"] = "complete".into();
    result["_meta"] = json!({"io.modelcontextprotocol/serverInfo": info});
    if let Some(own) = sole_capabilities(gateway, &parts) {
        result["capabilities"] = own;
    }
    text(&result)
}

fn text(result: &Value) -> Result<Bytes, CallError> {
    serde_json::to_vec(result)
        .map(Bytes::from)
        .map_err(unwritten)
}

fn unwritten(error: serde_json::Error) -> CallError {
    CallError::refused(
        INTERNAL_ERROR,
        format!("the result cannot be written: {error}"),
    )
}

fn snapshots(gateway: &Gateway) -> Vec<Arc<Snapshot>> {
    gateway
        .backends
        .iter()
        .map(|b| b.catalog.snapshot())
        .collect()
}

/// The instructions of the backends: each one's under its name, which is the
/// prefix of its tools.
fn instructions(gateway: &Gateway, parts: &[Arc<Snapshot>]) -> Option<String> {
    let told = gateway
        .backends
        .iter()
        .zip(parts)
        .filter_map(|(backend, part)| {
            let text = part.about.instructions.as_deref()?;
            (!text.trim().is_empty()).then_some((backend.name(), text))
        });
    let told: Vec<_> = told.collect();
    match (told.as_slice(), gateway.backends.len()) {
        ([], _) => None,
        ([(_, only)], 1) => Some((*only).to_owned()),
        (several, _) => {
            let sections = several
                .iter()
                .map(|(name, text)| format!("# {name}\n{text}"));
            Some(sections.collect::<Vec<_>>().join("\n\n"))
        }
    }
}

/// A single backend that speaks the modern era over HTTP speaks for itself: all
/// its methods are passed to it.
fn sole_capabilities(gateway: &Gateway, parts: &[Arc<Snapshot>]) -> Option<Value> {
    match (gateway.backends.as_slice(), parts) {
        ([backend], [part]) if part.about.era == Some(Era::Modern) => {
            matches!(backend.upstream, Upstream::Http(_)).then(|| own(part))?
        }
        _ => None,
    }
}

fn own(part: &Snapshot) -> Option<Value> {
    let own: &RawValue = part.about.capabilities.as_deref()?;
    serde_json::from_str(own.get()).ok()
}

/// What a client may ask for: what any backend offers. A backend that has not
/// told yet may offer everything.
fn capabilities(parts: &[Arc<Snapshot>], era: Era) -> ServerCapabilities {
    let told: Vec<_> = parts
        .iter()
        .map(|part| part.told.and_then(|_| own(part)))
        .collect();
    let offered = |name: &str| {
        told.iter()
            .any(|told| told.as_ref().is_none_or(|own| own.get(name).is_some()))
    };
    // Changes of lists are told of by the proxy itself, whatever the backends do.
    let list_changed = true;
    let subscribe = told.iter().any(|told| match told {
        Some(own) => own["resources"]["subscribe"] == true,
        None => era == Era::Legacy,
    });
    ServerCapabilities {
        tools: offered("tools").then_some(ToolsCapability { list_changed }),
        resources: offered("resources").then_some(ResourcesCapability {
            subscribe,
            list_changed,
        }),
        prompts: offered("prompts").then_some(PromptsCapability { list_changed }),
        completions: offered("completions").then(CompletionsCapability::default),
        logging: offered("logging").then(LoggingCapability::default),
        extensions: (era == Era::Modern).then(|| extensions(&told)).flatten(),
        ..ServerCapabilities::default()
    }
}

/// The extensions that any backend knows; the first one's settings where several do. What
/// they add travels with the messages.
fn extensions(told: &[Option<Value>]) -> Option<HashMap<String, Value>> {
    let mut known = HashMap::new();
    for own in told.iter().flatten() {
        let own = own.get("extensions").and_then(Value::as_object);
        for (name, settings) in own.into_iter().flatten() {
            known
                .entry(name.clone())
                .or_insert_with(|| settings.clone());
        }
    }
    (!known.is_empty()).then_some(known)
}
