//! `mcpctl describe node NAME`: how a data plane stands, and how it says it does.

use fleet_proto::v1::{
    BackendStatus, CatalogueState, GetNodeStatusRequest, GetNodeStatusResponse, Node, NodesRequest,
};

use super::nodes;
use crate::{client, client::ControlPlane, clock, failure::Failure, kinds, output};

/// The names, where nodes are asked for: `node NAME...` or `node/NAME...`.
pub(super) fn names(words: &[String]) -> Option<Vec<&str>> {
    let is_node = |word: &str| ["node", "nodes"].contains(&word.to_ascii_lowercase().as_str());
    let first = words.first()?;
    if is_node(first) {
        return Some(words[1..].iter().map(String::as_str).collect());
    }
    let name = |word: &'_ String| {
        let (kind, name) = word.split_once('/')?;
        is_node(kind).then_some(name.to_owned())
    };
    name(first)?;
    let slashed = words.iter().map(|word| word.split_once('/'));
    Some(
        slashed
            .map(|pair| pair.map_or("", |(_, name)| name))
            .collect(),
    )
}

/// Describes them; without names, all.
pub(super) async fn run(target: &ControlPlane, names: &[&str]) -> Result<(), Failure> {
    let answer = client::connect(target)
        .await?
        .nodes(NodesRequest {})
        .await?;
    let answer = answer.into_inner();
    let mut wanted = Vec::new();
    for name in names {
        let found = answer.nodes.iter().find(|node| node.node_id == *name);
        wanted.push(found.ok_or_else(|| Failure::other(format!("there is no node {name}")))?);
    }
    if names.is_empty() {
        wanted.extend(&answer.nodes);
    }
    if wanted.is_empty() {
        output::note("no data plane has connected yet");
    }
    let mut reports = client::reports(target).await?;
    let mut texts = Vec::new();
    for node in wanted {
        let node_id = node.node_id.clone();
        let reported = reports
            .get_node_status(GetNodeStatusRequest { node_id })
            .await;
        let reported = match reported {
            Ok(reported) => Ok(reported.into_inner()),
            Err(status) => Err(status.message().to_owned()),
        };
        texts.push(describe(node, &reported, answer.revision, clock::now_ms()));
    }
    output::data(&texts.join("\n"))
}

fn describe(
    node: &Node,
    reported: &Result<GetNodeStatusResponse, String>,
    newest: u64,
    now: u64,
) -> String {
    let labels: Vec<_> = node
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let mut lines = vec![
        format!("Node:         {}", node.node_id),
        format!("State:        {}", nodes::state_name(node)),
        format!("Revision:     {} of {newest}", node.revision),
        format!("Version:      {}", node.version),
        format!("Boot:         {}", node.boot_id),
        format!("Labels:       {}", labels.join(",")),
        format!("Peers:        {}", peer_address(node)),
        format!("Seen:         {} ago", clock::age(node.last_seen_ms, now)),
    ];
    let troubles = nodes::troubles(node, newest);
    lines.extend(troubles.iter().map(|trouble| format!("  {trouble}")));
    match reported {
        Ok(reported) => lines.extend(status(reported, now)),
        Err(why) => lines.push(format!("Status:       none: {why}")),
    }
    let lines = lines.iter().map(|line| output::one_line(line) + "\n");
    lines.collect()
}

/// Where other data planes reach it.
fn peer_address(node: &Node) -> &str {
    match node.peer_address.as_str() {
        "" => "none: it has no peer listener",
        address => address,
    }
}

fn status(reported: &GetNodeStatusResponse, now: u64) -> Vec<String> {
    let status = reported.status.clone().unwrap_or_default();
    let memory = match status.memory_bytes {
        0 => "not known".to_owned(),
        bytes => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    };
    let mut lines = vec![
        format!("Status:       {} ago", clock::age(reported.at_ms, now)),
        format!(
            "Uptime:       {}",
            clock::age(0, status.uptime_seconds * 1_000)
        ),
        format!("Connections:  {}", status.connections),
        format!(
            "Tool calls:   {}, {} of them failed",
            status.calls, status.errors
        ),
        format!("Memory:       {memory}"),
        format!("Backends:     {}", status.backends.len()),
    ];
    let rows: Vec<_> = status.backends.iter().map(row).collect();
    let head = ["NAME", "STATE", "TOOLS", "RESOURCES", "PROMPTS", "ERROR"];
    if !rows.is_empty() {
        let table = output::table(&head, &rows);
        lines.extend(table.lines().map(|line| format!("  {line}")));
    }
    lines
}

