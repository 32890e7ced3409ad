//! Backends that are reached over HTTP, with TCP or a Unix socket below it, or a WebSocket above.

use std::{collections::BTreeMap, iter};

use fleet_proto::{key::Key, v1};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use super::At;
use crate::{
    node::Node,
    resolve::Resolver,
    upstream::{
        address::{Address, Socket},
        duplex::Place,
        http::{Http, HttpConfig, headers},
        pool::Origin,
        sse::SseConfig,
        tls::{self, Offer},
        websocket::{KEEP_ALIVE, WebSocketConfig},
    },
};

/// Where the MCP endpoint is at a Unix socket that does not say.
const DEFAULT_URL_PATH: &str = "/mcp";

/// Address and what is sent there, as configuration has it.
pub(super) struct Written<'a> {
    /// The field of the backend that it is in.
    of: &'static str,
    url: String,
    headers: &'a BTreeMap<String, String>,
    bearer: &'a str,
}

/// The same with all references resolved.
pub(in crate::table) struct Remote {
    of: &'static str,
    url: String,
    headers: Vec<(String, String)>,
    bearer: Option<String>,
}

impl<'a> Written<'a> {
    pub(super) fn of_http(http: &'a v1::HttpBackend) -> Self {
        Self {
            of: "http",
            url: http.url.clone(),
            headers: &http.headers,
            bearer: &http.bearer_token,
        }
    }

    pub(super) fn of_sse(sse: &'a v1::SseBackend) -> Self {
        Self {
            of: "sse",
            url: sse.url.clone(),
            headers: &sse.headers,
            bearer: &sse.bearer_token,
        }
    }

    pub(super) fn of_websocket(websocket: &'a v1::WebSocketBackend) -> Self {
        Self {
            of: "websocket",
            url: websocket.url.clone(),
            headers: &websocket.headers,
            bearer: &websocket.bearer_token,
        }
    }

    pub(super) fn of_unix(unix: &'a v1::UnixBackend) -> Self {
        let path = match unix.url_path.as_str() {
            "" => DEFAULT_URL_PATH,
            some => some,
        };
        Self {
            of: "unix",
            // No reference can be in a path that has been validated, but a `$`.
            url: format!("http://localhost{}", path.replace('$', "$$")),
            headers: &unix.headers,
            bearer: &unix.bearer_token,
        }
    }

    /// Resolves every text.
    pub(super) fn resolve(&self, resolver: &mut Resolver<'_>) -> Result<Remote, At> {
        let mut at = |path: &str, text: &str| {
            let resolved = resolver.resolve(text);
            resolved.map_err(|reason| (format!("{}.{path}", self.of), reason))
        };
        let url = at("url", &self.url)?;
        let bearer = match self.bearer {
            "" => None,
            token => Some(at("bearer_token", token)?),
        };
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), at(&format!("headers[{name:?}]"), value)?)))
            .collect::<Result<_, At>>()?;
        Ok(Remote {
            of: self.of,
            url,
            headers,
            bearer,
        })
    }
}

impl Remote {
    /// The texts that matter at run time.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let values = self.headers.iter().map(|(_, value)| value.as_str());
        let bearer = self.bearer.as_deref().unwrap_or_default();
        iter::once(self.url.as_str()).chain(values).chain([bearer])
    }

    fn at(&self, path: &str, what: String) -> At {
        (format!("{}.{path}", self.of), what)
    }

    /// Where it is; `plain` and `secure` are the schemes that it may have.
    fn place(&self, plain: &str, secure: &str, offer: Offer) -> Result<(Uri, Place), At> {
        let wrong = |what: &str| self.at("url", format!("{what} once its references are resolved"));
        let url: Uri = self.url.parse().map_err(|_| wrong("it is not a URL"))?;
        let host = url.host().ok_or_else(|| wrong("it has no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let is_secure = match url.scheme_str() {
            Some(scheme) if scheme == plain => false,
            Some(scheme) if scheme == secure => true,
            _ => return Err(wrong(&format!("it is neither {plain} nor {secure}"))),
        };
        let tls = is_secure
            .then(|| tls::to(&host, offer))
            .transpose()
            .map_err(|reason| self.at("url", reason))?;
        let port = url.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        Ok((url, Place { host, port, tls }))
    }

    /// The headers that it is sent.
    fn headers(&self) -> Result<HeaderMap, At> {
        let mut sent = HeaderMap::new();
        for (name, value) in &self.headers {
            let what =
                || format!("{name} cannot be sent as a header once its references are resolved");
            let wrong = || self.at("headers", what());
            let header: HeaderName = name.parse().map_err(|_| wrong())?;
            sent.insert(header, secret(value).ok_or_else(wrong)?);
        }
        if let Some(token) = &self.bearer {
            let value = secret(&format!("Bearer {token}")).ok_or_else(|| {
                let what = "the token cannot be sent as a header";
                self.at("bearer_token", what.to_owned())
            })?;
            sent.insert(header::AUTHORIZATION, value);
        }
        Ok(sent)
    }

    fn http(
        &self,
        node: &Node,
        key: &Key,
        serial: u64,
        origin: Origin,
        url: Uri,
    ) -> Result<Http, At> {
        Http::new(HttpConfig {
            name: key.name.clone(),
            serial,
            origin,
            url,
            headers: headers::base(self.headers()?),
            workers: node.workers,
        })
        .map_err(|e| self.at("url", e.to_string()))
    }
}

/// Opens a backend over TCP. Its texts may turn out not to fit only now.
pub(in crate::table) fn http(
    node: &Node,
    key: &Key,
    serial: u64,
    remote: Remote,
) -> Result<Http, At> {
    let (url, Place { host, port, tls }) = remote.place("http", "https", Offer::Both)?;
    let address = Address::Tcp { host, port };
    remote.http(node, key, serial, Origin { address, tls }, url)
}

/// Opens a backend on a Unix socket.
pub(in crate::table) fn unix(
    node: &Node,
    key: &Key,
    serial: u64,
    socket: Socket,
    remote: Remote,
) -> Result<Http, At> {
    let (url, _) = remote.place("http", "https", Offer::Both)?;
    let address = Address::Unix(socket);
    remote.http(node, key, serial, Origin { address, tls: None }, url)
}

/// How a backend over a WebSocket is opened. `hidden`: what its references stood for.
pub(in crate::table) fn websocket(
    key: &Key,
    remote: Remote,
    hidden: Vec<String>,
) -> Result<WebSocketConfig, At> {
    let (url, place) = remote.place("ws", "wss", Offer::Http1)?;
    Ok(WebSocketConfig {
        name: key.name.clone(),
        url,
        place,
        headers: remote.headers()?,
        hidden,
        keep_alive: KEEP_ALIVE,
    })
}

/// How a backend over HTTP+SSE is opened. `hidden`: what its references stood for.
pub(in crate::table) fn sse(
    key: &Key,
    remote: Remote,
    hidden: Vec<String>,
) -> Result<SseConfig, At> {
    let (url, place) = remote.place("http", "https", Offer::Http1)?;
    Ok(SseConfig {
        name: key.name.clone(),
        url,
        place,
        headers: remote.headers()?,
        hidden,
    })
}

fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
