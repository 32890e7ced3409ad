//! `mcpctl resources` and `mcpctl read`: what a gateway lets one read.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    args::GatewayFlags,
    failure::Failure,
    mcp::{Client, Params},
    output::{self, Listing},
    verbs::{call::Shown, tools},
};

/// Flags of `resources`.
#[derive(Debug, Args)]
pub(crate) struct ListFlags {
    /// List the templates instead.
    #[arg(long)]
    templates: bool,
    /// How to show them.
    #[arg(long, short, value_enum, default_value_t = Listing::Table)]
    output: Listing,
    #[command(flatten)]
    target: GatewayFlags,
}

/// Flags of `read`.
#[derive(Debug, Args)]
pub(crate) struct ReadFlags {
    /// URI of the resource.
    uri: String,
    /// How to show it.
    #[arg(long, short, value_enum, default_value_t = Shown::Text)]
    output: Shown,
    #[command(flatten)]
    target: GatewayFlags,
}

/// Lists.
pub(crate) async fn list(flags: ListFlags) -> Result<(), Failure> {
    let (method, member, id) = if flags.templates {
        (
            "resources/templates/list",
            "resourceTemplates",
            "uriTemplate",
        )
    } else {
        ("resources/list", "resources", "uri")
    };
    let mut client = Client::connect(&flags.target.resolve(None)?).await?;
    let items = client.list(method, member).await;
    client.close().await;
    output::data(&tools::show(&items?, flags.output, id))
}

/// Reads.
pub(crate) async fn read(flags: ReadFlags) -> Result<(), Failure> {
    let mut client = Client::connect(&flags.target.resolve(None)?).await?;
    let result = client
        .request("resources/read", Params::default().with("uri", &flags.uri))
        .await;
    client.close().await;
    let result = result?;
    output::data(&match flags.output {
        Shown::Json => result.get().to_owned(),
        Shown::Text => texts(&result),
    })
}

/// Text contents as they are, others as JSON.
fn texts(result: &RawValue) -> String {
    #[derive(Deserialize)]
    struct Contents<'a> {
        #[serde(borrow)]
        contents: Vec<&'a RawValue>,
    }
    let Ok(parts) = serde_json::from_str::<Contents<'_>>(result.get()) else {
        return result.get().to_owned();
    };
    let lines = parts.contents.iter().map(|part| {
        let value: Value = serde_json::from_str(part.get()).unwrap_or_default();
        value
            .get("text")
            .and_then(Value::as_str)
            .map_or_else(|| part.get().to_owned(), str::to_owned)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_printed_and_a_blob_stays_json() {
        let result = r#"{"contents":[{"uri":"a:b","text":"hello"},{"uri":"a:c","blob":"eA=="}]}"#;
        let result = RawValue::from_string(result.to_owned()).unwrap();
        assert_eq!(texts(&result), "hello\n{\"uri\":\"a:c\",\"blob\":\"eA==\"}");
    }
}
