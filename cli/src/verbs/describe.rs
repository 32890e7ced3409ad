//! `mcpctl describe`: a resource, who uses it, and how it does on the nodes; or a node.

pub(super) mod node;

use clap::Args;
use fleet_proto::{
    key::{DEFAULT_PROJECT, Key},
    select::Selector,
    v1::{Gateway, Node, NodesRequest, Resource, resource},
    validate::Problem,
    write::write_yaml,
};

use super::nodes;
use crate::{
    args::AdminFlags,
    change, client,
    failure::Failure,
    hide,
    kinds::{self, Selection},
    output,
};

/// Flags of `describe`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// `KIND NAME...` or `KIND/NAME...`, where KIND is backend, gateway, auth-policy, secret or node.
    #[arg(value_name = "KIND NAME", required = true)]
    what: Vec<String>,
    /// Project of the names; `default` when left out.
    #[arg(long, short, value_name = "NAME")]
    project: Option<String>,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Describes.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    if let Some(names) = node::names(&flags.what) {
        return node::run(&flags.admin.resolve()?, &names).await;
    }
    let selection = kinds::select(&flags.what, flags.project.as_deref())?;
    let mut client = client::connect(&flags.admin.resolve()?).await?;
    let stored = change::stored(&mut client).await?;
    let nodes = client.nodes(NodesRequest {}).await?.into_inner().nodes;
    let keys: Vec<Key> = match selection {
        Selection::All => Vec::new(),
        Selection::Kind(kind) => {
            let keys = stored.iter().filter_map(Key::of);
            keys.filter(|key| key.kind == kind).collect()
        }
        Selection::Keys(keys) => keys,
    };
    if keys.is_empty() {
        output::note("nothing is stored");
    }
    let texts: Result<Vec<String>, Failure> = keys
        .iter()
        .map(|key| {
            let resource = stored.iter().find(|r| Key::of(r).as_ref() == Some(key));
            let resource =
                resource.ok_or_else(|| Failure::other(format!("{key} does not exist")))?;
            Ok(describe(key, resource, &stored, &nodes))
        })
        .collect();
    output::data(&texts?.join("\n\n"))
}

fn describe(key: &Key, resource: &Resource, stored: &[Resource], nodes: &[Node]) -> String {
    let or_none = |names: Vec<String>| match names.is_empty() {
        true => "(none)".to_owned(),
        false => names.join(", "),
    };
    let mut text = format!(
        "Kind:      {}\nName:      {}\nProject:   {}\n",
        key.kind, key.name, key.project
    );
    if let Some(resource::Kind::Gateway(gateway)) = &resource.kind {
        text.push_str(&format!("Uses:      {}\n", or_none(uses(gateway, stored))));
    } else {
        text.push_str(&format!(
            "Used by:   {}\n",
            or_none(used_by(resource, stored))
        ));
    }
    text.push_str("Stored as:\n");
    for line in write_yaml([&hide::hidden(resource)]).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str("Nodes:\n");
    if nodes.is_empty() {
        text.push_str("  (none)\n");
    }
    for node in nodes {
        text.push_str(&format!(
            "  {}: {}, revision {}\n",
            output::one_line(&node.node_id),
            nodes::state_name(node),
            node.revision
        ));
        for line in problems(node, key) {
            text.push_str(&format!("    {}\n", output::one_line(&line)));
        }
    }
    text
}

/// What a gateway has behind it and in front of it.
fn uses(gateway: &Gateway, stored: &[Resource]) -> Vec<String> {
    let selector = Selector::new(gateway);
    let used = |resource: &&Resource| match &resource.kind {
        Some(resource::Kind::Backend(backend)) => selector.matches(backend),
        Some(resource::Kind::AuthPolicy(policy)) => {
            policy.project == gateway.project && policy.name == gateway.auth
        }
        _ => false,
    };
    names(stored.iter().filter(used))
}

/// The gateways that use a backend or a policy.
fn used_by(resource: &Resource, stored: &[Resource]) -> Vec<String> {
    let wanted = Key::of(resource).map(|key| kinds::slashed(&key));
    let gateway = |r: &&Resource| match &r.kind {
        Some(resource::Kind::Gateway(gateway)) => {
            let uses = uses(gateway, std::slice::from_ref(resource));
            uses.first() == wanted.as_ref()
        }
        _ => false,
    };
    let is_gateway = |r: &Resource| matches!(r.kind, Some(resource::Kind::Gateway(_)));
    match &resource.kind {
        // What is served where no gateway is stored.
        Some(resource::Kind::Backend(backend))
            if backend.project == DEFAULT_PROJECT && !stored.iter().any(is_gateway) =>
        {
            vec!["gateway/default (implied, at /mcp)".to_owned()]
        }
        _ => names(stored.iter().filter(gateway)),
    }
}

