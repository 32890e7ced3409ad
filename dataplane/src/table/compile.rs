//! A valid set of resources to a [`RouteTable`]. Nothing here waits for a
//! backend, and nothing is touched that is in use: unchanged backends go over
//! into the new table as they are.
//!
//! What cannot work on this node alone (an unset variable, a command that is not
//! allowed) breaks that backend or gateway and is reported; the rest is served.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use fleet_proto::{
    hash::Hash,
    key::{Key, Kind},
    v1::{self, auth_policy::Scheme, backend::Transport},
    validate::{DEFAULT_MAX_DURATION, DEFAULT_TIMEOUT, Problem, Valid},
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use prost::Message;

use super::{Gateway, Naming, RouteTable};
use crate::{
    auth::{Auth, bearer::Tokens},
    backend::{Backend, Parts},
    catalog::{Catalog, discover},
    node::Node,
    resolve::resolve,
    settings::Allow,
    upstream::{
        Upstream,
        http::{Http, HttpConfig, headers},
        pool::Origin,
        stdio::{Adapter, Stdio, StdioConfig},
        tls,
    },
};

/// What a set of resources is called.
#[derive(Clone, Debug, Default)]
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
        degraded: Vec::new(),
    };
    let mut fresh = Vec::new();
    let mut backends = BTreeMap::new();
    for (key, backend) in set.backends() {
        let (backend, is_new) = compiler.backend(key, backend);
        if is_new {
            fresh.push(backend.clone());
        }
        backends.insert(key.clone(), backend);
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
        discover::start(node, &backend);
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

struct Compiler<'a> {
    node: &'a Arc<Node>,
    before: &'a RouteTable,
    degraded: Vec<Problem>,
}

/// A backend's transport with everything resolved.
enum Resolved {
    Http {
        url: String,
        headers: Vec<(String, String)>,
        bearer: Option<String>,
    },
    Stdio {
        command: String,
        args: Vec<String>,
        env: BTreeMap<String, String>,
        cwd: Option<String>,
    },
    Broken {
        path: String,
        reason: String,
    },
}

