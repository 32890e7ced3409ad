//! `mcpctl prompts` and `mcpctl prompt`: prompts of a gateway.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, value::RawValue};

use crate::{
    args::GatewayFlags,
    failure::Failure,
    mcp::{Client, Params, text},
    output::{self, Listing},
    verbs::{call::Shown, tools},
};

/// Flags of `prompts`.
#[derive(Debug, Args)]
pub(crate) struct ListFlags {
    /// How to show them.
    #[arg(long, short, value_enum, default_value_t = Listing::Table)]
    output: Listing,
    #[command(flatten)]
    target: GatewayFlags,
}

/// Flags of `prompt`.
#[derive(Debug, Args)]
pub(crate) struct GetFlags {
    /// Name of the prompt, as `mcpctl prompts` shows it.
    name: String,
    /// Its arguments.
    #[arg(value_name = "KEY=VALUE", value_parser = pair)]
    arguments: Vec<(String, String)>,
    /// How to show it.
    #[arg(long, short, value_enum, default_value_t = Shown::Text)]
    output: Shown,
    #[command(flatten)]
    target: GatewayFlags,
}

/// Lists.
pub(crate) async fn list(flags: ListFlags) -> Result<(), Failure> {
    let mut client = Client::connect(&flags.target.resolve(None)?).await?;
    let items = client.list("prompts/list", "prompts").await;
    client.close().await;
    output::data(&tools::show(&items?, flags.output, "name"))
}

/// Gets one.
pub(crate) async fn get(flags: GetFlags) -> Result<(), Failure> {
    let mut client = Client::connect(&flags.target.resolve(None)?).await?;
    let mut params = Params::default().with("name", &flags.name);
    let arguments: BTreeMap<String, String> = flags.arguments.into_iter().collect();
    if !arguments.is_empty() {
        params = params.with("arguments", &arguments);
    }
    let result = client.request("prompts/get", params).await;
    client.close().await;
    let result = result?;
    output::data(&match flags.output {
        Shown::Json => result.get().to_owned(),
        Shown::Text => messages(&result),
    })
}

/// `role: text`, one message after the other.
fn messages(result: &RawValue) -> String {
    let value: Value = serde_json::from_str(result.get()).unwrap_or_default();
    let Some(messages) = value.get("messages").and_then(Value::as_array) else {
        return result.get().to_owned();
    };
    let line = |message: &Value| {
        let content = message.get("content").unwrap_or(&Value::Null);
        let body = match content.get("text").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => content.to_string(),
        };
        format!("{}: {body}", text(message, "role"))
    };
    messages.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_shown_with_their_roles() {
        let result = r#"{"messages":[{"role":"user","content":{"type":"text","text":"hi"}}]}"#;
        assert_eq!(
            messages(&RawValue::from_string(result.to_owned()).unwrap()),
            "user: hi"
        );
    }

    #[test]
    fn arguments_are_pairs() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }
}
