//! JSON-RPC as `mcpctl` writes and reads it. Arguments and results stay source
//! text (`RawValue`), so numbers are shown as the server wrote them.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

/// Members of `params`.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Params(BTreeMap<&'static str, Box<RawValue>>);

impl Params {
    /// Adds a member.
    pub(crate) fn with(mut self, key: &'static str, value: &(impl Serialize + ?Sized)) -> Self {
        self.0.insert(
            key,
            to_raw_value(value).expect("JSON values and strings serialise"),
        );
        self
    }

    /// The text of a member that is a JSON string.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.0.get(key)?.get()).ok()
    }

    /// The source text of a member.
    pub(crate) fn raw(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|v| v.get())
    }
}

/// A request or, without `id`, a notification.
#[derive(Serialize)]
pub(crate) struct Outgoing<'a> {
    pub(crate) jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<u64>,
    pub(crate) method: &'a str,
    pub(crate) params: &'a Params,
}

/// Any message of the server.
#[derive(Deserialize)]
pub(crate) struct Incoming<'a> {
    #[serde(borrow, default)]
    pub(crate) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) result: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) error: Option<RpcError>,
}

/// A JSON-RPC error, as the server sent it.
#[derive(Debug, Deserialize)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) data: Option<Box<RawValue>>,
}

/// A text as a header value, in the Base64 form where plain ASCII would not do
/// (2026-07-28, Streamable HTTP, "Value Encoding").
pub(crate) fn header_value(text: &str) -> String {
    let safe = |b: u8| (b' '..=b'~').contains(&b) || b == b'\t';
    let padded = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    if text.bytes().all(safe) && !padded && !looks_encoded {
        return text.to_owned();
    }
    format!("=?base64?{}?=", BASE64_STANDARD.encode(text))
}

/// The `Mcp-Param-*` headers of a call: arguments whose property in the input
/// schema carries `x-mcp-header` (2026-07-28, "Custom Headers from Tool Parameters").
pub(crate) fn param_headers(schema: &Value, arguments: &Value) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    collect(schema, arguments, &mut headers);
    headers
}

/// Only chains of `properties` count.
fn collect(schema: &Value, value: &Value, headers: &mut Vec<(String, String)>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    for (name, property) in properties {
        let Some(value) = value.get(name) else {
            continue;
        };
        if let Some(header) = property.get("x-mcp-header").and_then(Value::as_str) {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => continue,
            };
            headers.push((format!("Mcp-Param-{header}"), header_value(&text)));
        }
        collect(property, value, headers);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn header_values_follow_the_examples_of_the_specification() {
        assert_eq!(header_value("us-west1"), "us-west1");
        assert_eq!(
            header_value("Hello, 世界"),
            "=?base64?SGVsbG8sIOS4lueVjA==?="
        );
        assert_eq!(header_value(" padded "), "=?base64?IHBhZGRlZCA=?=");
        assert_eq!(header_value("line1\nline2"), "=?base64?bGluZTEKbGluZTI=?=");
        assert_eq!(
            header_value("=?base64?literal?="),
            "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="
        );
    }

    #[test]
    fn annotated_arguments_become_headers_at_any_depth_of_properties() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "where": {"properties": {"row": {"type": "integer", "x-mcp-header": "Row"}}},
            "gone": {"x-mcp-header": "Gone"}, "null": {"x-mcp-header": "Null"},
            "list": {"items": {"x-mcp-header": "Item"}},
        }});
        let arguments = json!({"region": "us", "where": {"row": 7}, "null": null, "list": ["x"]});
        let mut headers = param_headers(&schema, &arguments);
        headers.sort();
        let expected = [("Mcp-Param-Region", "us"), ("Mcp-Param-Row", "7")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(headers, expected);
    }

    #[test]
    fn arguments_keep_their_numbers() {
        let raw = RawValue::from_string(r#"{"x":1.10}"#.to_owned()).unwrap();
        let params = Params::default().with("name", "t").with("arguments", &raw);
        let request = Outgoing {
            jsonrpc: "2.0",
            id: Some(1),
            method: "tools/call",
            params: &params,
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"x":1.10},"name":"t"}}"#
        );
    }
}
