//! [`RouteTable`]: everything a request needs to know, immutable. A change of
//! configuration makes a new one aside and swaps it in whole.

pub mod compile;
mod open;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::runtime::Handle;

use fleet_proto::{
    hash::Hash,
    key::Key,
    validate::{DEFAULT_SEPARATOR, Problem},
};

use crate::{
    auth::Auth,
    backend::Backend,
    catalog::{epoch::Epoch, render::cell::IndexCell, versions::VersionsCell},
    sealed::scope::Scope,
};

/// What is being served.
#[derive(Default)]
pub struct RouteTable {
    /// Lineage of the revision; empty before the first one, and for a file.
    pub lineage: String,
    /// Revision number; 0 before the first one.
    pub revision: u64,
    /// Root hash of the resources; `None` before the first table.
    pub root_hash: Option<Hash>,
    /// What does not work here for reasons of this node.
    pub degraded: Vec<Problem>,
    /// By path.
    gateways: HashMap<String, Arc<Gateway>>,
    /// All backends, by key.
    backends: BTreeMap<Arc<Key>, Arc<Backend>>,
}

/// An endpoint for clients.
pub struct Gateway {
    /// Project and name, `default/team-a`.
    pub id: String,
    /// Its path.
    pub path: String,
    /// Its backends, in the order of their names: the order of lists.
    pub backends: Vec<Arc<Backend>>,
    /// Their serial numbers, in order.
    pub(crate) serials: Box<[u64]>,
    /// How names are exposed.
    pub naming: Naming,
    /// Who may enter.
    pub auth: Arc<Auth>,
    /// Accepted `Host` names, lower case; empty: the default rule.
    pub hosts: Vec<String>,
    /// Accepted `Origin` values, lower case; empty: loopback only.
    pub origins: Vec<String>,
    /// The backend that wins a resource URI that several offer.
    pub resource_owner: Option<usize>,
    /// Who takes methods that the proxy does not know, the longest beginning first.
    pub method_owners: Vec<MethodOwner>,
    /// How long the stream of a legacy client can be resumed.
    pub resume_grace: Duration,
    /// Grows with every change of any catalogue.
    pub(crate) epoch: Arc<Epoch>,
    /// What it seals for its clients.
    pub(crate) scope: Arc<Scope>,
    /// What its backends offer, rendered.
    pub(crate) index: IndexCell,
    /// What tells its lists apart from earlier ones.
    pub(crate) versions: VersionsCell,
}

/// Who takes some methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodOwner {
    /// The method, or what it begins with.
    pub method: String,
    /// Whether it is a beginning.
    pub is_prefix: bool,
    /// Place of the backend in [`Gateway::backends`].
    pub backend: usize,
}

/// How the names of tools and prompts are exposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Backend, separator, name.
    Prefixed {
        /// Between the two.
        separator: String,
    },
    /// As the backend names them, where no other backend has the same name;
    /// there with a prefix.
    Bare,
}

impl Naming {
    /// What stands between backend and name where there is a prefix.
    #[must_use]
    pub fn separator(&self) -> &str {
        match self {
            Self::Prefixed { separator } => separator,
            Self::Bare => DEFAULT_SEPARATOR,
        }
    }
}

/// Whoever lets go of a table last may be in the middle of a call: ten thousand backends are
/// dropped on a thread of their own.
fn drop_aside<T: Send + 'static>(what: T) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(what))),
        Err(_) => drop(what),
    }
}

/// So many backends are dropped at once without anybody noticing.
const FEW: usize = 128;

impl Drop for RouteTable {
    fn drop(&mut self) {
        if self.backends.len() > FEW {
            let gateways = std::mem::take(&mut self.gateways);
            drop_aside((std::mem::take(&mut self.backends), gateways));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.backends.len() > FEW {
            let index = std::mem::take(&mut self.index);
            drop_aside((std::mem::take(&mut self.backends), index));
        }
    }
}

impl RouteTable {
    /// Whether this is a configuration, and not the emptiness before the first.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        self.root_hash.is_some()
    }

    /// The gateway at this path.
    #[must_use]
    pub fn gateway(&self, path: &str) -> Option<&Arc<Gateway>> {
        self.gateways.get(path)
    }

    /// All gateways.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.gateways.values()
    }

    /// All backends, in order of their keys.
    pub fn backends(&self) -> impl Iterator<Item = (&Key, &Arc<Backend>)> {
        self.backends.iter().map(|(key, backend)| (&**key, backend))
    }

    /// The backend of this key.
    #[must_use]
    pub fn backend(&self, key: &Key) -> Option<&Arc<Backend>> {
        self.backends.get(key)
    }
}

impl Gateway {
    /// Serial numbers of backends, in order.
    pub(crate) fn serials_of(backends: &[Arc<Backend>]) -> Box<[u64]> {
        let mut serials: Box<[u64]> = backends.iter().map(|own| own.serial).collect();
        serials.sort_unstable();
        serials
    }

    /// Whether it has the backend of this serial number.
    #[must_use]
    pub(crate) fn has(&self, serial: u64) -> bool {
        self.serials.binary_search(&serial).is_ok()
    }

    /// Its project.
    #[must_use]
    pub fn project(&self) -> &str {
        // No name of a project holds a slash.
        self.id.split_once('/').map_or("", |(project, _)| project)
    }

    /// The backend that takes a method which is not the proxy's own and names nothing:
    /// the one that is named for it, or the only one.
    #[must_use]
    pub fn takes(&self, method: &[u8]) -> Option<&Arc<Backend>> {
        let fits = |owner: &&MethodOwner| {
            let own = owner.method.as_bytes();
            method == own || owner.is_prefix && method.starts_with(own)
        };
        match (
            self.method_owners.iter().find(fits),
            self.backends.as_slice(),
        ) {
            (Some(owner), backends) => backends.get(owner.backend),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}