fn row(backend: &BackendStatus) -> Vec<String> {
    vec![
        name(backend),
        word(backend.state()).to_owned(),
        backend.tools.to_string(),
        backend.resources.to_string(),
        backend.prompts.to_string(),
        backend.error.clone(),
    ]
}

fn name(backend: &BackendStatus) -> String {
    let kind = fleet_proto::key::Kind::Backend;
    kinds::qualified(&fleet_proto::key::Key::new(
        &backend.project,
        kind,
        &backend.name,
    ))
}

const fn word(state: CatalogueState) -> &'static str {
    match state {
        CatalogueState::Unspecified => "unknown",
        CatalogueState::Fresh => "fresh",
        CatalogueState::Stale => "stale",
        CatalogueState::Failed => "failed",
    }
}

/// The backends that a node cannot reach, a line each.
pub(in crate::verbs) fn failing(node_id: &str, reported: &GetNodeStatusResponse) -> Vec<String> {
    let backends = reported.status.iter().flat_map(|status| &status.backends);
    let failing = backends.filter(|backend| !backend.error.is_empty());
    let line = |backend: &BackendStatus| {
        format!(
            "{node_id} cannot reach backend {} ({}): {}",
            name(backend),
            word(backend.state()),
            backend.error
        )
    };
    failing.map(line).collect()
}

#[cfg(test)]
mod tests {
    use fleet_proto::v1::{NodeState, NodeStatus};

    use super::*;

    fn reported() -> GetNodeStatusResponse {
        let backend = |name: &str, state: CatalogueState, error: &str| BackendStatus {
            project: "default".to_owned(),
            name: name.to_owned(),
            state: state.into(),
            tools: 2,
            error: error.to_owned(),
            ..BackendStatus::default()
        };
        let status = NodeStatus {
            uptime_seconds: 120,
            connections: 3,
            calls: 40,
            errors: 1,
            memory_bytes: 3 << 20,
            backends: vec![
                backend("good", CatalogueState::Fresh, ""),
                backend("bad", CatalogueState::Stale, "connection refused"),
            ],
        };
        GetNodeStatusResponse {
            status: Some(status),
            at_ms: 8_000,
        }
    }

    #[test]
    fn a_node_is_described_with_what_it_has_reported() {
        let node = Node {
            node_id: "dp-1".to_owned(),
            state: NodeState::Synced.into(),
            revision: 7,
            last_seen_ms: 9_000,
            version: "0.1.0".to_owned(),
            peer_address: "10.0.0.1:8183".to_owned(),
            ..Node::default()
        };
        let text = describe(&node, &Ok(reported()), 7, 10_000);
        for part in [
            "Node:         dp-1\nState:        SYNCED\nRevision:     7 of 7\n",
            "Peers:        10.0.0.1:8183\n",
            "Status:       2s ago\nUptime:       2m\nConnections:  3\n",
            "Tool calls:   40, 1 of them failed\nMemory:       3.0 MiB\nBackends:     2\n",
            "  bad    stale   2       0           0         connection refused\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        let text = describe(&node, &Err("nothing came".to_owned()), 7, 10_000);
        assert!(
            text.ends_with("Status:       none: nothing came\n"),
            "{text}"
        );
    }

    #[test]
    fn failing_backends_are_named_with_their_node() {
        assert_eq!(
            failing("dp-1", &reported()),
            ["dp-1 cannot reach backend bad (stale): connection refused"]
        );
    }

    #[test]
    fn nodes_are_named_as_resources_are() {
        let names_of = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(ToString::to_string).collect();
            names(&words).map(|n| n.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(names_of(&["node", "a", "b"]).unwrap(), ["a", "b"]);
        assert_eq!(names_of(&["node/a", "node/b"]).unwrap(), ["a", "b"]);
        assert!(names_of(&["nodes"]).unwrap().is_empty());
        assert!(names_of(&["backend", "node"]).is_none());
        assert!(names_of(&["backend/node"]).is_none());
    }
}
