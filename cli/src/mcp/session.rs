//! [`Client`]: requests and their answers, one at a time.

mod exchange;

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use reqwest::{
    Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json, value::RawValue};

use super::{McpError, Params, Protocol, Target, wire};

/// More pages than this is a server that never ends its list.
const MAX_PAGES: usize = 10_000;
/// `HeaderMismatch` of 2026-07-28.
const HEADER_MISMATCH: i64 = -32_020;

pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// A client of one gateway.
pub(crate) struct Client {
    http: reqwest::Client,
    target: Target,
    /// Sent with every request.
    headers: HeaderMap,
    next_id: u64,
}

impl Client {
    /// Connects, and opens a session where the revision has them.
    ///
    /// # Errors
    /// The gateway cannot be reached, refuses, or is not an MCP server.
    pub(crate) async fn connect(target: &Target) -> Result<Self, McpError> {
        let (http, headers) = connection(target)?;
        let mut client = Self {
            http,
            target: target.clone(),
            headers,
            next_id: 1,
        };
        if target.protocol.has_sessions() {
            client.initialize().await?;
        } else {
            client.headers.insert(
                PROTOCOL_VERSION,
                HeaderValue::from_static(target.protocol.as_str()),
            );
        }
        Ok(client)
    }

    async fn initialize(&mut self) -> Result<(), McpError> {
        let params = Params::default()
            .with("protocolVersion", self.target.protocol.as_str())
            .with("capabilities", &json!({}))
            .with("clientInfo", &client_info());
        let (result, headers) = self
            .exchange("initialize", &params, HeaderMap::new())
            .await?;
        let result: Value = serde_json::from_str(result.get()).map_err(|e| self.garbled(&e))?;
        let version = super::text(&result, "protocolVersion");
        let Some(version) = Protocol::negotiated(version) else {
            return Err(self.garbled(&format_args!("it speaks protocol {version:?}")));
        };
        if version > Protocol::V20250326 {
            self.headers
                .insert(PROTOCOL_VERSION, HeaderValue::from_static(version.as_str()));
        }
        if let Some(id) = headers.get(SESSION_ID) {
            self.headers.insert(SESSION_ID, id.clone());
        }
        let accepted = self
            .send(
                None,
                "notifications/initialized",
                &Params::default(),
                HeaderMap::new(),
            )
            .await?;
        if accepted.status().is_success() {
            return Ok(());
        }
        Err(self.garbled(&format_args!(
            "notifications/initialized is answered with {}",
            accepted.status()
        )))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The answer is an error, or there is none.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        params: Params,
    ) -> Result<Box<RawValue>, McpError> {
        let mut params = params;
        let mut headers = HeaderMap::new();
        let id = self.next_id;
        if self.target.protocol.has_sessions() {
            if method == "tools/call" {
                params = params.with("_meta", &json!({ "progressToken": id }));
            }
        } else {
            params = params.with("_meta", &stateless_meta(method, id));
            headers = standard_headers(method, &params);
        }
        match self.exchange(method, &params, headers.clone()).await {
            Err(McpError::Rpc(error))
                if error.code == HEADER_MISMATCH && method == "tools/call" =>
            {
                // A parameter may have to be in a header as well: the list says which.
                let extra = Box::pin(self.parameter_headers(&params)).await?;
                if extra.is_empty() {
                    return Err(McpError::Rpc(error));
                }
                headers.extend(extra);
                Ok(self.exchange(method, &params, headers).await?.0)
            }
            answer => Ok(answer?.0),
        }
    }

