//! Parameters that HTTP headers mirror (2026-07-28, Streamable HTTP: Custom
//! Headers from Tool Parameters). Clients of that revision send the headers
//! themselves, and they are checked; for older ones the proxy makes them.

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

/// The annotated parameters of a tool's `inputSchema`; none where two of them share a
/// header, which makes the tool invalid to its clients.
#[must_use]
pub fn of_schema(schema: &Value) -> Vec<ParamHeader> {
    let mut found = Vec::new();
    collect(schema, &mut Vec::new(), &mut found);
    let mut headers: Vec<_> = found.iter().map(|param| param.header.as_str()).collect();
    headers.sort_unstable();
    if headers.windows(2).any(|pair| pair[0] == pair[1]) {
        return Vec::new();
    }
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
        let name = name.filter(|name| !name.is_empty() && is_primitive(property));
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

/// Whether a header can hold a property's values: fractions are written in too many ways.
fn is_primitive(property: &Value) -> bool {
    let other = |kind: &Value| matches!(kind.as_str(), Some("number" | "object" | "array"));
    match property.get("type") {
        Some(Value::Array(kinds)) => !kinds.iter().any(other),
        Some(kind) => !other(kind),
        None => true,
    }
}

/// Whether the headers that a client has sent say what these arguments (a JSON text) do.
///
/// # Errors
/// What differs.
pub fn check(
    params: &[ParamHeader],
    arguments: &[u8],
    sent: &[(HeaderName, HeaderValue)],
) -> Result<(), String> {
    let arguments = serde_json::from_slice::<Value>(arguments).unwrap_or(Value::Null);
    for param in params {
        let path = param.path.iter();
        let value = path.clone().try_fold(&arguments, |at, key| at.get(key));
        let value = value.filter(|value| !value.is_null());
        let mut headers = sent.iter().filter(|(name, _)| *name == param.header);
        let wrong = match (value, headers.next(), headers.next()) {
            (None, None, _) => continue,
            (Some(value), Some((_, header)), None) if says(header, value) => continue,
            (_, _, Some(_)) => "is there more than once",
            (Some(_), None, _) => "is missing",
            (Some(_), Some(_), None) => "does not match the value in the body",
            (None, Some(_), None) => "has no value in the body",
        };
        let path = path.map(String::as_str).collect::<Vec<_>>().join(".");
        let header = &param.header;
        return Err(format!(
            "Header mismatch: header {header}, which mirrors params.arguments.{path}, {wrong}"
        ));
    }
    Ok(())
}

/// Numbers are compared as such (2026-07-28, Streamable HTTP: Server Validation).
fn says(header: &HeaderValue, value: &Value) -> bool {
    let Some(text) = headers::decode(header) else {
        return false;
    };
    match value {
        Value::String(value) => *value == *text,
        Value::Bool(value) => *text == *value.to_string(),
        Value::Number(value) => {
            *text == *value.to_string()
                || text
                    .parse::<f64>()
                    .is_ok_and(|text| Some(text) == value.as_f64())
        }
        _ => false,
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

    #[test]
    fn headers_that_say_something_else_than_the_arguments_are_named() {
        let schema = serde_json::json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "count": {"type": "integer", "x-mcp-header": "Count"},
            "deep": {"type": "object", "properties": {
                "on": {"type": ["boolean", "null"], "x-mcp-header": "On"}}}}});
        let params = of_schema(&schema);
        let check = |arguments: &str, sent: &[(&str, &str)]| {
            let sent: Vec<_> = sent
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
                .collect();
            check(&params, arguments.as_bytes(), &sent)
        };
        let (region, count, on) = ("mcp-param-region", "mcp-param-count", "mcp-param-on");
        let all = r#"{"region":"\u00e9","count":42,"deep":{"on":true}}"#;
        assert!(
            check(
                all,
                &[(region, "=?base64?w6k=?="), (count, "42.0"), (on, "true")]
            )
            .is_ok()
        );
        assert!(check(r#"{"count":null}"#, &[("mcp-param-unknown", "x")]).is_ok());
        assert!(check(r#"{"region":"r"}"#, &[(region, "r")]).is_ok());
        for (arguments, sent) in [
            (r#"{"region":"r"}"#, &[][..]),
            (r#"{"region":"r"}"#, &[(region, "R")]),
            (r#"{"region":"r"}"#, &[(region, "r"), (region, "r")]),
            (r#"{"region":"r"}"#, &[(region, "=?base64?!?=")]),
            (r#"{"region":null}"#, &[(region, "null")]),
            ("{}", &[(region, "")]),
            (r#"{"count":42}"#, &[(count, "43")]),
            (r#"{"deep":{"on":false}}"#, &[(on, "0")]),
            (r#"{"deep":{"on":{}}}"#, &[(on, "{}")]),
        ] {
            assert!(check(arguments, sent).is_err(), "{arguments} {sent:?}");
        }
    }

    #[test]
    fn annotations_that_make_a_tool_invalid_ask_for_nothing() {
        let of = |properties| of_schema(&serde_json::json!({"properties": properties}));
        for properties in [
            serde_json::json!({"a": {"x-mcp-header": "A", "type": "number"}}),
            serde_json::json!({"a": {"x-mcp-header": ""}}),
            serde_json::json!({"a": {"x-mcp-header": "b d"}}),
            serde_json::json!({"a": {"x-mcp-header": "A"}, "b": {"x-mcp-header": "a"}}),
            serde_json::json!({"a": {"items": {"properties": {"b": {"x-mcp-header": "B"}}}}}),
        ] {
            assert!(of(properties.clone()).is_empty(), "{properties}");
        }
    }
}
