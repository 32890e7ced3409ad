//! The admin listener: probes, metrics and the state of backends. Who connects and says
//! nothing is hung up on.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::{
    auth::bearer::{self, Tokens},
    catalog,
    listen::{host_of, is_loopback},
    node::Node,
    telemetry,
    upstream::Upstream,
};

/// Connections that are served at the same time; more wait to be accepted.
const CONNECTIONS: usize = 128;
/// How long the head of a request may take, and a connection be idle.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last: one that reads nothing must not keep its place.
const LONGEST: Duration = Duration::from_secs(120);

/// Serves the routes on a listener, until dropped.
pub async fn serve(mut listener: impl Listener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Only closing a semaphore makes this fail, and nobody does.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let (stream, _) = listener.accept().await;
        let router = router.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                router.clone().oneshot(request.map(Body::new))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(LONGEST, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an admin connection has ended"),
                Err(_) => tracing::debug!("an admin connection has lasted too long"),
            }
        });
    }
}

/// The routes.
pub fn router(node: Arc<Node>) -> Router {
    let closed = Router::new()
        .route("/metrics", get(metrics))
        .route("/admin/backends", get(backends))
        .route("/admin/configuration", get(configuration))
        .layer(middleware::from_fn_with_state(node.clone(), admit));
    // Probes tell nothing and need no token.
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .merge(closed)
        .with_state(node)
}

/// With a token, only who has it; without one, only this machine, and no page
/// of another site through its browser (DNS rebinding).
async fn admit(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let refusal = match &node.settings.admin_token {
        Some(token) => {
            let given = headers.get(header::AUTHORIZATION);
            let given = given.and_then(|value| bearer::token(value.as_bytes()));
            let fits = given.and_then(|given| Tokens::new([token.as_str()]).principal(given));
            fits.is_none().then_some(StatusCode::UNAUTHORIZED)
        }
        None => {
            let host = headers
                .get(header::HOST)
                .and_then(|value| value.to_str().ok());
            let local = host.and_then(host_of).is_some_and(is_loopback);
            (!local || headers.contains_key(header::ORIGIN)).then_some(StatusCode::FORBIDDEN)
        }
    };
    match refusal {
        None => next.run(request).await,
        Some(StatusCode::UNAUTHORIZED) => {
            let challenge = [(
                header::WWW_AUTHENTICATE,
                r#"Bearer realm="mcp-fleet admin""#,
            )];
            (
                StatusCode::UNAUTHORIZED,
                challenge,
                "the admin token is required\n",
            )
                .into_response()
        }
        Some(status) => (status, "only for this machine: the Host is another\n").into_response(),
    }
}

async fn readyz(State(node): State<Arc<Node>>) -> impl IntoResponse {
    if node.is_ready() {
        let from_disk = node.control.is_from_disk();
        let ok = if from_disk {
            "ok: served from disk, no control plane reached yet\n"
        } else {
            "ok\n"
        };
        (StatusCode::OK, ok.to_owned())
    } else if node.draining.load(Ordering::Relaxed) {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: shutting down\n".to_owned(),
        )
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "not ready: no configuration: {}\n",
                node.control.why_not_ready()
            ),
        )
    }
}

async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    (
        [("content-type", "text/plain; version=0.0.4")],
        telemetry::render(&node),
    )
}

/// Where the configuration comes from, and what is wrong with that.
async fn configuration(State(node): State<Arc<Node>>) -> Json<Value> {
    let table = node.table.load();
    let problems: serde_json::Map<_, _> = node
        .control
        .details()
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(what, text)| (what.to_owned(), text.into()))
        .collect();
    Json(json!({
        "lineage": table.lineage,
        "revision": table.revision,
        "root_hash": table.root_hash.map(|hash| hash.to_string()),
        "from_disk": node.control.is_from_disk(),
        "last_good_saved": node.control.is_saved(),
        "problems": problems,
    }))
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
        Upstream::Duplex(adapter) => {
            let duplex = adapter.duplex();
            json!({"kind": duplex.kind(), "connection": format!("{:?}", duplex.state())})
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

#[cfg(test)]
mod tests;
