//! A small MCP server: the backend of `examples/quickstart.yaml`, and one that
//! tests can start (`mcpctl demo-server`).
//!
//! Tools `echo`, `add` and `time`, the resource `demo://readme`, the template
//! `demo://greeting/{name}` and the prompt `greet`.

use std::{collections::HashMap, io, net::SocketAddr};

use serde::Deserialize;
use tokio::task::JoinHandle;
use tower_mcp::{
    CallToolResult, HttpTransport, McpRouter, Prompt, Resource, ResourceTemplate, StdioTransport,
    Tool, ToolBuilder,
    protocol::{GetPromptResult, ReadResourceResult},
    schemars::{self, JsonSchema},
};

use crate::clock;

/// Text of `demo://readme`.
const README: &str = "This is the demo server of mcpctl. Its tools are echo, add and time.\n";

/// Longest line on stdin: large arguments are among the things to try.
const MAX_LINE: usize = 64 << 20;

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
struct Echo {
    /// What to say.
    text: String,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
struct Add {
    /// One number.
    a: f64,
    /// The other.
    b: f64,
}

/// The server, to be put on any transport.
#[must_use]
pub fn router() -> McpRouter {
    McpRouter::new()
        .server_info("mcpctl-demo", env!("CARGO_PKG_VERSION"))
        .instructions("Tools to try a gateway with: echo, add and time.")
        .tool(echo())
        .tool(add())
        .tool(time())
        .resource(readme())
        .resource_template(greeting())
        .prompt(greet())
}

fn echo() -> Tool {
    ToolBuilder::new("echo")
        .description("Answers with the text it is given.")
        .read_only_safe()
        .handler(|input: Echo| async move { Ok(CallToolResult::text(input.text)) })
        .build()
}

fn add() -> Tool {
    ToolBuilder::new("add")
        .description("Adds two numbers.")
        .read_only_safe()
        .handler(
            |input: Add| async move { Ok(CallToolResult::text((input.a + input.b).to_string())) },
        )
        .build()
}

fn time() -> Tool {
    ToolBuilder::new("time")
        .description("The time on the server, in UTC.")
        .read_only()
        .no_params_handler(|| async { Ok(CallToolResult::text(clock::rfc3339(clock::now_ms()))) })
        .build()
}

fn readme() -> Resource {
    Resource::builder("demo://readme")
        .name("readme")
        .description("What this server is.")
        .mime_type("text/plain")
        .text(README)
}

fn greeting() -> ResourceTemplate {
    ResourceTemplate::builder("demo://greeting/{name}")
        .name("greeting")
        .description("A greeting for somebody.")
        .mime_type("text/plain")
        .handler(
            |uri: String, variables: HashMap<String, String>| async move {
                let name = variables.get("name").map_or("world", String::as_str);
                Ok(ReadResourceResult::text(uri, format!("Hello, {name}!")))
            },
        )
}

fn greet() -> Prompt {
    Prompt::builder("greet")
        .description("Asks for a greeting.")
        .required_arg("name", "Who is to be greeted.")
        .handler(|arguments: HashMap<String, String>| async move {
            let name = arguments.get("name").map_or("world", String::as_str);
            Ok(GetPromptResult::user_message(format!(
                "Greet {name} warmly."
            )))
        })
        .build()
}

/// Serves on stdin and stdout until stdin ends.
///
/// # Errors
/// stdin or stdout cannot be used.
pub async fn serve_stdio() -> Result<(), tower_mcp::Error> {
    StdioTransport::new(router())
        .max_frame_len(MAX_LINE)
        .run()
        .await
}

/// A demo server on streamable HTTP. Dropping it does not stop it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Its MCP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Stops it at once.
    pub fn stop(self) {
        self.task.abort();
    }

    /// Waits until it ends, which it does only by failing.
    ///
    /// # Errors
    /// It cannot accept connections any more.
    pub async fn finished(self) -> io::Result<()> {
        self.task.await.map_err(io::Error::other)?
    }
}

/// Serves streamable HTTP at `/mcp` of an address; port 0 takes a free one.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve_http(address: SocketAddr) -> io::Result<Server> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let app = HttpTransport::new(router())
        .max_body_size(MAX_LINE)
        .into_router_at("/mcp");
    let task = tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(Server { address, task })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mcp::{Client, Params, Protocol, Target};

    /// The client of `mcpctl` and this server, over real HTTP.
    #[tokio::test]
    async fn a_client_lists_calls_reads_and_gets() {
        let server = serve_http(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        for protocol in [
            Protocol::V20250326,
            Protocol::V20250618,
            Protocol::V20251125,
            Protocol::V20260728,
        ] {
            let target = Target {
                url: server.url(),
                token: None,
                protocol,
                limit: Duration::from_secs(30),
            };
            let mut client = Client::connect(&target).await.unwrap();
            let tools = client.list("tools/list", "tools").await.unwrap();
            assert_eq!(tools.len(), 3, "{protocol:?}");
            let params = Params::default()
                .with("name", "echo")
                .with("arguments", &serde_json::json!({ "text": "hello" }));
            let result = client.request("tools/call", params).await.unwrap();
            assert!(
                result.get().contains(r#""text":"hello""#),
                "{}",
                result.get()
            );
            let uri = "demo://greeting/Ada";
            let result = client
                .request("resources/read", Params::default().with("uri", uri))
                .await
                .unwrap();
            assert!(result.get().contains("Hello, Ada!"), "{}", result.get());
            let params = Params::default()
                .with("name", "greet")
                .with("arguments", &HashMap::from([("name", "Ada")]));
            let result = client.request("prompts/get", params).await.unwrap();
            assert!(result.get().contains("Greet Ada"), "{}", result.get());
            client.close().await;
        }
        server.stop();
    }
}
