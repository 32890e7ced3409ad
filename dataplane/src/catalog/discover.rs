//! What one backend offers, asked of itself: all its lists, page by page. When that is done is for
//! the [schedule](super::schedule) to say.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    About, Lists, entries,
    list::{Builder, List},
    params,
};
use crate::{
    auth::Auth,
    backend::Backend,
    call::{Call, Method, ProtocolVersion, Reply, WorkerId},
    envelope,
    error::CallError,
    upstream::message::{CLIENT_INFO, modern_meta},
};

/// Pages of one list that are followed.
const PAGES: usize = 1_000;
/// Bytes after which no further page of a list is asked for.
const BYTES: usize = 64 << 20;
/// Longest time for all lists of a backend.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks once. Returns whether the backend has told.
pub(super) async fn renew(backend: &Arc<Backend>, worker: WorkerId) -> bool {
    backend.catalog.asking();
    let answer = tokio::time::timeout(PATIENCE.min(backend.timeout), ask(backend, worker)).await;
    let error = match answer {
        Ok(Ok((about, lists))) => {
            tracing::debug!(
                backend = backend.name(),
                tools = lists.tools.len(),
                "catalogue renewed"
            );
            backend.catalog.told(about, lists);
            return true;
        }
        Ok(Err(error)) => error.for_operator(),
        Err(_) => format!(
            "backend {} did not list what it offers in time",
            backend.name()
        ),
    };
    // The same failure again and again is no news.
    if backend.catalog.snapshot().error.as_ref() != Some(&error) {
        tracing::warn!(backend = backend.name(), error, "catalogue not renewed");
    }
    backend.catalog.failed(error);
    false
}

#[derive(Deserialize)]
struct Greeted<'a> {
    #[serde(borrow)]
    capabilities: Option<&'a RawValue>,
    instructions: Option<String>,
}

#[derive(Default, Deserialize)]
struct Offers<'a> {
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    prompts: Option<&'a RawValue>,
    resources: Option<&'a RawValue>,
}

async fn ask(backend: &Arc<Backend>, worker: WorkerId) -> Result<(About, Lists), CallError> {
    let greeting = backend.upstream.greet(worker).await?;
    let greeted: Greeted<'_> = serde_json::from_slice(&greeting.result)
        .map_err(|e| bad(backend, format!("its greeting cannot be read: {e}")))?;
    let offers = greeted
        .capabilities
        .and_then(|c| serde_json::from_str::<Offers<'_>>(c.get()).ok());
    let offers = offers.unwrap_or_default();
    let mut lists = Lists {
        public: true,
        ..Lists::default()
    };
    if offers.tools.is_some() {
        lists.tools = list(backend, worker, &TOOLS).await?.noted_in(&mut lists);
        lists.params = mirrored(&lists.tools);
    }
    if offers.prompts.is_some() {
        lists.prompts = perhaps(backend, worker, &PROMPTS, &mut lists).await?;
    }
    if offers.resources.is_some() {
        lists.resources = perhaps(backend, worker, &RESOURCES, &mut lists).await?;
        lists.templates = perhaps(backend, worker, &TEMPLATES, &mut lists).await?;
    }
    let about = About {
        era: Some(greeting.era),
        capabilities: greeted.capabilities.map(ToOwned::to_owned),
        instructions: greeted.instructions,
    };
    Ok((about, lists))
}

/// A list that the backend may refuse: those that offer resources need not know
/// templates, and one with broken prompts still has its tools.
async fn perhaps(
    backend: &Arc<Backend>,
    worker: WorkerId,
    kind: &Kind,
    lists: &mut Lists,
) -> Result<List, CallError> {
    match list(backend, worker, kind).await {
        Ok(listed) => Ok(listed.noted_in(lists)),
        Err(error @ CallError::Refused { .. }) => {
            tracing::debug!(%error, "taken for an empty list");
            Ok(List::default())
        }
        Err(other) => Err(other),
    }
}

/// One of the lists.
pub(super) struct Kind {
    pub(super) method: &'static str,
    /// Member of the result.
    pub(super) member: &'static str,
    /// Member that identifies an entry.
    pub(super) id: &'static str,
}

const TOOLS: Kind = Kind {
    method: "tools/list",
    member: "tools",
    id: "name",
};
const PROMPTS: Kind = Kind {
    method: "prompts/list",
    member: "prompts",
    id: "name",
};
const RESOURCES: Kind = Kind {
    method: "resources/list",
    member: "resources",
    id: "uri",
};
const TEMPLATES: Kind = Kind {
    method: "resources/templates/list",
    member: "resourceTemplates",
    id: "uriTemplate",
};

/// All of them.
pub(super) const KINDS: [&Kind; 4] = [&TOOLS, &PROMPTS, &RESOURCES, &TEMPLATES];

/// A list with the hints of its pages.
struct Listed {
    entries: Builder,
    ttl: Option<Duration>,
    public: bool,
}

impl Listed {
    /// The entries; the least hints go to the whole.
    fn noted_in(self, lists: &mut Lists) -> List {
        lists.public &= self.public;
        lists.ttl = match (lists.ttl, self.ttl) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.entries.build()
    }
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(rename = "nextCursor")]
    next: Option<String>,
    #[serde(rename = "ttlMs")]
    ttl_ms: Option<f64>,
    #[serde(rename = "cacheScope", borrow)]
    scope: Option<std::borrow::Cow<'a, str>>,
}