    /// Everything a list method has, over all pages.
    ///
    /// # Errors
    /// A page fails, or the pages never end.
    pub(crate) async fn list(
        &mut self,
        method: &str,
        member: &str,
    ) -> Result<Vec<Box<RawValue>>, McpError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        let mut seen = HashSet::new();
        for _ in 0..MAX_PAGES {
            let params = match &cursor {
                Some(cursor) => Params::default().with("cursor", cursor),
                None => Params::default(),
            };
            let result = self.request(method, params).await?;
            let page: BTreeMap<String, &RawValue> =
                serde_json::from_str(result.get()).map_err(|e| self.garbled(&e))?;
            let list = page
                .get(member)
                .ok_or_else(|| self.garbled(&format_args!("{method} without {member}")))?;
            let list: Vec<Box<RawValue>> =
                serde_json::from_str(list.get()).map_err(|e| self.garbled(&e))?;
            items.extend(list);
            cursor = match page.get("nextCursor") {
                Some(raw) => serde_json::from_str(raw.get()).map_err(|e| self.garbled(&e))?,
                None => None,
            };
            match &cursor {
                None => return Ok(items),
                Some(next) if !seen.insert(next.clone()) => {
                    return Err(
                        self.garbled(&format_args!("{method} gives the cursor {next:?} twice"))
                    );
                }
                Some(_) => {}
            }
        }
        Err(self.garbled(&format_args!("{method} has more than {MAX_PAGES} pages")))
    }

    /// Ends the session. It would end by itself, so nothing is reported.
    pub(crate) async fn close(self) {
        if self.headers.contains_key(SESSION_ID) {
            let request = self.http.delete(&self.target.url).headers(self.headers);
            let _ = tokio::time::timeout(Duration::from_secs(2), request.send()).await;
        }
    }

    async fn parameter_headers(&mut self, params: &Params) -> Result<HeaderMap, McpError> {
        let name = params.text("name");
        let tools = self.list("tools/list", "tools").await?;
        let schema = tools
            .iter()
            .filter_map(|tool| serde_json::from_str::<Value>(tool.get()).ok())
            .find(|tool| tool.get("name").and_then(Value::as_str) == name.as_deref())
            .and_then(|mut tool| tool.get_mut("inputSchema").map(Value::take));
        let arguments = params
            .raw("arguments")
            .and_then(|raw| serde_json::from_str(raw).ok());
        let (Some(schema), Some(arguments)) = (schema, arguments) else {
            return Ok(HeaderMap::new());
        };
        let pairs = wire::param_headers(&schema, &arguments);
        Ok(pairs
            .into_iter()
            .filter_map(|(name, value)| {
                Some((
                    HeaderName::try_from(name).ok()?,
                    HeaderValue::try_from(value).ok()?,
                ))
            })
            .collect())
    }
}

/// What sends requests to a gateway, and the headers that all of them have.
///
/// # Errors
/// The address or the token cannot be used.
pub(super) fn connection(target: &Target) -> Result<(reqwest::Client, HeaderMap), McpError> {
    let garbled = |why: String| McpError::Garbled {
        url: target.url.clone(),
        why,
    };
    let url = Url::parse(&target.url).map_err(|e| garbled(format!("not a URL: {e}")))?;
    let mut builder = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        // The token is for this address and no other.
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(&url) {
        builder = builder.no_proxy();
    }
    let http = builder.build().map_err(|e| garbled(chain(&e)))?;
    let mut headers = HeaderMap::new();
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(token) = &target.token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
            garbled("the token holds characters that no header can carry".to_owned())
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok((http, headers))
}

fn client_info() -> Value {
    json!({ "name": "mcpctl", "version": env!("CARGO_PKG_VERSION") })
}

/// `_meta` of a 2026-07-28 request.
fn stateless_meta(method: &str, id: u64) -> Value {
    let mut meta = json!({
        "io.modelcontextprotocol/protocolVersion": Protocol::V20260728.as_str(),
        "io.modelcontextprotocol/clientInfo": client_info(),
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    if method == "tools/call" {
        meta["progressToken"] = id.into();
    }
    meta
}

/// `Mcp-Method` and `Mcp-Name` of a 2026-07-28 request.
fn standard_headers(method: &str, params: &Params) -> HeaderMap {
    let name = match method {
        "tools/call" | "prompts/get" => params.text("name"),
        "resources/read" => params.text("uri"),
        _ => None,
    };
    let pairs = [
        ("mcp-method", Some(method.to_owned())),
        ("mcp-name", name.map(|n| wire::header_value(&n))),
    ];
    pairs
        .into_iter()
        .filter_map(|(key, value)| {
            Some((
                HeaderName::from_static(key),
                HeaderValue::try_from(value?).ok()?,
            ))
        })
        .collect()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|a| a.is_loopback())
}

/// An error with all its causes: the outer ones say little.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
