//! `mcpctl get`: what is stored.

use clap::Args;
use fleet_proto::{
    key::Key,
    v1::{GetRequest, ListRequest, Resource, auth_policy, backend, resource},
    write,
};

use crate::{
    args::AdminFlags,
    client::{self, Client},
    failure::Failure,
    kinds::{self, Selection},
    output::{self, Format},
};

/// Flags of `get`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// `KIND`, `KIND NAME...` or `KIND/NAME...`, where KIND is backend, gateway or auth-policy. Left out: everything.
    #[arg(value_name = "KIND [NAME]")]
    what: Vec<String>,
    /// Only this project; with NAME, `default` when left out.
    #[arg(long, short, value_name = "NAME")]
    project: Option<String>,
    /// How to show it.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Gets.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let selection = kinds::select(&flags.what, flags.project.as_deref())?;
    let mut client = client::connect(&flags.admin.resolve()?).await?;
    let single = matches!(&selection, Selection::Keys(keys) if keys.len() == 1);
    let resources = match selection {
        Selection::All => list(&mut client, "", flags.project).await?,
        Selection::Kind(kind) => list(&mut client, kind.as_str(), flags.project).await?,
        Selection::Keys(keys) => {
            let mut found = Vec::new();
            for key in keys {
                let answer = client
                    .get(GetRequest {
                        key: Some(key.to_wire()),
                    })
                    .await?
                    .into_inner();
                found.extend(answer.resource);
            }
            found
        }
    };
    if resources.is_empty() {
        output::note("nothing is stored");
    }
    output::data(&show(&resources, flags.output, single))
}

async fn list(
    client: &mut Client,
    kind: &str,
    project: Option<String>,
) -> Result<Vec<Resource>, Failure> {
    let request = ListRequest {
        kind: kind.to_owned(),
        project: project.unwrap_or_default(),
    };
    Ok(client.list(request).await?.into_inner().resources)
}

fn show(resources: &[Resource], format: Format, single: bool) -> String {
    match format {
        Format::Yaml => write::write_yaml(resources),
        Format::Json => {
            let values: Vec<serde_json::Value> = resources.iter().map(write::to_json).collect();
            let text = match (single, &values[..]) {
                (true, [value]) => serde_json::to_string_pretty(value),
                _ => serde_json::to_string_pretty(&values),
            };
            text.expect("JSON values serialise")
        }
        Format::Name => {
            let names: Vec<String> = resources
                .iter()
                .filter_map(Key::of)
                .map(|key| kinds::slashed(&key))
                .collect();
            names.join("\n")
        }
        Format::Table | Format::Wide if resources.is_empty() => String::new(),
        Format::Table => output::table(&["KIND", "NAME", "DETAIL"], &rows(resources, false)),
        Format::Wide => output::table(
            &["KIND", "NAME", "PROJECT", "LABELS", "DETAIL"],
            &rows(resources, true),
        ),
    }
}

fn rows(resources: &[Resource], wide: bool) -> Vec<Vec<String>> {
    let row = |resource: &Resource| {
        let key = Key::of(resource)?;
        let (labels, detail) = describe(resource)?;
        let kind = kinds::word(key.kind).to_owned();
        Some(if wide {
            let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            vec![
                kind,
                key.name.clone(),
                key.project.clone(),
                labels.join(","),
                detail,
            ]
        } else {
            vec![kind, kinds::qualified(&key), output::brief(&detail, 100)]
        })
    };
    resources.iter().filter_map(row).collect()
}

/// Labels, and the rest in a few words.
fn describe(resource: &Resource) -> Option<(&std::collections::BTreeMap<String, String>, String)> {
    Some(match resource.kind.as_ref()? {
        resource::Kind::Backend(b) => {
            let detail = match b.transport.as_ref()? {
                backend::Transport::Stdio(s) => {
                    let words = std::iter::once(&s.command)
                        .chain(&s.args)
                        .map(|w| output::shell_word(w));
                    format!("stdio {}", words.collect::<Vec<_>>().join(" "))
                }
                backend::Transport::Http(h) => format!("http {}", h.url),
                backend::Transport::Sse(s) => format!("sse {}", s.url),
                backend::Transport::Unix(u) => format!("unix {}", u.path),
                backend::Transport::Websocket(w) => format!("websocket {}", w.url),
            };
            (&b.labels, detail)
        }
        resource::Kind::Gateway(g) => {
            let mut parts = vec![g.path.clone()];
            parts.extend(g.backends.iter().cloned());
            parts.extend(g.backend_labels.iter().map(|(k, v)| format!("{k}={v}")));
            parts.push(if g.auth.is_empty() {
                "open".to_owned()
            } else {
                format!("auth={}", g.auth)
            });
            (&g.labels, parts.join(" "))
        }
        resource::Kind::AuthPolicy(a) => {
            let detail = match a.scheme.as_ref()? {
                auth_policy::Scheme::Bearer(b) => format!("bearer, tokens: {}", b.tokens.len()),
            };
            (&a.labels, detail)
        }
        resource::Kind::Secret(s) => (&s.labels, format!("for {}", s.backends.join(" "))),
    })
}

#[cfg(test)]
mod tests {
    use fleet_proto::v1::{Backend, Gateway, StdioBackend};

    use super::*;

    fn some() -> Vec<Resource> {
        let stdio = StdioBackend {
            command: "npx".to_owned(),
            args: vec!["-y".to_owned(), "a b".to_owned()],
            ..Default::default()
        };
        let backend = Backend {
            name: "files".to_owned(),
            project: "team".to_owned(),
            labels: [("tier".to_owned(), "one".to_owned())].into(),
            transport: Some(backend::Transport::Stdio(stdio)),
            ..Default::default()
        };
        let gateway = Gateway {
            name: "default".to_owned(),
            project: "default".to_owned(),
            path: "/mcp".to_owned(),
            backends: vec!["*".to_owned()],
            ..Default::default()
        };
        [
            resource::Kind::Backend(backend),
            resource::Kind::Gateway(gateway),
        ]
        .map(|kind| Resource { kind: Some(kind) })
        .into()
    }

    #[test]
    fn tables_show_each_resource_on_a_line() {
        assert_eq!(
            show(&some(), Format::Table, false),
            "KIND      NAME         DETAIL\n\
             backend   team/files   stdio npx -y 'a b'\n\
             gateway   default      /mcp * open\n"
        );
        assert!(
            show(&some(), Format::Wide, false)
                .contains("backend   files     team      tier=one   stdio")
        );
    }

    #[test]
    fn names_are_taken_back_by_get() {
        assert_eq!(
            show(&some(), Format::Name, false),
            "backend/team/files\ngateway/default"
        );
    }

    #[test]
    fn json_is_a_list_unless_one_was_named() {
        let value = |single, n| {
            serde_json::from_str::<serde_json::Value>(&show(&some()[..n], Format::Json, single))
                .unwrap()
        };
        assert_eq!(value(true, 1)["name"], "files");
        assert_eq!(value(false, 1)[0]["name"], "files");
        assert_eq!(value(false, 0), serde_json::json!([]));
    }
}