/// Follows a list to its last page.
async fn list(backend: &Arc<Backend>, worker: WorkerId, kind: &Kind) -> Result<Listed, CallError> {
    let mut listed = Listed {
        entries: Builder::default(),
        ttl: None,
        public: true,
    };
    let mut cursor: Option<String> = None;
    let mut seen = HashSet::new();
    let (mut read, mut known) = (0, HashSet::new());
    for _ in 0..PAGES {
        let result = fetch(backend, worker, kind.method, cursor.as_deref()).await?;
        let page: Page<'_> = serde_json::from_slice(&result)
            .map_err(|e| bad(backend, format!("its {} cannot be read: {e}", kind.method)))?;
        listed.public &= page.scope.as_deref() == Some("public");
        // A hint below zero is taken for zero (2026-07-28, Caching).
        if let Some(ttl) = page
            .ttl_ms
            .map(|ms| Duration::from_millis(ms.max(0.0) as u64))
        {
            listed.ttl = Some(listed.ttl.map_or(ttl, |least| least.min(ttl)));
        }
        entries::read(backend, kind, &result, &mut known, &mut listed.entries)?;
        read += result.len();
        let Some(next) = page.next else { break };
        // A cursor that comes again would lead in a circle.
        if listed.entries.len() >= entries::ENTRIES || read >= BYTES || !seen.insert(next.clone()) {
            tracing::warn!(
                backend = backend.name(),
                list = kind.method,
                "the list is too long, or its cursors lead in a circle: the rest is left out"
            );
            break;
        }
        cursor = Some(next);
    }
    Ok(listed)
}

/// One page: the result object.
async fn fetch(
    backend: &Arc<Backend>,
    worker: WorkerId,
    method: &str,
    cursor: Option<&str>,
) -> Result<Bytes, CallError> {
    let cursor = cursor.map_or_else(String::new, |c| {
        format!(
            r#""cursor":{},"#,
            String::from_utf8_lossy(&envelope::quote(c))
        )
    });
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{{{cursor}"_meta":{{{}}}}}}}"#,
        modern_meta(CLIENT_INFO)
    );
    let body = Bytes::from(body);
    let message = envelope::scan(&body).map_err(|e| bad(backend, e.to_string()))?;
    let call = Call {
        worker,
        version: ProtocolVersion::V2026_07_28,
        method: Method::parse(method.as_bytes()),
        body,
        message,
        target: None,
        param_headers: Vec::new(),
        principal: Auth::anonymous(),
        session: None,
        rounds: Default::default(),
    };
    let answer = match backend.clone().call(call).await? {
        Reply::Whole(answer) => answer.body,
        Reply::Parts(parts) => parts.concat().into(),
        Reply::Stream(mut messages) => {
            let mut last = Bytes::new();
            while let Some(message) = messages.next().await {
                last = message?;
            }
            last
        }
    };
    let message = envelope::scan(&answer).map_err(|e| bad(backend, e.to_string()))?;
    match (message.kind, message.result) {
        (envelope::Kind::Response, Some(result)) => Ok(answer.slice(result.range())),
        _ => {
            let said = message.error.map_or_else(String::new, |e| {
                String::from_utf8_lossy(e.of(&answer)).into_owned()
            });
            Err(CallError::refused(
                0,
                format!("backend {} refused {method}: {said}", backend.name()),
            ))
        }
    }
}

pub(super) fn mirrored(
    tools: &List,
) -> std::collections::HashMap<String, Vec<params::ParamHeader>> {
    // Most schemas have none: the text tells faster than a parse.
    let marked = |json: &[u8]| memchr::memmem::find(json, b"x-mcp-header").is_some();
    tools
        .iter()
        .filter(|item| marked(item.json))
        .filter_map(|item| {
            let tool: serde_json::Value = serde_json::from_slice(item.json).ok()?;
            let found = params::of_schema(tool.get("inputSchema")?);
            (!found.is_empty()).then(|| (item.id().into_owned(), found))
        })
        .collect()
}

pub(super) fn bad(backend: &Backend, reason: String) -> CallError {
    CallError::BadAnswer {
        backend: backend.name().to_owned(),
        reason,
    }
}
