//! Many real clients call real servers: what they get through a gateway is what they get directly.
//! They list, call, read, get and complete, are told the progress of calls, and are asked to sample
//! and to elicit.

mod rust;
mod rust_sdk;
mod tower;

use anyhow::{Context, Result, ensure};
use fleet_tests::wait::soon;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{
    clients::{self, CLIENTS, Script, Server, script},
    conformance::reference,
};

/// How many clients run at a time: more of them only wait for processors.
const AT_A_TIME: usize = 3;

/// The reference server has tools that ask whoever calls them. Those of server-everything are
/// listed only for clients that can be asked, so a gateway, which lists for all, has none of them.
const ASKS: [&str; 2] = ["test_sampling", "test_elicitation"];
/// The same in the newest revision.
const NEWEST_ASKS: [&str; 2] = [
    "test_input_required_result_sampling",
    "test_input_required_result_elicitation",
];

enum Client {
    Script(Script),
    /// What it has no words for is left out of its plans.
    Inspector(Script),
    Rmcp {
        newest: bool,
    },
    Tower {
        newest: bool,
    },
}

const MATRIX: [Client; 14] = [
    Client::Script(script("Python mcp 1.x", "mcp1", "mcp1.py", "legacy")),
    Client::Script(script("Python mcp 2.x", "python", "client.py", "legacy")),
    Client::Script(script(
        "Python mcp 2.x, newest",
        "python",
        "client.py",
        "auto",
    )),
    Client::Script(script("fastmcp", "fastmcp", "fast.py", "legacy")),
    Client::Script(script("fastmcp, newest", "fastmcp", "fast.py", "auto")),
    Client::Script(script(
        "TypeScript SDK 1.x",
        "clients",
        "sdk1.mjs",
        "legacy",
    )),
    Client::Script(script(
        "TypeScript client 2.x",
        "clients",
        "client2.mjs",
        "legacy",
    )),
    Client::Script(script(
        "TypeScript client 2.x, newest",
        "clients",
        "client2.mjs",
        "auto",
    )),
    Client::Inspector(script("inspector", "inspector", "inspector.mjs", "legacy")),
    Client::Inspector(script(
        "inspector, newest",
        "inspector",
        "inspector.mjs",
        "auto",
    )),
    Client::Rmcp { newest: false },
    Client::Rmcp { newest: true },
    Client::Tower { newest: false },
    Client::Tower { newest: true },
];

impl Client {
    fn name(&self) -> &'static str {
        match self {
            Self::Script(script) | Self::Inspector(script) => script.name,
            Self::Rmcp { newest: false } => "rmcp",
            Self::Rmcp { newest: true } => "rmcp, newest",
            Self::Tower { newest: false } => "tower-mcp",
            Self::Tower { newest: true } => "tower-mcp, newest",
        }
    }

    fn newest(&self) -> bool {
        match self {
            Self::Script(script) | Self::Inspector(script) => script.argument == "auto",
            Self::Rmcp { newest } | Self::Tower { newest } => *newest,
        }
    }

    /// The servers whose answers to it can be compared.
    fn servers<'a>(&self, servers: &'a [Server]) -> impl Iterator<Item = &'a Server> {
        let wanted = |server: &Server| match self {
            // The servers on stdio are for the clients that `mcpctl connect` is tested with, too:
            // those start one for every plan.
            Self::Script(script) => {
                server.direct["url"].is_string()
                    || CLIENTS.iter().any(|known| known.name == script.name)
            }
            // It can list roots, for which server-everything has a tool more; see `ASKS`.
            Self::Inspector(_) => server.name == "reference",
            Self::Rmcp { newest } | Self::Tower { newest } => {
                // In the newest revision they do not fall back to an older one.
                server.name == "reference" || (server.name == "everything" && !newest)
            }
        };
        servers
            .iter()
            .filter(move |server| wanted(server))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn plan(&self, server: &Server, target: &Value, prefix: &str) -> Value {
        let mut plan = server.plan(target, prefix);
        plan["progress"] = progress(server).into();
        if let Self::Inspector(_) = self {
            plan["completions"] = json!([]);
        } else if server.name == "reference" {
            let asks = if self.newest() { NEWEST_ASKS } else { ASKS };
            plan["asks"] = json!(asks.map(|tool| (tool, json!({"prompt": "p", "message": "m"}))));
        }
        plan
    }

    async fn run(&self, plans: &[Value]) -> Result<Vec<Value>> {
        let (Self::Rmcp { newest } | Self::Tower { newest }) = self else {
            let (Self::Script(script) | Self::Inspector(script)) = self else {
                unreachable!("the others are above");
            };
            return script.run_all(plans).await;
        };
        let mut done = Vec::new();
        for plan in plans {
            // Their futures are large.
            let one = Box::pin(async {
                match self {
                    Self::Rmcp { .. } => rust_sdk::run(plan, *newest).await,
                    _ => tower::run(plan, *newest).await,
                }
            });
            let one = soon("the end of a plan", one).await??;
            clients::is_whole(plan, &one)?;
            done.push(clients::cleaned(one));
        }
        Ok(done)
    }

    /// That the client was told and asked, and what it answered arrived.
    fn took_part(&self, server: &Server, plan: &Value, got: &Value) -> Result<()> {
        if let Self::Inspector(_) = self {
            return Ok(());
        }
        let told = got["progress"].as_array().into_iter().flatten();
        let told: usize = told.map(|told| told.as_array().map_or(0, Vec::len)).sum();
        ensure!(told == progress(server), "{told} times progress: {got}");
        if plan["asks"][0].is_array() {
            let answered = got["answered"].to_string();
            ensure!(
                answered.contains("what was sampled") && answered.contains("my "),
                "{answered}"
            );
        }
        Ok(())
    }
}

