//! One backend's transport: references resolved, then opened.

use std::path::{Path, PathBuf};

use fleet_proto::{
    hash::Hash,
    key::Key,
    v1::{self, backend::Transport},
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use prost::Message;

use crate::{
    node::Node,
    resolve::Resolver,
    secrets::Secrets,
    settings::Settings,
    upstream::{
        http::{Http, HttpConfig, headers},
        pool::Origin,
        stdio::StdioConfig,
        tls,
    },
};

/// A backend's transport with everything resolved.
pub(super) enum Resolved {
    Http {
        url: String,
        headers: Vec<(String, String)>,
        bearer: Option<String>,
    },
    Stdio(StdioConfig),
    Broken {
        path: String,
        reason: String,
    },
}

/// Resolves every text of a backend's transport.
pub(super) fn resolve_transport(
    backend: &v1::Backend,
    settings: &Settings,
    secrets: &Secrets,
) -> Resolved {
    let allow = settings.allow;
    let mut resolver = Resolver::new(allow, secrets, &backend.project);
    let resolved = match &backend.transport {
        Some(Transport::Http(http)) => resolve_http(http, &mut resolver),
        Some(Transport::Stdio(_)) if !allow.stdio => Err((
            "stdio".to_owned(),
            "stdio backends are not allowed on this node: start it with --allow stdio".to_owned(),
        )),
        Some(Transport::Stdio(stdio)) => {
            resolve_stdio(&backend.name, stdio, settings, &mut resolver)
        }
        None => Err((String::new(), "the backend has no transport".to_owned())),
    };
    resolved.unwrap_or_else(|(path, reason)| Resolved::Broken { path, reason })
}

type At = (String, String);

fn resolve_http(http: &v1::HttpBackend, resolver: &mut Resolver<'_>) -> Result<Resolved, At> {
    let mut at = |path: &str, text: &str| {
        let resolved = resolver.resolve(text);
        resolved.map_err(|reason| (path.to_owned(), reason))
    };
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

fn resolve_stdio(
    name: &str,
    stdio: &v1::StdioBackend,
    settings: &Settings,
    resolver: &mut Resolver<'_>,
) -> Result<Resolved, At> {
    let mut at = |path: &str, text: &str| {
        let resolved = resolver.resolve(text);
        resolved.map_err(|reason| (path.to_owned(), reason))
    };
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
        cwd => Some(PathBuf::from(at("stdio.cwd", cwd)?)),
    };
    let command = at("stdio.command", &stdio.command)?;
    Ok(Resolved::Stdio(StdioConfig {
        name: name.to_owned(),
        command,
        args,
        env,
        cwd,
        guard: settings.guard.clone(),
        extra_path: settings.extra_path.clone(),
        hidden: std::mem::take(&mut resolver.resolved),
    }))
}

/// Hash of the fields that matter at run time, as they are written: labels do not.
pub(super) fn runtime(backend: &v1::Backend) -> Hash {
    let mut runtime = backend.clone();
    runtime.labels.clear();
    Hash::of(&runtime.encode_to_vec())
}

/// Hash of what a transport is made of, resolved values included: everything but the limits
/// of calls.
pub(super) fn fingerprint(backend: &v1::Backend, resolved: &Resolved) -> Hash {
    let mut transport = backend.clone();
    transport.labels.clear();
    transport.timeout = None;
    transport.max_duration = None;
    let mut bytes = transport.encode_to_vec();
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
        Resolved::Stdio(config) => {
            add(&config.command);
            config
                .args
                .iter()
                .chain(config.env.values())
                .for_each(|text| add(text));
            add(&config
                .cwd
                .as_deref()
                .unwrap_or(Path::new(""))
                .to_string_lossy());
        }
        Resolved::Broken { reason, .. } => add(reason),
    }
    Hash::of(&bytes)
}

/// Opens an HTTP backend whose texts are resolved; they may not fit only now.
pub(super) fn http(
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
