//! One backend's transport: references resolved, then opened.

mod remote;

use std::path::{Path, PathBuf};

use fleet_proto::{
    hash::Hash,
    v1::{self, backend::Transport},
};
use prost::Message;

use crate::{
    resolve::Resolver,
    secrets::Secrets,
    settings::Settings,
    upstream::{address::Socket, stdio::StdioConfig},
};
use remote::{Remote, Written};

pub(super) use remote::{http, sse, unix, websocket};

/// A backend's transport with everything resolved.
pub(super) enum Resolved {
    Http(Remote),
    Unix(Socket, Remote),
    Stdio(StdioConfig),
    /// And what must not be shown where the server writes it.
    Websocket(Remote, Vec<String>),
    /// The same.
    Sse(Remote, Vec<String>),
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
    let allow = &settings.allow;
    let mut resolver = Resolver::new(allow, secrets, &backend.project);
    let resolved = match &backend.transport {
        Some(Transport::Http(http)) => Written::of_http(http)
            .resolve(&mut resolver)
            .map(Resolved::Http),
        Some(Transport::Unix(unix)) => resolve_unix(unix, settings, &mut resolver),
        Some(Transport::Sse(sse)) => Written::of_sse(sse)
            .resolve(&mut resolver)
            .map(|remote| Resolved::Sse(remote, std::mem::take(&mut resolver.resolved))),
        Some(Transport::Websocket(websocket)) => Written::of_websocket(websocket)
            .resolve(&mut resolver)
            .map(|remote| Resolved::Websocket(remote, std::mem::take(&mut resolver.resolved))),
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

fn resolve_unix(
    unix: &v1::UnixBackend,
    settings: &Settings,
    resolver: &mut Resolver<'_>,
) -> Result<Resolved, At> {
    let at = |reason| ("unix.path".to_owned(), reason);
    let path = PathBuf::from(resolver.resolve(&unix.path).map_err(at)?);
    if !path.is_absolute() {
        let what = "it is not an absolute path once its references are resolved";
        return Err(at(what.to_owned()));
    }
    let allowed = settings.allow.file.clone();
    // Whatever a socket gives, it is given to who writes configuration.
    allowed.allow(&path).map_err(at)?;
    let remote = Written::of_unix(unix).resolve(resolver)?;
    Ok(Resolved::Unix(Socket { path, allowed }, remote))
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
        Resolved::Http(remote) | Resolved::Websocket(remote, _) | Resolved::Sse(remote, _) => {
            remote.texts().for_each(add)
        }
        Resolved::Unix(socket, remote) => {
            add(&socket.path.to_string_lossy());
            remote.texts().for_each(add);
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
