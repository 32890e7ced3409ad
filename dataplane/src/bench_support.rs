//! Doors for the benchmarks in `bench/`, which measure the stack without a transport under it.
//! Nothing else is to use them.

use std::{sync::Arc, time::Duration};

use fleet_proto::{
    hash::Hash,
    key::{DEFAULT_PROJECT, Key, Kind},
    validate::{DEFAULT_MAX_DURATION, DEFAULT_TIMEOUT},
};
use tower::Service;

use crate::{
    auth::Auth,
    backend::{Backend, Parts},
    call::{Call, Reply},
    catalog::Catalog,
    error::CallError,
    node::Node,
    sealed::scope::Scope,
    table::{Gateway, Naming},
    upstream::Upstream,
};

/// A backend with the whole stack, which ends in this service.
pub fn backend<S>(node: &Node, name: &str, service: S) -> Arc<Backend>
where
    S: Service<Call, Response = Reply, Error = CallError> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let key = Arc::new(Key::new(DEFAULT_PROJECT, Kind::Backend, name));
    let parts = Parts {
        serial: node.next_serial(),
        fingerprint: Hash::of(name.as_bytes()),
        runtime: Hash::of(name.as_bytes()),
        timeout: Duration::from(DEFAULT_TIMEOUT),
        max_duration: Duration::from(DEFAULT_MAX_DURATION),
        upstream: Upstream::broken(name.to_owned(), "it has no transport".to_owned()),
        catalog: Catalog::new(node.epoch.clone(), None),
        metrics: node.metrics.backend(&key),
        key,
    };
    Arc::new(Backend::over(parts, service))
}

/// An open gateway at `/mcp` in front of these, which are in the order of their names.
#[must_use]
pub fn gateway(node: &Node, backends: Vec<Arc<Backend>>) -> Arc<Gateway> {
    Arc::new(Gateway {
        id: format!("{DEFAULT_PROJECT}/default"),
        path: "/mcp".to_owned(),
        serials: Gateway::serials_of(&backends),
        backends,
        naming: Naming::Prefixed {
            separator: fleet_proto::validate::DEFAULT_SEPARATOR.to_owned(),
        },
        auth: Arc::new(Auth::Open),
        hosts: Vec::new(),
        origins: Vec::new(),
        resource_owner: None,
        method_owners: Vec::new(),
        resume_grace: Duration::from_secs(60),
        epoch: node.epoch.clone(),
        scope: Arc::new(Scope::new(
            format!("{DEFAULT_PROJECT}/default"),
            node.sessions.keys(),
        )),
        index: Default::default(),
        versions: Default::default(),
    })
}
