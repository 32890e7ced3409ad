//! `mcpctl tools`: what a gateway lets one call.

use clap::Args;
use serde_json::{Value, value::RawValue};

use crate::{
    args::GatewayFlags,
    failure::Failure,
    mcp::{Client, text},
    output::{self, Listing},
};

/// Flags of `tools`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// MCP endpoint of the gateway; otherwise that of the context file.
    #[arg(value_name = "GATEWAY-URL", conflicts_with = "url")]
    gateway: Option<String>,
    /// How to show them.
    #[arg(long, short, value_enum, default_value_t = Listing::Table)]
    output: Listing,
    #[command(flatten)]
    target: GatewayFlags,
}

/// Lists them.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let target = flags.target.resolve(flags.gateway)?;
    let mut client = Client::connect(&target).await?;
    let tools = client.list("tools/list", "tools").await;
    client.close().await;
    let tools = tools?;
    if tools.is_empty() {
        output::note("the gateway offers no tools");
    }
    output::data(&show(&tools, flags.output, "name"))
}

/// A list as the gateway sent it; `id` is the member that identifies an item.
pub(crate) fn show(items: &[Box<RawValue>], listing: Listing, id: &str) -> String {
    if listing == Listing::Json {
        // As sent: numbers and members of the future included.
        let texts: Vec<&str> = items.iter().map(|item| item.get()).collect();
        return if texts.is_empty() {
            "[]".to_owned()
        } else {
            format!("[\n{}\n]", texts.join(",\n"))
        };
    }
    let values: Vec<Value> = items
        .iter()
        .map(|item| serde_json::from_str(item.get()).unwrap_or_default())
        .collect();
    if listing == Listing::Name {
        return values
            .iter()
            .map(|v| output::one_line(text(v, id)))
            .collect::<Vec<_>>()
            .join("\n");
    }
    if values.is_empty() {
        return String::new();
    }
    let row = |value: &Value| {
        let about = match text(value, "description") {
            "" => text(value, "title"),
            description => description,
        };
        let about = if listing == Listing::Wide {
            about.to_owned()
        } else {
            output::brief(about, 80)
        };
        let mut cells = vec![text(value, id).to_owned()];
        if id != "name" {
            cells.push(text(value, "name").to_owned());
        }
        cells.push(about);
        cells
    };
    let rows: Vec<Vec<String>> = values.iter().map(row).collect();
    match id {
        "name" => output::table(&["NAME", "DESCRIPTION"], &rows),
        _ => output::table(&["URI", "NAME", "DESCRIPTION"], &rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(texts: &[&str]) -> Vec<Box<RawValue>> {
        texts
            .iter()
            .map(|t| RawValue::from_string((*t).to_owned()).unwrap())
            .collect()
    }

    #[test]
    fn json_is_as_the_server_wrote_it() {
        let items = items(&[r#"{"name":"a","x":1.10}"#, r#"{"name":"b"}"#]);
        assert_eq!(
            show(&items, Listing::Json, "name"),
            "[\n{\"name\":\"a\",\"x\":1.10},\n{\"name\":\"b\"}\n]"
        );
    }

    #[test]
    fn tables_fall_back_to_the_title() {
        let items = items(&[
            r#"{"name":"a","title":"A tool"}"#,
            r#"{"name":"b","description":"one\ntwo"}"#,
        ]);
        assert_eq!(
            show(&items, Listing::Table, "name"),
            "NAME   DESCRIPTION\na      A tool\nb      one\n"
        );
    }
}
