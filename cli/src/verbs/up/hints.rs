//! What `up` says when it is ready: the endpoints, and three commands to try.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use fleet_proto::{
    key::DEFAULT_PROJECT,
    v1::{Gateway, Resource, resource},
};
use serde_json::{Map, Value};

use crate::output;

/// An endpoint that clients can connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its URL on this machine.
    pub(crate) url: String,
    /// Whether it asks for a token.
    pub(crate) guarded: bool,
}

/// The endpoints of what is stored, the one that `mcpctl` uses first.
pub(crate) fn endpoints(stored: &[Resource], listener: SocketAddr) -> Vec<Endpoint> {
    let mut gateways: Vec<&Gateway> = stored
        .iter()
        .filter_map(|r| match &r.kind {
            Some(resource::Kind::Gateway(gateway)) => Some(gateway),
            _ => None,
        })
        .collect();
    // The default gateway, else an open one, else any.
    gateways.sort_by_key(|g| {
        (
            g.project != DEFAULT_PROJECT || g.name != "default",
            is_guarded(g),
        )
    });
    let host = reachable(listener);
    let endpoint = |path: &str, guarded| Endpoint {
        url: format!("http://{host}{path}"),
        guarded,
    };
    if gateways.is_empty() {
        return vec![endpoint("/mcp", false)];
    }
    gateways
        .iter()
        .map(|g| endpoint(&g.path, is_guarded(g)))
        .collect()
}

fn is_guarded(gateway: &Gateway) -> bool {
    !gateway.auth.is_empty() && gateway.auth != "none"
}

/// An address to connect to: a listener on all addresses is reached on loopback.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// How this program is called from here: by name where the shell finds it, else
/// by path, as after a first build.
pub(crate) fn program() -> String {
    let path = env::var_os("PATH").unwrap_or_default();
    let here = env::current_dir().unwrap_or_default();
    named(env::current_exe().ok(), env::split_paths(&path), &here)
}

fn named(exe: Option<PathBuf>, mut dirs: impl Iterator<Item = PathBuf>, here: &Path) -> String {
    const NAME: &str = "mcpctl";
    match exe {
        Some(exe) if exe.ends_with(NAME) && !dirs.any(|dir| dir.join(NAME).is_file()) => {
            let path = match exe.strip_prefix(here) {
                // A single word would be looked for in PATH.
                Ok(short) if short.components().count() > 1 => short,
                _ => &exe,
            };
            output::shell_word(&path.display().to_string())
        }
        _ => NAME.to_owned(),
    }
}

/// The three commands. `tools` is what the first endpoint offers, where that
/// could be found out.
pub(crate) fn commands(program: &str, endpoint: &Endpoint, tools: &[Value]) -> [String; 3] {
    let token = if endpoint.guarded {
        " --token TOKEN"
    } else {
        ""
    };
    let call = match best(tools) {
        Some((name, arguments)) => {
            format!(
                "{} {}",
                output::shell_word(name),
                output::shell_word(&Value::Object(arguments).to_string())
            )
        }
        None => "TOOL '{}'".to_owned(),
    };
    [
        format!("{program} tools{token}"),
        format!("{program} call{token} {call}"),
        format!("{program} nodes"),
    ]
}

/// The tool to try: `echo` where there is one, else the one with the least to fill in.
fn best(tools: &[Value]) -> Option<(&str, Map<String, Value>)> {
    let candidates = tools.iter().filter_map(|tool| {
        let name = tool.get("name")?.as_str()?;
        let schema = tool.get("inputSchema").unwrap_or(&Value::Null);
        Some((name, example(schema)?))
    });
    candidates.min_by_key(|(name, arguments)| (!is_echo(name), arguments.len()))
}

fn is_echo(name: &str) -> bool {
    name == "echo" || name.ends_with("_echo") || name.ends_with("/echo")
}

/// Arguments that satisfy a simple schema; `None` where it takes more thought.
fn example(schema: &Value) -> Option<Map<String, Value>> {
    let required = schema
        .get("required")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let mut arguments = Map::new();
    for name in required {
        let name = name.as_str()?;
        let property = schema.get("properties")?.get(name)?;
        let value = match property.get("type").and_then(Value::as_str)? {
            "string" if property.get("enum").is_none() && property.get("format").is_none() => {
                "hello".into()
            }
            "integer" | "number" => 1.into(),
            "boolean" => true.into(),
            _ => return None,
        };
        arguments.insert(name.to_owned(), value);
    }
    Some(arguments)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gateway(name: &str, path: &str, auth: &str) -> Resource {
        let gateway = Gateway {
            name: name.to_owned(),
            project: "default".to_owned(),
            path: path.to_owned(),
            auth: auth.to_owned(),
            ..Default::default()
        };
        Resource {
            kind: Some(resource::Kind::Gateway(gateway)),
        }
    }

    #[test]
    fn the_default_gateway_comes_first_and_one_is_implied() {
        let listener = "0.0.0.0:8080".parse().unwrap();
        let endpoint = |url: &str, guarded| Endpoint {
            url: url.to_owned(),
            guarded,
        };
        assert_eq!(
            endpoints(&[], listener),
            [endpoint("http://127.0.0.1:8080/mcp", false)]
        );
        let stored = [
            gateway("a", "/a", "staff"),
            gateway("b", "/b", "none"),
            gateway("default", "/mcp", "staff"),
        ];
        assert_eq!(
            endpoints(&stored, listener),
            [
                endpoint("http://127.0.0.1:8080/mcp", true),
                endpoint("http://127.0.0.1:8080/b", false),
                endpoint("http://127.0.0.1:8080/a", true),
            ]
        );
    }

    #[test]
    fn the_call_to_try_fits_what_is_offered() {
        let endpoint = Endpoint {
            url: String::new(),
            guarded: false,
        };
        let string = json!({"properties": {"text": {"type": "string"}}, "required": ["text"]});
        let tools = [
            json!({"name": "demo__time", "inputSchema": {}}),
            json!({"name": "demo__echo", "inputSchema": string}),
            json!({"name": "odd", "inputSchema": {"properties": {"x": {"type": "array"}}, "required": ["x"]}}),
        ];
        assert_eq!(
            commands("mcpctl", &endpoint, &tools)[1],
            r#"mcpctl call demo__echo '{"text":"hello"}'"#
        );
        assert_eq!(
            commands("mcpctl", &endpoint, &tools[..1])[1],
            "mcpctl call demo__time '{}'"
        );
        assert_eq!(
            commands("mcpctl", &endpoint, &tools[2..])[1],
            "mcpctl call TOOL '{}'"
        );
        let guarded = Endpoint {
            guarded: true,
            ..endpoint
        };
        assert_eq!(
            commands("mcpctl", &guarded, &[])[0],
            "mcpctl tools --token TOKEN"
        );
    }

    #[test]
    fn the_program_is_called_as_it_can_be_found() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("target/debug/mcpctl");
        std::fs::create_dir_all(exe.parent().unwrap()).unwrap();
        std::fs::write(&exe, "").unwrap();
        let from =
            |here: &Path, dirs: &[PathBuf]| named(Some(exe.clone()), dirs.iter().cloned(), here);
        let bin = exe.parent().unwrap();
        assert_eq!(from(dir.path(), &[bin.to_owned()]), "mcpctl");
        assert_eq!(from(dir.path(), &[]), "target/debug/mcpctl");
        assert_eq!(from(bin, &[]), exe.display().to_string());
        assert_eq!(
            named(Some("/x/other".into()), std::iter::empty(), bin),
            "mcpctl"
        );
    }
}