impl Compiler<'_> {
    /// The backend, and whether it is new.
    fn backend(&mut self, key: &Key, backend: &v1::Backend) -> (Arc<Backend>, bool) {
        let resolved = resolve_transport(backend, self.node.settings.allow);
        if let Resolved::Broken { path, reason } = &resolved {
            self.degraded(key, path, reason);
        }
        let fingerprint = fingerprint(backend, &resolved);
        let predecessor = self.before.backend(key);
        if let Some(same) = predecessor.filter(|b| b.fingerprint == fingerprint) {
            return (same.clone(), false);
        }
        let serial = self.node.next_serial();
        let upstream = self.open(key, serial, resolved);
        let length = |field: Option<fleet_proto::duration::Duration>, default| {
            Duration::from(field.unwrap_or(default))
        };
        let backend = Backend::new(Parts {
            key: key.clone(),
            serial,
            fingerprint,
            timeout: length(backend.timeout, DEFAULT_TIMEOUT),
            max_duration: length(backend.max_duration, DEFAULT_MAX_DURATION),
            upstream,
            catalog: Catalog::new(self.node.epoch.clone(), predecessor.map(|b| &b.catalog)),
            metrics: self.node.metrics.backend(key),
        });
        (Arc::new(backend), true)
    }

    fn open(&mut self, key: &Key, serial: u64, resolved: Resolved) -> Upstream {
        let opened = match resolved {
            Resolved::Broken { reason, .. } => return Upstream::broken(key.name.clone(), reason),
            Resolved::Http {
                url,
                headers,
                bearer,
            } => http(self.node, key, serial, &url, headers, bearer).map(Upstream::Http),
            Resolved::Stdio {
                command,
                args,
                env,
                cwd,
            } => {
                let settings = &self.node.settings;
                let config = StdioConfig {
                    name: key.name.clone(),
                    command,
                    args,
                    env,
                    cwd: cwd.map(PathBuf::from),
                    guard: settings.guard.clone(),
                    extra_path: settings.extra_path.clone(),
                };
                Ok(Upstream::Stdio(Arc::new(Adapter::new(
                    self.child(key, config),
                ))))
            }
        };
        opened.unwrap_or_else(|(path, reason)| {
            self.degraded(key, path, &reason);
            Upstream::broken(key.name.clone(), reason)
        })
    }

    /// A child whose word that its lists have changed renews the catalogue.
    fn child(&self, key: &Key, config: StdioConfig) -> Stdio {
        let (node, key) = (Arc::downgrade(self.node), key.clone());
        let heard = move |method: &str, _| {
            if !method.ends_with("/list_changed") {
                return;
            }
            if let Some(node) = node.upgrade()
                && let Some(backend) = node.table.load().backend(&key)
            {
                backend.catalog.wanted.notify_one();
            }
        };
        Stdio::new(config, self.node.background.clone(), Arc::new(heard))
    }

    fn policy(&mut self, key: &Key, policy: &v1::AuthPolicy) -> Arc<Auth> {
        let Some(Scheme::Bearer(bearer)) = &policy.scheme else {
            return Arc::new(Auth::Broken);
        };
        let mut tokens = Vec::with_capacity(bearer.tokens.len());
        for (place, token) in bearer.tokens.iter().enumerate() {
            match resolve(token, self.node.settings.allow) {
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
                separator: super::DEFAULT_SEPARATOR.to_owned(),
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
            backends,
            naming,
            auth,
            hosts: lower(&gateway.hosts),
            origins: lower(&gateway.origins),
            epoch: self.node.epoch.clone(),
            index: Default::default(),
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

fn resolve_transport(backend: &v1::Backend, allow: Allow) -> Resolved {
    let resolved = match &backend.transport {
        Some(Transport::Http(http)) => resolve_http(http, allow),
        Some(Transport::Stdio(_)) if !allow.stdio => Err((
            "stdio".to_owned(),
            "stdio backends are not allowed on this node: start it with --allow stdio".to_owned(),
        )),
        Some(Transport::Stdio(stdio)) => resolve_stdio(stdio, allow),
        None => Err((String::new(), "the backend has no transport".to_owned())),
    };
    resolved.unwrap_or_else(|(path, reason)| Resolved::Broken { path, reason })
}

type At = (String, String);

fn resolve_http(http: &v1::HttpBackend, allow: Allow) -> Result<Resolved, At> {
    let at =
        |path: &str, text: &str| resolve(text, allow).map_err(|reason| (path.to_owned(), reason));
    let url = at("http.url", &http.url)?;
    let bearer = match http.bearer_token.as_str() {
        "" => None,
        token => Some(at("http.bearer_token", token)?),
    };
    let headers = http
        .headers
        .iter()
        .map(|(name, value)| Ok((name.clone(), at(&format!("http.headers[{name:?}]"), value)?)))
        .collect::<Result<_, At>>()?;
    Ok(Resolved::Http {
        url,
        headers,
        bearer,
    })
}

fn resolve_stdio(stdio: &v1::StdioBackend, allow: Allow) -> Result<Resolved, At> {
    let at =
        |path: &str, text: &str| resolve(text, allow).map_err(|reason| (path.to_owned(), reason));
    let args = stdio.args.iter().enumerate();
    let args = args
        .map(|(n, arg)| at(&format!("stdio.args[{n}]"), arg))
        .collect::<Result<_, At>>()?;
    let env = stdio.env.iter();
    let env = env
        .map(|(name, value)| Ok((name.clone(), at(&format!("stdio.env[{name:?}]"), value)?)))
        .collect::<Result<_, At>>()?;
    let cwd = match stdio.cwd.as_str() {
        "" => None,
        cwd => Some(at("stdio.cwd", cwd)?),
    };
    Ok(Resolved::Stdio {
        command: at("stdio.command", &stdio.command)?,
        args,
        env,
        cwd,
    })
}

/// Hash of what matters at run time: labels do not, resolved values do.
fn fingerprint(backend: &v1::Backend, resolved: &Resolved) -> Hash {
    let mut runtime = backend.clone();
    runtime.labels.clear();
    let mut bytes = runtime.encode_to_vec();
    let mut add = |text: &str| {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    match resolved {
        Resolved::Http {
            url,
            headers,
            bearer,
        } => {
            add(url);
            headers.iter().for_each(|(_, value)| add(value));
            add(bearer.as_deref().unwrap_or_default());
        }
        Resolved::Stdio {
            command,
            args,
            env,
            cwd,
        } => {
            add(command);
            args.iter().chain(env.values()).for_each(|text| add(text));
            add(cwd.as_deref().unwrap_or_default());
        }
        Resolved::Broken { reason, .. } => add(reason),
    }
    Hash::of(&bytes)
}

/// Opens an HTTP backend whose texts are resolved; they may not fit only now.
fn http(
    node: &Node,
    key: &Key,
    serial: u64,
    url: &str,
    own: Vec<(String, String)>,
    bearer: Option<String>,
) -> Result<Http, (&'static str, String)> {
    let wrong_url = |what: &str| {
        (
            "http.url",
            format!("{what} once its references are resolved"),
        )
    };
    let url: Uri = url.parse().map_err(|_| wrong_url("it is not a URL"))?;
    let host = url
        .host()
        .ok_or_else(|| wrong_url("it has no host"))?
        .trim_matches(['[', ']'])
        .to_owned();
    let secure = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong_url("it is neither http nor https")),
    };
    let tls = secure
        .then(|| tls::to(&host))
        .transpose()
        .map_err(|reason| ("http.url", reason))?;
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let mut sent = HeaderMap::new();
    for (name, value) in own {
        let wrong = || {
            (
                "http.headers",
                format!("{name} cannot be sent as a header once its references are resolved"),
            )
        };
        let header: HeaderName = name.parse().map_err(|_| wrong())?;
        sent.insert(header, secret(&value).ok_or_else(wrong)?);
    }
    if let Some(token) = bearer {
        let wrong = || {
            (
                "http.bearer_token",
                "the token cannot be sent as a header".to_owned(),
            )
        };
        sent.insert(
            header::AUTHORIZATION,
            secret(&format!("Bearer {token}")).ok_or_else(wrong)?,
        );
    }
    Http::new(HttpConfig {
        name: key.name.clone(),
        serial,
        origin: Origin { host, port, tls },
        url,
        headers: headers::base(sent),
        workers: node.workers,
    })
    .map_err(|e| ("http.url", e.to_string()))
}

fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
