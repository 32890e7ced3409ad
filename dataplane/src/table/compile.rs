//! A valid set of resources to a [`RouteTable`]. Nothing here waits for a
//! backend, and nothing is touched that is in use: unchanged backends go over
//! into the new table as they are.
//!
//! What cannot work on this node alone (an unset variable, a command that is not
//! allowed) breaks that backend or gateway and is reported; the rest is served.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use fleet_proto::{
    hash::Hash,
    key::{Key, Kind},
    v1::{self, auth_policy::Scheme},
    validate::{
        DEFAULT_MAX_DURATION, DEFAULT_RESUME_GRACE, DEFAULT_SEPARATOR, DEFAULT_TIMEOUT, Problem,
        Valid,
    },
};

use tokio::runtime::Handle;

use super::{
    Gateway, MethodOwner, Naming, RouteTable,
    open::{self, Resolved, fingerprint, resolve_transport},
};
use crate::{
    auth::{Auth, bearer::Tokens},
    backend::{Backend, Parts},
    catalog::{Catalog, schedule},
    node::Node,
    resolve::resolve,
    sealed::scope::Scope,
    secrets::Secrets,
    upstream::{
        Upstream,
        duplex::{Adapter, Duplex, OnNotification},
        http::Http,
        sse, stdio, websocket,
    },
};

/// What a set of resources is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Lineage of the store.
    pub lineage: String,
    /// Revision number.
    pub revision: u64,
}

/// Makes the table for this set, taking over from `before` what has not changed,
/// and starts the discovery of what is new.
#[must_use]
pub fn compile(node: &Arc<Node>, version: Version, set: &Valid, before: &RouteTable) -> RouteTable {
    let mut compiler = Compiler {
        node,
        before,
        secrets: node.secrets.load_full(),
        degraded: Vec::new(),
    };
    let mut fresh = Vec::new();
    let mut backends = BTreeMap::new();
    for (key, backend) in set.backends() {
        let (backend, is_new) = compiler.backend(key, backend);
        if is_new {
            fresh.push(backend.clone());
        }
        backends.insert(backend.key.clone(), backend);
    }
    let policies: BTreeMap<_, _> = set
        .auth_policies()
        .map(|(key, policy)| (key.clone(), compiler.policy(key, policy)))
        .collect();
    let gateways: HashMap<_, _> = set
        .gateways_served()
        .iter()
        .map(|gateway| {
            let members = set
                .backends_of(gateway)
                .filter_map(|(key, _)| backends.get(key).cloned());
            let gateway = compiler.gateway(gateway, members.collect(), &policies);
            (gateway.path.clone(), Arc::new(gateway))
        })
        .collect();
    for backend in fresh {
        backend.catalog.ask();
    }
    RouteTable {
        lineage: version.lineage,
        revision: version.revision,
        root_hash: Some(set.root_hash()),
        degraded: compiler.degraded,
        gateways,
        backends,
    }
}

/// Longest silence and longest call.
fn limits(backend: &v1::Backend) -> (Duration, Duration) {
    (
        backend.timeout.unwrap_or(DEFAULT_TIMEOUT).into(),
        backend.max_duration.unwrap_or(DEFAULT_MAX_DURATION).into(),
    )
}

struct Compiler<'a> {
    node: &'a Arc<Node>,
    before: &'a RouteTable,
    secrets: Arc<Secrets>,
    degraded: Vec<Problem>,
}

