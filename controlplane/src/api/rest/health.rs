//! What probes and scrapers ask, without a token.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};

use crate::api::Api;

/// The process answers.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// It takes calls. That the database is out of reach is no reason to send callers
/// elsewhere: reads and nodes are served from memory.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> impl IntoResponse {
    if *api.shutdown.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let text = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, text)], api.metrics())
}
