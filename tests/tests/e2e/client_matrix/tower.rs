//! `tower-mcp` as a client.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use serde_json::{Value, from_value, to_value};
use tower_mcp::{
    JsonRpcError,
    client::{ClientHandler, HttpClientTransport, McpClient, ServerNotification},
    protocol::{CreateMessageParams, CreateMessageResult, ElicitRequestParams, ElicitResult},
};

use super::rust::{self, Connected, Heard};

struct Handler(Arc<Heard>);

#[async_trait]
impl ClientHandler for Handler {
    async fn handle_create_message(
        &self,
        params: CreateMessageParams,
    ) -> Result<CreateMessageResult, JsonRpcError> {
        let answer = to_value(params).map(|params| self.0.asked("sampling/createMessage", params));
        answer.and_then(from_value).map_err(unreadable)
    }

    async fn handle_elicit(
        &self,
        params: ElicitRequestParams,
    ) -> Result<ElicitResult, JsonRpcError> {
        let answer = to_value(params).map(|params| self.0.asked("elicitation/create", params));
        answer.and_then(from_value).map_err(unreadable)
    }

    async fn on_notification(&self, notification: ServerNotification) {
        if let ServerNotification::Progress(params) = notification {
            self.0.told(params.progress, params.total);
        }
    }
}

fn unreadable(error: serde_json::Error) -> JsonRpcError {
    JsonRpcError::internal_error(error.to_string())
}

impl Connected for McpClient {
    async fn request(&self, method: &str, params: Value) -> Result<Value> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&params["name"]);
        Ok(match method {
            "tools/list" => to_value(self.list_all_tools().await?)?,
            "tools/call" => to_value(self.call_tool(&name, params["arguments"].clone()).await?)?,
            "resources/list" => to_value(self.list_all_resources().await?)?,
            "resources/templates/list" => to_value(self.list_all_resource_templates().await?)?,
            "resources/read" => to_value(self.read_resource(&text(&params["uri"])).await?)?,
            "prompts/list" => to_value(self.list_all_prompts().await?)?,
            "prompts/get" => {
                let arguments = from_value(params["arguments"].clone())?;
                to_value(self.get_prompt(&name, Some(arguments)).await?)?
            }
            "completion/complete" => {
                let (prompt, argument) = (text(&params["ref"]["name"]), &params["argument"]);
                let (name, value) = (text(&argument["name"]), text(&argument["value"]));
                to_value(self.complete_prompt_arg(&prompt, &name, &value).await?)?
            }
            _ => bail!("no plan has {method}"),
        })
    }
}

pub(super) async fn run(plan: &Value, newest: bool) -> Result<Value> {
    let url = plan["target"]["url"].as_str().context("a URL")?;
    let heard = Arc::new(Heard::default());
    let client = McpClient::builder()
        .with_capabilities(from_value(rust::capabilities(plan))?)
        .request_progress()
        .connect(HttpClientTransport::new(url), Handler(heard.clone()))
        .await?;
    if newest {
        client.discover("fleet-tests", "0").await?;
    } else {
        client.initialize("fleet-tests", "0").await?;
    }
    let done = rust::run(&client, plan, &heard).await;
    client.shutdown().await?;
    done
}
