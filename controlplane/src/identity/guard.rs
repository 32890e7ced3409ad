//! The guard of the doors for nodes: the node token, or a certificate of the fleet.

use std::{
    convert::Infallible,
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::{Identities, credential::Credential};
use crate::{api::auth::Role, clock::now_ms, listen::Peer};

/// A gRPC service for nodes. With what they come is in the request's extensions as a
/// [`Credential`]; the service asks it whom it speaks for, and watches it.
#[derive(Clone)]
pub(crate) struct ForNodes<S> {
    inner: S,
    identities: Arc<Identities>,
}

impl<S> ForNodes<S> {
    pub(crate) fn new(inner: S, identities: Arc<Identities>) -> Self {
        Self { inner, identities }
    }
}

impl<S: NamedService> NamedService for ForNodes<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for ForNodes<S>
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
        let identities = Arc::clone(&self.identities);
        Box::pin(async move {
            let header = request.headers().get(AUTHORIZATION).cloned();
            let peer = request.extensions().get::<Peer>().cloned();
            match admit(&identities, header.as_ref(), peer).await {
                Ok(credential) => {
                    request.extensions_mut().insert(credential);
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// A token that is shown counts, good or not; otherwise the certificate does.
async fn admit(
    identities: &Arc<Identities>,
    header: Option<&HeaderValue>,
    peer: Option<Peer>,
) -> Result<Credential, Status> {
    let address = peer.as_ref().map(Peer::to_string).unwrap_or_default();
    let certificate = peer.and_then(|peer| peer.certificate);
    let Some(certificate) = certificate.filter(|_| header.is_none()) else {
        let admitted = identities.tokens.admit(Role::Node, header, address).await;
        let caller = admitted.map_err(|refused| Status::unauthenticated(refused.to_string()))?;
        return Ok(Credential::token(identities, caller.token_hash()));
    };
    let refused = |why: &str| {
        tracing::warn!(peer = address, why, "a certificate is refused");
        Status::unauthenticated("the certificate is not good: renew it, or join again")
    };
    let internal = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "a certificate cannot be checked");
        Status::unavailable("the certificate cannot be checked now: try again")
    };
    let ca = identities.ca().await.map_err(|error| internal(&error))?;
    // The handshake has checked it. That may have been long ago, and on a connection
    // that was resumed.
    let shown = ca.recognise(&certificate, now_ms());
    let shown = shown.map_err(|error| refused(&error.to_string()))?;
    let row = identities.find(&shown.serial).await;
    match row.map_err(|error| internal(&error))? {
        Some(row) if row.node_id != shown.node_id => Err(refused("it is of another node")),
        Some(row) if row.revoked_ms.is_some() => Err(refused("it is revoked")),
        Some(row) if row.expires_ms <= now_ms() => Err(refused("it has expired")),
        Some(row) => Ok(Credential::certificate(identities, shown, row.expires_ms)),
        None => Err(refused("it is not known here")),
    }
}
