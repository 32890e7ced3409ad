//! Parameters that HTTP headers mirror (2026-07-28, Streamable HTTP: Custom
//! Headers from Tool Parameters). Clients of that revision send the headers
//! themselves; for older ones the proxy does.

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::upstream::http::headers;

/// A parameter and the header that mirrors it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamHeader {
    /// Keys from the arguments down to the value.
    pub path: Vec<String>,
    /// `Mcp-Param-{Name}`.
    pub header: HeaderName,
}

/// Deepest nesting of annotated properties that is looked at.
const DEPTH: usize = 16;

/// The annotated parameters of a tool's `inputSchema`.
#[must_use]
pub fn of_schema(schema: &Value) -> Vec<ParamHeader> {
    let mut found = Vec::new();
    collect(schema, &mut Vec::new(), &mut found);
    found
}

fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<ParamHeader>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    if path.len() >= DEPTH {
        return;
    }
    for (key, property) in properties {
        path.push(key.clone());
        let name = property.get("x-mcp-header").and_then(Value::as_str);
        if let Some(header) = name.and_then(|n| format!("mcp-param-{n}").parse().ok()) {
            found.push(ParamHeader {
                path: path.clone(),
                header,
            });
        }
        collect(property, path, found);
        path.pop();
    }
}

/// The headers for these arguments, a JSON text.
#[must_use]
pub fn of_arguments(params: &[ParamHeader], arguments: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
    let Ok(arguments) = serde_json::from_slice::<Value>(arguments) else {
        return Vec::new();
    };
    params
        .iter()
        .filter_map(|param| {
            let value = param
                .path
                .iter()
                .try_fold(&arguments, |at, key| at.get(key))?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => return None,
            };
            Some((param.header.clone(), headers::encode(&text)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotated_parameters_become_headers() {
        let schema = serde_json::json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "nested": {"type": "object", "properties": {"on": {"type": "boolean", "x-mcp-header": "On"}}},
            "query": {"type": "string"}}});
        let params = of_schema(&schema);
        let headers = of_arguments(
            &params,
            br#"{"region":"us-west1","nested":{"on":true},"query":"x"}"#,
        );
        let mut shown: Vec<_> = headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
            .collect();
        shown.sort();
        assert_eq!(shown, ["mcp-param-on: true", "mcp-param-region: us-west1"]);
        assert!(of_arguments(&params, br#"{"region":null}"#).is_empty());
    }
}
