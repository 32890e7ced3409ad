//! A message as it came, and the answers that are the same for all servers.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};

use super::{Era, Served};
use crate::client::MODERN;

/// A request, or a notification. Texts are as the sender wrote them.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// The text of its id; empty for a notification.
    pub id: String,
    /// The tool that is called.
    pub name: String,
    /// The text of its arguments.
    pub arguments: String,
    /// The text of its progress token; empty where there is none.
    pub token: String,
}

type Object<'a> = BTreeMap<String, &'a RawValue>;

fn object(text: &str) -> Option<Object<'_>> {
    serde_json::from_str(text).ok()
}

impl Asked {
    pub(super) fn read(body: &Bytes) -> Option<Self> {
        let message = object(std::str::from_utf8(body).ok()?)?;
        let text = |object: &Object<'_>, key: &str| {
            let value = object.get(key).map(|value| value.get());
            value.unwrap_or_default().to_owned()
        };
        let string = |object: &Object<'_>, key: &str| {
            let value = object
                .get(key)
                .and_then(|value| serde_json::from_str(value.get()).ok());
            value.unwrap_or_default()
        };
        let within = |object: &Object<'_>, key: &str| text(object, key);
        let params = within(&message, "params");
        let params = object(&params).unwrap_or_default();
        let meta = within(&params, "_meta");
        let meta = object(&meta).unwrap_or_default();
        Some(Self {
            method: string(&message, "method"),
            id: text(&message, "id"),
            name: string(&params, "name"),
            arguments: text(&params, "arguments"),
            token: text(&meta, "progressToken"),
        })
    }

    /// The response whose member `kind` (`result` or `error`) is this text, in one line.
    #[must_use]
    pub fn answer(&self, kind: &str, text: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{},"{kind}":{text}}}"#, self.id)
    }

    /// Whether it offers what a server of this era does not speak.
    pub(super) fn is_refused(&self, era: Era) -> bool {
        match era {
            Era::Legacy => self.method == "server/discover",
            Era::Modern => self.method == "initialize",
        }
    }
}

/// The answer to what does not differ between servers; `None`: it is the script's.
pub(super) fn greeting(served: &Served, asked: &Asked) -> Option<String> {
    let Served {
        transport,
        era,
        tools,
        ..
    } = served;
    let capabilities = json!({"tools": {}, "resources": {}});
    let modern = *era == Era::Modern;
    let mut result = match asked.method.as_str() {
        "tools/call" | "resources/read" => return None,
        "initialize" if !modern => json!({
            "protocolVersion": "2025-11-25", "capabilities": capabilities,
            "serverInfo": {"name": "raw", "version": "0"},
        }),
        "server/discover" if modern => {
            json!({"supportedVersions": [MODERN], "capabilities": capabilities})
        }
        "tools/list" => {
            let tool = |name: &&str| json!({"name": name, "inputSchema": {"type": "object"}});
            json!({"tools": tools.iter().map(tool).collect::<Vec<_>>()})
        }
        "resources/list" => {
            let uri = format!("raw://{transport:?}/{era:?}");
            json!({"resources": [{"uri": uri, "name": "one"}]})
        }
        "resources/templates/list" => json!({"resourceTemplates": []}),
        "ping" => json!({}),
        _ => return Some(refusal(modern, asked)),
    };
    if modern {
        result["resultType"] = json!("complete");
        result["ttlMs"] = json!(0);
        result["cacheScope"] = json!("private");
    }
    Some(asked.answer("result", &result.to_string()))
}

fn refusal(modern: bool, asked: &Asked) -> String {
    let error: Value = if modern && asked.method == "initialize" {
        let data = json!({"supported": [MODERN], "requested": "2025-11-25"});
        json!({"code": -32022, "message": "Unsupported protocol version", "data": data})
    } else {
        json!({"code": -32601, "message": "Method not found"})
    };
    asked.answer("error", &error.to_string())
}
