//! `mcpctl status`: the fleet on one screen.

use clap::Args;
use fleet_proto::{
    key::{Key, Kind},
    v1::{
        GetNodeStatusRequest, ListRequest, Node, NodeState, NodesRequest, Resource, Revision,
        RevisionsRequest,
    },
};

use super::{describe, nodes};
use crate::{
    args::AdminFlags, client, client::ControlPlane, clock, failure::Failure, kinds, output,
};

/// So many troubles fit on the screen.
const TROUBLES: usize = 15;
/// So many nodes are asked how their backends do.
const ASKED: usize = 100;

/// Flags of `status`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    admin: AdminFlags,
}

/// Shows it.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let target = flags.admin.resolve()?;
    let mut client = client::connect(&target).await?;
    let history = client.revisions(RevisionsRequest { limit: 1 }).await?;
    let history = history.into_inner();
    let stored = client.list(ListRequest::default()).await?.into_inner();
    let nodes = client.nodes(NodesRequest {}).await?.into_inner();
    let failing = failing(&target, &nodes.nodes).await?;
    output::data(&screen(&Seen {
        url: &target.url,
        lineage: &history.lineage,
        newest: history.revisions.first(),
        stored: &stored.resources,
        nodes: &nodes.nodes,
        failing: &failing,
        now: clock::now_ms(),
    }))
}

/// The backends that connected nodes say they cannot reach.
async fn failing(target: &ControlPlane, nodes: &[Node]) -> Result<Vec<String>, Failure> {
    let mut reports = client::reports(target).await?;
    let mut lines = Vec::new();
    let connected = nodes.iter().filter(|n| n.state() != NodeState::Offline);
    for node in connected.take(ASKED) {
        let node_id = node.node_id.clone();
        let reported = reports.get_node_status(GetNodeStatusRequest { node_id });
        // One that has reported nothing, or elsewhere, says nothing of its backends.
        if let Ok(reported) = reported.await {
            lines.extend(describe::node::failing(&node.node_id, reported.get_ref()));
        }
    }
    Ok(lines)
}

/// What there is to show.
struct Seen<'a> {
    url: &'a str,
    lineage: &'a str,
    newest: Option<&'a Revision>,
    stored: &'a [Resource],
    nodes: &'a [Node],
    /// Backends that nodes cannot reach.
    failing: &'a [String],
    now: u64,
}

fn screen(seen: &Seen<'_>) -> String {
    let revision = seen.newest.map_or_else(
        || "none: nothing has been written yet".to_owned(),
        |r| {
            let why = match r.message.as_str() {
                "" => String::new(),
                message => format!(": {}", output::brief(message, 60)),
            };
            let age = clock::age(r.created_ms, seen.now);
            format!("{}, {age} ago by {}{why}", r.number, r.author)
        },
    );
    let mut text = format!(
        "Control plane:  {}\nLineage:        {}\nRevision:       {}\nResources:      {}\nData planes:    {}\n",
        seen.url,
        seen.lineage,
        output::one_line(&revision),
        resources(seen.stored),
        states(seen.nodes)
    );
    let troubles: Vec<String> = {
        let newest = seen.newest.map_or(0, |r| r.number);
        let of = |node| nodes::troubles(node, newest);
        let of_nodes = seen.nodes.iter().flat_map(of);
        of_nodes.chain(seen.failing.iter().cloned()).collect()
    };
    for trouble in troubles.iter().take(TROUBLES) {
        text.push_str(&format!("  {}\n", output::one_line(trouble)));
    }
    if troubles.len() > TROUBLES {
        let more = troubles.len() - TROUBLES;
        text.push_str(&format!(
            "  and {more} more: see `mcpctl nodes` and `mcpctl describe node NAME`\n"
        ));
    }
    text
}

fn resources(stored: &[Resource]) -> String {
    let count = |kind: Kind| {
        let of_kind = stored
            .iter()
            .filter(|r| Key::of(r).is_some_and(|k| k.kind == kind));
        format!("{}: {}", kinds::word(kind), of_kind.count())
    };
    Kind::ALL.map(count).join(", ")
}

/// How many nodes stand how, and how many of them have something missing.
fn states(nodes: &[Node]) -> String {
    if nodes.is_empty() {
        return "none has connected yet".to_owned();
    }
    let states = [
        NodeState::Synced,
        NodeState::Pending,
        NodeState::Cached,
        NodeState::Pinned,
        NodeState::Nacked,
        NodeState::Offline,
        NodeState::Unspecified,
    ];
    let count = |state: NodeState| {
        let count = nodes.iter().filter(|n| n.state() == state).count();
        (count > 0).then(|| format!("{count} {}", nodes::state_word(state)))
    };
    let mut words: Vec<String> = states.into_iter().filter_map(count).collect();
    let degraded = nodes.iter().filter(|n| !n.degraded.is_empty()).count();
    if degraded > 0 {
        words.push(format!("{degraded} degraded"));
    }
    format!("{}: {}", nodes.len(), words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_fits_on_a_screen() {
        let node = |state: NodeState, degraded: usize| Node {
            node_id: "dp".to_owned(),
            state: state.into(),
            degraded: vec![
                fleet_proto::v1::Problem {
                    message: "no".to_owned(),
                    ..Default::default()
                };
                degraded
            ],
            ..Node::default()
        };
        let nodes = [
            node(NodeState::Synced, 0),
            node(NodeState::Synced, 20),
            node(NodeState::Offline, 0),
        ];
        let newest = Revision {
            number: 12,
            created_ms: 1_000,
            author: "ci".to_owned(),
            message: "why\nnot".to_owned(),
            ..Revision::default()
        };
        let text = screen(&Seen {
            url: "http://c",
            lineage: "l",
            newest: Some(&newest),
            stored: &[],
            nodes: &nodes,
            failing: &["dp cannot reach backend b".to_owned()],
            now: 6_000,
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "Revision:       12, 5s ago by ci: why");
        assert_eq!(
            lines[3],
            "Resources:      backend: 0, gateway: 0, auth-policy: 0, secret: 0"
        );
        assert_eq!(
            lines[4],
            "Data planes:    3: 2 SYNCED, 1 OFFLINE, 1 degraded"
        );
        assert_eq!(lines.len(), 5 + TROUBLES + 1);
    }
}
