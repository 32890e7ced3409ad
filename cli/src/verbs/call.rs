//! `mcpctl call`: one tool, through a gateway.

use std::{
    fs,
    io::{self, Read as _},
};

use clap::{Args, ValueEnum};
use serde_json::{Value, value::RawValue};

use crate::{
    args::GatewayFlags,
    failure::Failure,
    mcp::{Client, Params, text},
    output,
};

/// Flags of `call`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Name of the tool, as `mcpctl tools` shows it.
    tool: String,
    /// Its arguments: a JSON object, `@FILE` or `-` for stdin. Left out: none.
    #[arg(value_name = "JSON|@FILE|-")]
    arguments: Option<String>,
    /// How to show the result.
    #[arg(long, short, value_enum, default_value_t = Shown::Text)]
    output: Shown,
    #[command(flatten)]
    target: GatewayFlags,
}

/// How a result is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shown {
    /// Its texts; what is not text as JSON.
    Text,
    /// The whole result, as the server wrote it.
    Json,
}

/// Calls.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let arguments = arguments(flags.arguments.as_deref())?;
    let target = flags.target.resolve(None)?;
    let mut client = Client::connect(&target).await?;
    let params = Params::default()
        .with("name", &flags.tool)
        .with("arguments", &arguments);
    let result = client.request("tools/call", params).await;
    client.close().await;
    finish(&result?, flags.output)
}

/// Prints a result and says whether it is a success.
fn finish(result: &RawValue, shown: Shown) -> Result<(), Failure> {
    let outcome = outcome(result);
    let whole = shown == Shown::Json || matches!(outcome, Err(Failure::Other(_)));
    output::data(&if whole {
        result.get().to_owned()
    } else {
        texts(result)
    })?;
    if matches!(outcome, Err(Failure::Told)) {
        output::note("the tool answered with an error");
    }
    outcome
}

fn outcome(result: &RawValue) -> Result<(), Failure> {
    let value: Value = serde_json::from_str(result.get()).unwrap_or_default();
    if text(&value, "resultType") == "input_required" {
        return Err(Failure::other(
            "the tool asks for input, which mcpctl cannot give",
        ));
    }
    match value.get("isError") {
        Some(Value::Bool(true)) => Err(Failure::Told),
        _ => Ok(()),
    }
}

/// Text content as it is; other content, or a result without content, as JSON.
fn texts(result: &RawValue) -> String {
    #[derive(serde::Deserialize)]
    struct Parts<'a> {
        #[serde(borrow, default)]
        content: Vec<&'a RawValue>,
        #[serde(borrow, default, rename = "structuredContent")]
        structured: Option<&'a RawValue>,
    }
    let Ok(parts) = serde_json::from_str::<Parts<'_>>(result.get()) else {
        return result.get().to_owned();
    };
    if parts.content.is_empty() {
        return parts
            .structured
            .map_or_else(|| result.get().to_owned(), |s| s.get().to_owned());
    }
    let lines = parts.content.iter().map(|part| {
        let value: Value = serde_json::from_str(part.get()).unwrap_or_default();
        match (
            text(&value, "type"),
            value.get("text").and_then(Value::as_str),
        ) {
            ("text", Some(text)) => text.to_owned(),
            _ => part.get().to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn arguments(given: Option<&str>) -> Result<Box<RawValue>, Failure> {
    let cannot = |what: &str, e: &io::Error| {
        Failure::Usage(format!("cannot read the arguments from {what}: {e}"))
    };
    let text = match given {
        None => "{}".to_owned(),
        Some("-") => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| cannot("stdin", &e))?;
            text
        }
        Some(given) => match given.strip_prefix('@') {
            Some(file) => fs::read_to_string(file).map_err(|e| cannot(file, &e))?,
            None => given.to_owned(),
        },
    };
    let text = text.trim();
    if !text.starts_with('{') {
        return Err(Failure::Usage(
            "the arguments must be a JSON object, such as '{\"text\":\"hello\"}'".to_owned(),
        ));
    }
    RawValue::from_string(text.to_owned())
        .map_err(|e| Failure::Usage(format!("the arguments are not JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn texts_are_printed_and_the_rest_stays_json() {
        let result = raw(
            r#"{"content":[{"type":"text","text":"a\nb"},{"type":"image","data":"eA==","mimeType":"image/png"}]}"#,
        );
        assert_eq!(
            texts(&result),
            "a\nb\n{\"type\":\"image\",\"data\":\"eA==\",\"mimeType\":\"image/png\"}"
        );
        assert_eq!(
            texts(&raw(r#"{"content":[],"structuredContent":{"x":1.10}}"#)),
            r#"{"x":1.10}"#
        );
    }

    #[test]
    fn an_error_result_is_a_failure_with_exit_code_1() {
        let error = outcome(&raw(r#"{"content":[],"isError":true}"#)).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(outcome(&raw(r#"{"content":[],"isError":false}"#)).is_ok());
        let asks = outcome(&raw(r#"{"resultType":"input_required"}"#)).unwrap_err();
        assert_eq!(asks.exit_code(), 1);
    }

    #[test]
    fn arguments_are_an_object_and_keep_their_numbers() {
        assert_eq!(
            arguments(Some(r#" {"x":1.10} "#)).unwrap().get(),
            r#"{"x":1.10}"#
        );
        assert_eq!(arguments(None).unwrap().get(), "{}");
        for bad in ["[1]", "x", "{", ""] {
            assert_eq!(arguments(Some(bad)).unwrap_err().exit_code(), 2, "{bad}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        fs::write(&file, "{\"a\":1}\n").unwrap();
        assert_eq!(
            arguments(Some(&format!("@{}", file.display())))
                .unwrap()
                .get(),
            "{\"a\":1}"
        );
    }
}
