//! Real clients and real servers, and how what a client gets from one is compared.

use anyhow::{Context, Result, bail, ensure};
use fleet_tests::{
    fleet::Fleet,
    process::Process,
    programs::{here, installed, node},
    wait::soon,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// A real server: how it is reached without us, its backend document and what is asked of it.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) direct: Value,
    pub(super) document: String,
    pub(super) calls: Value,
    pub(super) reads: Value,
    pub(super) prompts: Value,
    pub(super) completions: Value,
}

/// A real client: a script that takes plans and prints what came back.
pub(super) struct Script {
    pub(super) name: &'static str,
    /// The folder of what it needs.
    pub(super) home: &'static str,
    pub(super) file: &'static str,
    /// The era: `auto` is the newest that both sides know.
    pub(super) argument: &'static str,
}

pub(super) const fn script(
    name: &'static str,
    home: &'static str,
    file: &'static str,
    argument: &'static str,
) -> Script {
    Script {
        name,
        home,
        file,
        argument,
    }
}

const SDK1: Script = script("TypeScript SDK 1.x", "clients", "sdk1.mjs", "legacy");
pub(super) const CLIENTS: [Script; 4] = [
    script("Python mcp 2.x, newest", "python", "client.py", "auto"),
    SDK1,
    script("TypeScript client 2.x", "clients", "client2.mjs", "legacy"),
    script(
        "TypeScript client 2.x, newest",
        "clients",
        "client2.mjs",
        "auto",
    ),
];

impl Script {
    pub(super) fn is_python(&self) -> bool {
        self.file.ends_with(".py")
    }

    /// Runs a plan and gives what came back.
    pub(super) async fn run(&self, plan: &Value) -> Result<Value> {
        let mut printed = self.run_all(std::slice::from_ref(plan)).await?;
        printed.pop().context("nothing was printed")
    }

    /// Runs plans and gives what came back, without what belongs to the era that the client and
    /// its server agreed on: a direct connection and a gateway may well agree on different ones.
    pub(super) async fn run_all(&self, plans: &[Value]) -> Result<Vec<Value>> {
        let home = installed(self.home);
        let mut command = Command::new(if self.is_python() {
            home.join("bin/python")
        } else {
            node()
        });
        command
            .arg(here("clients").join(self.file))
            .arg(json!(plans).to_string())
            .arg(self.argument);
        command.env("CLIENTS", home).kill_on_drop(true);
        let output = soon("the end of a client", command.output()).await??;
        if !output.status.success() {
            let printed = String::from_utf8_lossy(&output.stderr);
            bail!("{} failed on {}: {printed}", self.name, json!(plans));
        }
        let mut printed: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        ensure!(printed.len() == plans.len(), "{printed:?}");
        for (plan, printed) in plans.iter().zip(&mut printed) {
            is_whole(plan, printed).context(self.name)?;
            if self.argument == "auto" {
                // These clients remove what the newest revision does not define.
                for tool in printed["tools"].as_array_mut().into_iter().flatten() {
                    tool.as_object_mut()
                        .context("a tool is an object")?
                        .remove("execution");
                }
            }
            clean(printed);
        }
        Ok(printed)
    }
}

/// What was not asked for compares well with anything.
pub(super) fn is_whole(plan: &Value, printed: &Value) -> Result<()> {
    ensure!(printed["tools"][0].is_object(), "no tools: {printed}");
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    for (asked, answered) in [
        ("calls", "calls"),
        ("reads", "reads"),
        ("prompts", "got"),
        ("completions", "completed"),
        ("asks", "answered"),
        ("asks", "asked"),
    ] {
        ensure!(
            count(&plan[asked]) == count(&printed[answered]),
            "{asked} of {plan}: {printed}"
        );
    }
    Ok(())
}