impl Compiler<'_> {
    /// The backend, and whether it is new.
    fn backend(&mut self, key: &Key, backend: &v1::Backend) -> (Arc<Backend>, bool) {
        let resolved = resolve_transport(backend, &self.node.settings, &self.secrets);
        match &resolved {
            Resolved::Broken { path, reason } => self.degraded(key, path, reason),
            // It may be installed yet: the backend is served, and tries.
            Resolved::Stdio(config) => {
                if let Err(reason) = config.find() {
                    self.degraded(key, "stdio.command", &reason);
                }
            }
            Resolved::Http(_)
            | Resolved::Unix(..)
            | Resolved::Websocket(..)
            | Resolved::Sse(..) => {}
        }
        let (runtime, fingerprint) = (open::runtime(backend), fingerprint(backend, &resolved));
        let predecessor = self.before.backend(key);
        let same = predecessor.filter(|b| b.fingerprint == fingerprint);
        if let Some(same) = same {
            if same.runtime == runtime {
                return (same.clone(), false);
            }
            return self.take_over(same, backend, runtime);
        }
        let serial = self.node.next_serial();
        let catalog = Catalog::new(self.node.epoch.clone(), predecessor.map(|b| &b.catalog));
        if predecessor.is_none()
            && let Some(kept) = &self.node.kept
            && let Some((about, lists)) = kept.load(runtime)
        {
            catalog.restored(about, lists);
        }
        let upstream = self.open(key, serial, resolved);
        let (timeout, max_duration) = limits(backend);
        let key = predecessor.map_or_else(|| Arc::new(key.clone()), |b| b.key.clone());
        let backend = Backend::new(Parts {
            metrics: self.node.metrics.backend(&key),
            key,
            serial,
            fingerprint,
            runtime,
            timeout,
            max_duration,
            upstream,
            catalog,
        });
        (self.ready(backend.closing(self.node)), true)
    }

    /// A backend whose limits alone have changed: connections, sessions, child and catalogue
    /// of its predecessor are its own from now on.
    fn take_over(
        &self,
        same: &Backend,
        backend: &v1::Backend,
        runtime: Hash,
    ) -> (Arc<Backend>, bool) {
        let (timeout, max_duration) = limits(backend);
        // What is being asked for now will be told to the predecessor alone.
        let is_new = !same.catalog.is_told() || same.catalog.is_wanted();
        let parts = Parts {
            key: same.key.clone(),
            serial: same.serial,
            fingerprint: same.fingerprint,
            runtime,
            timeout,
            max_duration,
            upstream: same.upstream.clone(),
            catalog: Catalog::taken_over(&same.catalog),
            metrics: same.metrics.clone(),
        };
        (self.ready(Backend::new(parts).closing_with(same)), is_new)
    }

    /// A backend that can be asked what it offers.
    fn ready(&self, backend: Backend) -> Arc<Backend> {
        let backend = Arc::new(backend);
        schedule::enter(self.node, &backend);
        backend
    }

    fn open(&mut self, key: &Key, serial: u64, resolved: Resolved) -> Upstream {
        let opened = match resolved {
            Resolved::Broken { reason, .. } => return Upstream::broken(key.name.clone(), reason),
            Resolved::Http(remote) => {
                open::http(self.node, key, serial, remote).map(|http| self.http(key, http))
            }
            Resolved::Unix(socket, remote) => {
                let opened = open::unix(self.node, key, serial, socket, remote);
                opened.map(|http| self.http(key, http))
            }
            Resolved::Stdio(config) => {
                Ok(self.duplex(key, |runtime, heard| stdio::backend(config, runtime, heard)))
            }
            Resolved::Sse(remote, hidden) => open::sse(key, remote, hidden).map(|config| {
                self.duplex(key, |runtime, heard| sse::backend(config, runtime, heard))
            }),
            Resolved::Websocket(remote, hidden) => {
                open::websocket(key, remote, hidden).map(|config| {
                    self.duplex(key, |runtime, heard| {
                        websocket::backend(config, runtime, heard)
                    })
                })
            }
        };
        opened.unwrap_or_else(|(path, reason)| {
            self.degraded(key, &path, &reason);
            Upstream::broken(key.name.clone(), reason)
        })
    }

    fn http(&self, key: &Key, http: Http) -> Upstream {
        http.renews(Box::new(self.renewal(key)));
        Upstream::Http(http)
    }

    /// A server's word that its lists have changed renews the catalogue.
    fn duplex(
        &self,
        key: &Key,
        backend: impl FnOnce(Handle, OnNotification) -> Duplex,
    ) -> Upstream {
        let renew = self.renewal(key);
        let heard: OnNotification = Arc::new(move |method: &str, _| {
            if method.ends_with("/list_changed") {
                renew();
            }
        });
        let backend = backend(self.node.background.clone(), heard);
        Upstream::Duplex(Arc::new(Adapter::new(backend)))
    }

    /// Renews the catalogue of the backend that has this key by then.
    fn renewal(&self, key: &Key) -> impl Fn() + Send + Sync + 'static {
        let (node, key) = (Arc::downgrade(self.node), key.clone());
        move || {
            if let Some(node) = node.upgrade()
                && let Some(backend) = node.table.load().backend(&key)
            {
                backend.catalog.want();
            }
        }
    }

    fn policy(&mut self, key: &Key, policy: &v1::AuthPolicy) -> Arc<Auth> {
        let Some(Scheme::Bearer(bearer)) = &policy.scheme else {
            return Arc::new(Auth::Broken);
        };
        let mut tokens = Vec::with_capacity(bearer.tokens.len());
        for (place, token) in bearer.tokens.iter().enumerate() {
            match resolve(token, &self.node.settings.allow) {
                Ok(token) if token.is_empty() => {
                    return self.broken(key, place, "the token is empty on this node");
                }
                Ok(token) => tokens.push(token),
                Err(reason) => return self.broken(key, place, &reason),
            }
        }
        Arc::new(Auth::Bearer(Tokens::new(tokens.iter().map(String::as_str))))
    }

    /// One token that cannot be read may be one that was to be taken away from
    /// somebody: nobody is let in.
    fn broken(&mut self, key: &Key, place: usize, reason: &str) -> Arc<Auth> {
        self.degraded(key, &format!("bearer.tokens[{place}]"), reason);
        Arc::new(Auth::Broken)
    }

    fn gateway(
        &mut self,
        gateway: &v1::Gateway,
        backends: Vec<Arc<Backend>>,
        policies: &BTreeMap<Key, Arc<Auth>>,
    ) -> Gateway {
        let key = Key::new(&gateway.project, Kind::Gateway, &gateway.name);
        let auth = match gateway.auth.as_str() {
            "none" => Arc::new(Auth::Open),
            "" if self.node.is_local() => Arc::new(Auth::Open),
            "" => {
                let reason = "an open gateway on a node that listens beyond loopback: name an AuthPolicy, \
                              or write `auth: none` if it is to be open";
                self.degraded(&key, "auth", reason);
                Arc::new(Auth::Broken)
            }
            name => {
                let policy = Key::new(&gateway.project, Kind::AuthPolicy, name);
                policies
                    .get(&policy)
                    .cloned()
                    .unwrap_or_else(|| Arc::new(Auth::Broken))
            }
        };
        let naming = match (gateway.bare_names, gateway.separator.as_str()) {
            (true, _) => Naming::Bare,
            (false, "") => Naming::Prefixed {
                separator: DEFAULT_SEPARATOR.to_owned(),
            },
            (false, separator) => Naming::Prefixed {
                separator: separator.to_owned(),
            },
        };
        let lower = |texts: &[String]| texts.iter().map(|t| t.to_ascii_lowercase()).collect();
        Gateway {
            id: format!("{}/{}", key.project, key.name),
            path: gateway.path.clone(),
            resource_owner: backends
                .iter()
                .position(|b| b.name() == gateway.resource_owner),
            method_owners: method_owners(gateway, &backends),
            resume_grace: gateway.resume_grace.unwrap_or(DEFAULT_RESUME_GRACE).into(),
            serials: Gateway::serials_of(&backends),
            backends,
            naming,
            auth,
            hosts: lower(&gateway.hosts),
            origins: lower(&gateway.origins),
            epoch: self.node.epoch.clone(),
            scope: Arc::new(Scope::new(
                format!("{}/{}", key.project, key.name),
                self.node.sessions.keys(),
            )),
            index: Default::default(),
            versions: Default::default(),
        }
    }

    fn degraded(&mut self, key: &Key, path: &str, reason: &str) {
        tracing::warn!(resource = %key, path, reason, "does not work on this node");
        self.degraded.push(Problem {
            key: Some(key.clone()),
            path: path.to_owned(),
            message: reason.to_owned(),
        });
    }
}

/// The owners of methods: exact ones first, then the longer beginnings.
fn method_owners(gateway: &v1::Gateway, backends: &[Arc<Backend>]) -> Vec<MethodOwner> {
    let owners = gateway.method_owner.iter().filter_map(|(method, name)| {
        let beginning = method.strip_suffix('*');
        Some(MethodOwner {
            method: beginning.unwrap_or(method).to_owned(),
            is_prefix: beginning.is_some(),
            backend: backends.iter().position(|b| b.name() == name)?,
        })
    });
    let mut owners: Vec<_> = owners.collect();
    owners.sort_by_key(|owner| (owner.is_prefix, std::cmp::Reverse(owner.method.len())));
    owners
}

#[cfg(test)]
mod tests;
