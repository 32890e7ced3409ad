//! The guard of the gRPC doors.

use std::{
    convert::Infallible,
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::{Role, Tokens};
use crate::listen::Peer;

/// A gRPC service for callers with a token of its door. They are found in the
/// request's extensions as a [`Caller`](super::Caller).
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    inner: S,
    tokens: Arc<Tokens>,
    door: Role,
}

impl<S> Guarded<S> {
    pub(crate) fn new(inner: S, tokens: Arc<Tokens>, door: Role) -> Self {
        Self {
            inner,
            tokens,
            door,
        }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready is called, its clone stays.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        let tokens = Arc::clone(&self.tokens);
        let door = self.door;
        Box::pin(async move {
            let header = request.headers().get(AUTHORIZATION).cloned();
            let peer = request.extensions().get::<Peer>();
            let peer = peer.map(Peer::to_string).unwrap_or_default();
            match tokens.admit(door, header.as_ref(), peer).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(refused) => Ok(Status::unauthenticated(refused.to_string()).into_http()),
            }
        })
    }
}