/// The three servers; the process is that of the one that is reached over HTTP.
pub(super) async fn servers(files: &TempDir) -> Result<(Process, [Server; 3])> {
    let package = |name: &str| {
        installed(&format!(
            "servers/node_modules/@modelcontextprotocol/{name}/dist/index.js"
        ))
    };
    let mut command = Command::new(node());
    command.arg("-r").arg(here("servers/loopback.cjs"));
    command
        .arg(package("server-everything"))
        .arg("streamableHttp");
    let process = Process::start("server-everything", command)?;
    let url = process.line("its URL", |line| {
        Some(line.strip_prefix("loopback: ")?.to_owned())
    });
    let url = format!("{}/mcp", url.await?);

    let note = files.path().join("note.txt");
    std::fs::write(&note, "a note\nwith \"quotes\" and \u{e4}\u{1f980}\n")?;
    let everything = Server {
        name: "everything",
        direct: json!({"url": url}),
        document: format!("http: {}", json!({"url": url})),
        calls: json!([
            ["echo", {"message": "hello \"\u{1f980}\" \\ \n"}],
            ["get-sum", {"a": 1.5, "b": 2}],
            ["get-sum", {"a": 1, "b": "not a number"}],
            ["get-annotated-message", {"messageType": "error", "includeImage": true}],
            ["get-structured-content", {"location": "New York"}],
            ["get-tiny-image", {}],
            ["get-resource-links", {"count": 3}],
            ["trigger-long-running-operation", {"duration": 0.2, "steps": 2}],
        ]),
        reads: json!([
            "demo://resource/static/document/features.md",
            "demo://resource/static/document/startup.md",
        ]),
        prompts: json!([
            ["simple-prompt", {}],
            ["args-prompt", {"city": "Bonn", "state": "NRW"}],
            ["completable-prompt", {"department": "Sales", "name": "David"}],
        ]),
        completions: json!([["completable-prompt", "department", "S"]]),
    };
    let files = Server {
        name: "files",
        calls: json!([
            ["read_text_file", {"path": note}],
            ["list_directory", {"path": files.path()}],
            ["read_text_file", {"path": "/not/allowed"}],
        ]),
        ..stdio(
            "files",
            node().display(),
            json!([package("server-filesystem"), files.path()]),
        )
    };
    let time = Server {
        name: "time",
        calls: json!([
            ["convert_time",
             {"source_timezone": "Europe/Berlin", "time": "16:30", "target_timezone": "Asia/Tokyo"}],
            ["convert_time", {"source_timezone": "Nowhere", "time": "9", "target_timezone": "UTC"}],
        ]),
        ..stdio(
            "time",
            installed("time/bin/mcp-server-time").display(),
            json!(["--local-timezone=UTC"]),
        )
    };
    Ok((process, [everything, files, time]))
}

fn stdio(name: &'static str, command: impl ToString, args: Value) -> Server {
    let direct = json!({"command": command.to_string(), "args": args});
    let document = format!("stdio: {direct}");
    Server {
        name,
        direct,
        document,
        calls: json!([]),
        reads: json!([]),
        prompts: json!([]),
        completions: json!([]),
    }
}

impl Server {
    /// The name that our clients see of one of its tools or prompts.
    fn exposed(&self, name: &Value) -> String {
        format!("{}__{}", self.name, name.as_str().unwrap_or_default())
    }

    pub(super) fn plan(&self, target: &Value, prefix: &str) -> Value {
        json!({
            "target": target, "prefix": prefix,
            "calls": self.calls, "reads": self.reads, "prompts": self.prompts,
            "completions": self.completions, "asks": [],
        })
    }
}

pub(super) async fn fleet(servers: &[Server]) -> Result<Fleet> {
    // A cold start of Node or Python on a busy machine may take long.
    let documents = servers.iter().map(|server| {
        format!(
            "kind: Backend\nname: {}\ntimeout: 60s\n{}\n",
            server.name, server.document
        )
    });
    let fleet = Fleet::start(&documents.collect::<Vec<_>>().join("---\n")).await?;
    let offered: Vec<_> = servers
        .iter()
        .map(|server| server.exposed(&server.calls[0][0]))
        .collect();
    let offered: Vec<_> = offered.iter().map(String::as_str).collect();
    fleet.offers(&offered).await?;
    Ok(fleet)
}

