//! The REST door: `/api/v1`, JSON bodies that are the messages of `fleet/v1/*.proto`.
//!
//! `rest/routes` is the one table of what there is: the router, the checks of a
//! request's parameters and body (`rest/input`) and the OpenAPI document
//! (`rest/openapi`) are made from it. `rest/handlers` calls [`Api`], as `api/grpc`
//! does; what goes wrong becomes problem details in `rest/failure`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{RawPathParams, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on},
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tower::ServiceExt;

use super::{
    Api,
    auth::{Caller, Role},
};
use crate::{
    listen::{Connection, Peer},
    serve::{CALLS, KEEPALIVE},
};

mod failure;
mod handlers;
mod health;
mod input;
mod openapi;
mod routes;
mod security;

use failure::Failure;
use input::Input;
use routes::Route;

/// Longest time for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Where the API is.
const BASE: &str = "/api/v1";

/// The running REST listener.
pub(crate) struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves until the [`Api`] is told to stop.
    pub(crate) fn start(
        api: Arc<Api>,
        incoming: mpsc::Receiver<Connection>,
        address: SocketAddr,
    ) -> Self {
        let until = api.shutdown.clone();
        let task = tokio::spawn(serve(router(api), incoming, until));
        Self { address, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until all calls have ended, for some time.
    pub(crate) async fn stopped(self, grace: Duration) {
        let mut task = self.task;
        match timeout(grace, &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the REST server failed"),
            // Somebody keeps a call open: they have been told.
            Err(_) => task.abort(),
        }
    }
}

async fn serve(
    router: Router,
    mut incoming: mpsc::Receiver<Connection>,
    mut until: watch::Receiver<bool>,
) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_concurrent_streams(CALLS);
    let open = GracefulShutdown::new();
    loop {
        let connection = tokio::select! {
            connection = incoming.recv() => connection,
            _ = until.wait_for(|down| *down) => break,
        };
        let Some(connection) = connection else { break };
        let (router, peer) = (router.clone(), connection.peer.clone());
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            router.clone().oneshot(request)
        });
        let served = http.serve_connection(TokioIo::new(connection), service);
        let served = open.watch(served.into_owned());
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(error, "a connection has ended");
            }
        });
    }
    drop(incoming);
    open.shutdown().await;
}

fn router(api: Arc<Api>) -> Router {
    let mut guarded = Router::new();
    for route in routes::all() {
        let (path, filter) = (route.path.clone(), route.method.filter());
        guarded = guarded.route(&path, on(filter, handler(route)));
    }
    let guarded = guarded
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&api), guard));
    let open = Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route(&format!("{BASE}/openapi.json"), get(openapi::serve))
        .method_not_allowed_fallback(wrong_method);
    open.fallback_service(guarded.with_state(Arc::clone(&api)))
        .with_state(api)
}

/// Lets callers with a token of the API through.
async fn guard(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    let peer = peer.map(Peer::to_string).unwrap_or_default();
    let header = request.headers().get(header::AUTHORIZATION).cloned();
    let mut response = match api.tokens.admit(Role::Admin, header.as_ref(), peer).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => Failure::unauthenticated(&refused, header.is_some()).into_response(),
    };
    // What one token sees is not for another's eyes.
    let private = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, private);
    response
}

/// One route of the table as an axum handler.
fn handler(
    route: Route,
) -> impl Fn(
    State<Arc<Api>>,
    Extension<Caller>,
    RawPathParams,
    Request,
) -> futures_util::future::BoxFuture<'static, Response>
+ Clone {
    let route = Arc::new(route);
    move |State(api), Extension(caller), params, request| {
        let route = Arc::clone(&route);
        Box::pin(async move {
            let answer = async {
                let input = Input::read(&route, &params, request).await?;
                let unless = input.unless;
                let reply = (route.handle)(api, caller, input).await?;
                Ok::<_, Failure>(reply.unless(unless))
            };
            answer.await.unwrap_or_else(IntoResponse::into_response)
        })
    }
}

async fn no_such_path(request: Request) -> Failure {
    let detail = format!(
        "there is nothing at {}: see {BASE}/openapi.json for what there is",
        request.uri().path()
    );
    Failure::new(StatusCode::NOT_FOUND, detail)
}

async fn wrong_method(request: Request) -> Failure {
    let detail = format!(
        "{} is not possible at {}: the header `allow` says what is",
        request.method(),
        request.uri().path()
    );
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// The methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Delete => MethodFilter::DELETE,
        }
    }

    /// As OpenAPI writes it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}
