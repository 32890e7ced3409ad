//! [`Line`]: a message of the client, as far as HTTP wants to know it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    /// All of it.
    pub(super) text: Vec<u8>,
    /// Source text of its id, or empty.
    pub(super) id: String,
    /// Empty: an answer, or a batch.
    pub(super) method: String,
    /// The revision that the message itself names: it stands alone (2026-07-28).
    pub(super) version: Option<String>,
    params: Option<Value>,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

impl Line {
    /// Reads one. What is no message but JSON is for the gateway to refuse.
    pub(super) fn read(text: &[u8]) -> serde_json::Result<Self> {
        if text.starts_with(b"[") {
            serde_json::from_slice::<&RawValue>(text)?;
            return Ok(Self::of(text, None, "", None));
        }
        let read: Read<'_> = serde_json::from_slice(text)?;
        let method = read.method.unwrap_or_default();
        let params = read.params.map(|params| params.get());
        Ok(Self::of(text, read.id.map(RawValue::get), &method, params))
    }

    fn of(text: &[u8], id: Option<&str>, method: &str, params: Option<&str>) -> Self {
        let params: Option<Value> = params.and_then(|params| serde_json::from_str(params).ok());
        let version = params.as_ref().and_then(|params| {
            let meta = params.get("_meta")?;
            meta.get("io.modelcontextprotocol/protocolVersion")?
                .as_str()
                .map(str::to_owned)
        });
        Self {
            text: text.to_vec(),
            id: id.unwrap_or_default().to_owned(),
            method: method.to_owned(),
            version,
            params,
        }
    }

    /// Whether it is to be answered; a batch may be.
    pub(super) fn is_request(&self) -> bool {
        (!self.id.is_empty() && !self.method.is_empty()) || self.text.starts_with(b"[")
    }

    /// For messages to the user.
    pub(super) fn what(&self) -> &str {
        match self.method.as_str() {
            "" => "an answer",
            method => method,
        }
    }

    /// The value of `Mcp-Name` (2026-07-28, Streamable HTTP: Standard Request Headers).
    pub(super) fn name(&self) -> Option<String> {
        let member = match self.method.as_str() {
            "tools/call" | "prompts/get" => "name",
            "resources/read" => "uri",
            _ => return None,
        };
        Some(self.params.as_ref()?.get(member)?.as_str()?.to_owned())
    }

    /// The arguments of a call.
    pub(super) fn arguments(&self) -> Option<Value> {
        self.params.as_ref()?.get("arguments").cloned()
    }

    /// Source text of the id of the request that this cancels.
    pub(super) fn cancels(&self) -> Option<String> {
        Some(self.params.as_ref()?.get("requestId")?.to_string())
    }
}