#[tokio::test(flavor = "multi_thread")]
async fn mcpctl_prints_what_a_real_client_gets_directly() -> Result<()> {
    let files = tempfile::tempdir()?;
    let (_everything, servers) = servers(&files).await?;
    let fleet = fleet(&servers).await?;
    for server in &servers {
        let direct = SDK1.run(&server.plan(&server.direct, "")).await?;
        let asked = |asked: &Value, answered: &str| {
            let asked = asked.as_array().cloned().unwrap_or_default();
            asked
                .into_iter()
                .zip(direct[answered].as_array().cloned().unwrap_or_default())
        };
        for (call, expected) in asked(&server.calls, "calls") {
            let arguments = call[1].to_string();
            let code = i32::from(expected["isError"] == true);
            let command = ["call", &server.exposed(&call[0]), &arguments];
            mcpctl(&fleet, &command, code, &expected).await?;
        }
        for (uri, expected) in asked(&server.reads, "reads") {
            mcpctl(
                &fleet,
                &["read", uri.as_str().unwrap_or_default()],
                0,
                &expected,
            )
            .await?;
        }
        for (prompt, expected) in asked(&server.prompts, "got") {
            let mut command = vec!["prompt".to_owned(), server.exposed(&prompt[0])];
            for (key, value) in prompt[1].as_object().into_iter().flatten() {
                command.push(format!("{key}={}", value.as_str().unwrap_or_default()));
            }
            let command: Vec<_> = command.iter().map(String::as_str).collect();
            mcpctl(&fleet, &command, 0, &expected).await?;
        }
        let listed = String::from_utf8(fleet.mcpctl(&["tools", "-o", "name"]).await?.stdout)?;
        for tool in direct["tools"].as_array().into_iter().flatten() {
            let name = server.exposed(&tool["name"]);
            ensure!(
                listed.lines().any(|line| line == name),
                "{name} is not in {listed}"
            );
        }
    }
    Ok(())
}

/// Runs a command of `mcpctl` that prints a result as JSON, and compares both it and the exit code.
async fn mcpctl(fleet: &Fleet, command: &[&str], code: i32, expected: &Value) -> Result<()> {
    let done = fleet.mcpctl(&[command, &["-o", "json"]].concat()).await?;
    ensure!(
        done.status.code() == Some(code),
        "mcpctl {command:?}: {done:?}"
    );
    let result = serde_json::from_slice(&done.stdout);
    let result = result.with_context(|| format!("mcpctl {command:?}: {done:?}"))?;
    same(&format!("mcpctl {command:?}"), expected, &cleaned(result))
}

/// Takes off the members of results that one era has and the other does not.
pub(super) fn cleaned(mut value: Value) -> Value {
    clean(&mut value);
    value
}

fn clean(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(members) => {
            for key in ["resultType", "ttlMs", "cacheScope"] {
                members.remove(key);
            }
            if let Some(Value::Object(meta)) = members.get_mut("_meta") {
                meta.remove("io.modelcontextprotocol/serverInfo");
                if meta.is_empty() {
                    members.remove("_meta");
                }
            }
            members.values_mut().for_each(clean);
        }
        _ => {}
    }
}

/// Compares part by part, so that a difference can be read.
pub(super) fn same(what: &str, direct: &Value, through: &Value) -> Result<()> {
    match (direct, through) {
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            for (key, value) in a {
                let other = b
                    .get(key)
                    .with_context(|| format!("{what}: `{key}` is lost"))?;
                same(&format!("{what}: {key}"), value, other)?;
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (value, other)) in a.iter().zip(b).enumerate() {
                same(&format!("{what}[{index}]"), value, other)?;
            }
        }
        _ => ensure!(
            direct == through,
            "{what}: directly {direct}, through us {through}"
        ),
    }
    Ok(())
}