/// How often the calls of a server's plan report progress.
fn progress(server: &Server) -> usize {
    match server.name {
        "everything" => 2,
        "reference" => 3,
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_get_from_real_servers_what_they_get_directly() -> Result<()> {
    let files = tempfile::tempdir()?;
    let (_everything, servers) = clients::servers(&files).await?;
    let (_reference, url) = reference().await?;
    let mut servers = Vec::from(servers);
    servers.push(Server {
        name: "reference",
        direct: json!({"url": url}),
        document: format!("http: {}", json!({"url": url})),
        calls: json!([
            ["test_simple_text", {}],
            ["test_tool_with_progress", {}],
            ["test_error_handling", {}],
        ]),
        reads: json!(["test://static-text", "test://static-binary"]),
        prompts: json!([["test_prompt_with_arguments", {"arg1": "a", "arg2": "b"}]]),
        completions: json!([["test_prompt_with_arguments", "arg1", "a"]]),
    });
    let fleet = clients::fleet(&servers).await?;
    let through = json!({"url": fleet.url});
    let compared = stream::iter(&MATRIX).map(|client| async {
        let compared = compare(client, &servers, &through).await;
        compared.context(client.name())
    });
    let compared: Vec<_> = compared.buffer_unordered(AT_A_TIME).collect().await;
    let wrong = compared.into_iter().filter_map(Result::err);
    let wrong: Vec<_> = wrong.map(|error| format!("{error:#}")).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

async fn compare(client: &Client, servers: &[Server], through: &Value) -> Result<()> {
    let servers: Vec<_> = client.servers(servers).collect();
    let plans = servers
        .iter()
        .map(|server| client.plan(server, &server.direct, ""));
    let direct = client
        .run(&plans.collect::<Vec<_>>())
        .await
        .context("directly")?;
    let plans = servers
        .iter()
        .map(|server| client.plan(server, through, &format!("{}__", server.name)));
    let plans: Vec<_> = plans.collect();
    let mut through = client.run(&plans).await.context("through the gateway")?;
    for (index, server) in servers.iter().enumerate() {
        let (direct, through) = (&direct[index], &mut through[index]);
        drop_others(direct, through);
        clients::same(server.name, direct, through)?;
        client.took_part(server, &plans[index], through)?;
    }
    let names: Vec<_> = servers.iter().map(|server| server.name).collect();
    println!("{}: {}", client.name(), names.join(", "));
    Ok(())
}

/// Takes the resources of other backends off the lists, by the schemes of their URIs: they have no
/// prefix.
fn drop_others(direct: &Value, through: &mut Value) {
    fn scheme(item: &Value) -> Option<&str> {
        let uri = item["uri"]
            .as_str()
            .or_else(|| item["uriTemplate"].as_str());
        Some(uri?.split_once(':')?.0)
    }
    for key in ["resources", "templates"] {
        if let Some(listed) = through.get_mut(key).and_then(Value::as_array_mut) {
            listed.retain(|item| scheme(item) == scheme(&direct[key][0]));
        }
    }
}