fn names<'a>(resources: impl Iterator<Item = &'a Resource>) -> Vec<String> {
    let keys = resources.filter_map(Key::of);
    keys.map(|key| kinds::slashed(&key)).collect()
}

/// What does not work of a resource on a node.
fn problems(node: &Node, key: &Key) -> Vec<String> {
    let of_key = |p: &&fleet_proto::v1::Problem| {
        p.key.as_ref().and_then(Key::from_wire).as_ref() == Some(key)
    };
    let text = |p: &fleet_proto::v1::Problem| {
        let problem = Problem {
            key: None,
            ..Problem::from_wire(p)
        };
        problem.to_string()
    };
    let refused = node.errors.iter().filter(of_key);
    let refused =
        refused.map(|p| format!("refused revision {}: {}", node.nacked_revision, text(p)));
    let degraded = node.degraded.iter().filter(of_key);
    let degraded = degraded.map(|p| format!("does not work: {}", text(p)));
    refused.chain(degraded).collect()
}

#[cfg(test)]
mod tests {
    use fleet_proto::{
        key::Kind,
        read::{Documents, read_yaml},
        v1::NodeState,
    };

    use super::*;

    fn stored(text: &str) -> Vec<Resource> {
        let mut documents = Documents::default();
        read_yaml("f", text, &mut documents);
        let (_, valid) = documents.check().unwrap();
        valid
            .iter()
            .map(|(_, entry)| entry.resource().clone())
            .collect()
    }

    const A: &str =
        "{ kind: Backend, name: a, http: { url: 'http://h/', bearer_token: abc123 } }\n---\n";
    const REST: &str = "{ kind: Backend, name: b, http: { url: 'http://h/' } }\n---\n\
        { kind: Gateway, name: g, path: /g, auth: staff, backends: [a] }\n---\n\
        { kind: AuthPolicy, name: staff, bearer: { tokens: ['${env:T}'] } }\n";

    #[test]
    fn a_description_says_who_uses_it_and_where_it_fails() {
        let stored = stored(&format!("{A}{REST}"));
        let key = Key::new("", Kind::Backend, "a");
        let problem = Problem {
            key: Some(key.clone()),
            path: "http.url".to_owned(),
            message: "is not allowed here".to_owned(),
        };
        let node = |id: &str, degraded| Node {
            node_id: id.to_owned(),
            state: NodeState::Synced.into(),
            revision: 3,
            degraded,
            ..Node::default()
        };
        let nodes = [
            node("dp-1", vec![]),
            node(
                "dp-2",
                vec![
                    problem.to_wire(),
                    Problem {
                        key: None,
                        ..problem
                    }
                    .to_wire(),
                ],
            ),
        ];
        assert_eq!(
            describe(&key, &stored[0], &stored, &nodes),
            "Kind:      Backend\nName:      a\nProject:   default\nUsed by:   gateway/g\n\
             Stored as:\n  kind: Backend\n  name: a\n  project: default\n  http:\n    url: http://h/\n    \
             bearer_token: \"(hidden)\"\n\
             Nodes:\n  dp-1: SYNCED, revision 3\n  dp-2: SYNCED (degraded), revision 3\n    \
             does not work: http.url: is not allowed here\n"
        );
    }

    #[test]
    fn uses_go_both_ways() {
        let all = stored(&format!("{A}{REST}"));
        let of = |name: &str| {
            let found = all
                .iter()
                .find(|r| Key::of(r).is_some_and(|k| k.name == name));
            used_by(found.unwrap(), &all)
        };
        assert_eq!(of("staff"), ["gateway/g"]);
        assert!(of("b").is_empty());
        let Some(resource::Kind::Gateway(gateway)) = &all[2].kind else {
            panic!("the third is the gateway")
        };
        assert_eq!(uses(gateway, &all), ["backend/a", "auth-policy/staff"]);
        let alone = stored(A);
        assert!(used_by(&alone[0], &alone)[0].contains("implied"));
    }
}
