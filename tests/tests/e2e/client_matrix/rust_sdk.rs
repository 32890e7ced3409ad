//! `rmcp`, the Rust SDK.
#![expect(deprecated, reason = "sampling is, and is still asked for")]

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rmcp::{
    ClientHandler, ErrorData, RoleClient, ServiceExt,
    model::{
        ClientConfig, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams,
        ElicitResult, Implementation, ProgressNotificationParam, ProtocolVersion,
    },
    service::{
        ClientLifecycleMode, ClientServiceExt, NotificationContext, RequestContext, RunningService,
    },
    transport::StreamableHttpClientTransport,
};
use serde_json::{Value, from_value, to_value};

use super::rust::{self, Connected, Heard};

struct Handler {
    heard: Arc<Heard>,
    config: ClientConfig,
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        self.config.clone()
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let answer =
            to_value(params).map(|params| self.heard.asked("sampling/createMessage", params));
        answer.and_then(from_value).map_err(unreadable)
    }

    async fn create_elicitation(
        &self,
        params: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let answer = to_value(params).map(|params| self.heard.asked("elicitation/create", params));
        answer.and_then(from_value).map_err(unreadable)
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.heard.told(params.progress, params.total);
    }
}

fn unreadable(error: serde_json::Error) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

struct Running(RunningService<RoleClient, Handler>);

impl Connected for Running {
    async fn request(&self, method: &str, params: Value) -> Result<Value> {
        let client = &self.0;
        Ok(match method {
            "tools/list" => to_value(client.list_all_tools().await?)?,
            "tools/call" => to_value(client.call_tool(from_value(params)?).await?)?,
            "resources/list" => to_value(client.list_all_resources().await?)?,
            "resources/templates/list" => to_value(client.list_all_resource_templates().await?)?,
            "resources/read" => to_value(client.read_resource(from_value(params)?).await?)?,
            "prompts/list" => to_value(client.list_all_prompts().await?)?,
            "prompts/get" => to_value(client.get_prompt(from_value(params)?).await?)?,
            "completion/complete" => to_value(client.complete(from_value(params)?).await?)?,
            _ => bail!("no plan has {method}"),
        })
    }
}

pub(super) async fn run(plan: &Value, newest: bool) -> Result<Value> {
    let url = plan["target"]["url"].as_str().context("a URL")?;
    let transport = StreamableHttpClientTransport::from_uri(url);
    let heard = Arc::new(Heard::default());
    let capabilities = from_value(rust::capabilities(plan))?;
    let config = ClientConfig::new(capabilities, Implementation::new("fleet-tests", "0"));
    let handler = Handler {
        heard: heard.clone(),
        config,
    };
    let client = Running(if newest {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        let lifecycle = ClientLifecycleMode::Discover { preferred_versions };
        handler.serve_with_lifecycle(transport, lifecycle).await?
    } else {
        handler.serve(transport).await?
    });
    let done = rust::run(&client, plan, &heard).await;
    client.0.cancel().await?;
    done
}
