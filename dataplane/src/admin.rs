//! The admin listener: probes, metrics and the state of backends.

use std::sync::{Arc, atomic::Ordering};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use serde_json::{Value, json};

use crate::{catalog, node::Node, telemetry, upstream::Upstream};

/// The routes.
pub fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/admin/backends", get(backends))
        .with_state(node)
}

async fn readyz(State(node): State<Arc<Node>>) -> impl IntoResponse {
    if node.is_ready() {
        (StatusCode::OK, "ok\n")
    } else if node.draining.load(Ordering::Relaxed) {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: shutting down\n",
        )
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: no configuration yet\n",
        )
    }
}

async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    (
        [("content-type", "text/plain; version=0.0.4")],
        telemetry::render(&node),
    )
}

async fn backends(State(node): State<Arc<Node>>) -> Json<Value> {
    let table = node.table.load();
    let backends: Vec<_> = table
        .backends()
        .map(|(_, backend)| state(backend))
        .collect();
    Json(json!({"revision": table.revision, "backends": backends}))
}

fn state(backend: &crate::backend::Backend) -> Value {
    let now = backend.catalog.snapshot();
    let state = match now.state {
        catalog::State::Unknown => "unknown",
        catalog::State::Fresh => "fresh",
        catalog::State::Stale => "stale",
        catalog::State::Failed => "failed",
    };
    let transport = match &backend.upstream {
        Upstream::Http(_) => json!({"kind": "http"}),
        Upstream::Stdio(child) => {
            json!({"kind": "stdio", "process": format!("{:?}", child.stdio().state())})
        }
        Upstream::Broken(_) => json!({"kind": "broken"}),
    };
    json!({
        "project": backend.key.project,
        "name": backend.key.name,
        "state": state,
        "transport": transport,
        "era": now.about.era.map(|era| match era {
            crate::call::Era::Legacy => "legacy",
            crate::call::Era::Modern => "modern",
        }),
        "tools": now.lists.tools.len(),
        "prompts": now.lists.prompts.len(),
        "resources": now.lists.resources.len(),
        "resource_templates": now.lists.templates.len(),
        "seconds_since_told": now.told.map(|told| told.elapsed().as_secs()),
        "error": now.error,
    })
}
