//! `mcpctl nodes`: the data planes and what each of them serves.

use clap::Args;
use fleet_proto::{
    v1::{Node, NodeState, NodesRequest},
    validate::Problem,
};

use crate::{
    args::AdminFlags,
    client, clock,
    failure::Failure,
    output::{self, Listing},
};

/// Flags of `nodes`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// How to show them.
    #[arg(long, short, value_enum, default_value_t = Listing::Table)]
    output: Listing,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Shows them.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let mut client = client::connect(&flags.admin.resolve()?).await?;
    let answer = client.nodes(NodesRequest {}).await?.into_inner();
    if answer.nodes.is_empty() {
        output::note("no data plane has connected yet");
    }
    output::data(&output::listing(
        flags.output,
        &answer.nodes,
        &answer.nodes,
        |node| node.node_id.clone(),
        |nodes, wide| table(nodes, wide, clock::now_ms()),
    )?)?;
    if matches!(flags.output, Listing::Table | Listing::Wide) {
        let newest = answer.revision;
        for line in answer.nodes.iter().flat_map(|node| troubles(node, newest)) {
            output::note(&output::one_line(&line));
        }
    }
    Ok(())
}

fn table(nodes: &[Node], wide: bool, now: u64) -> String {
    let mut head = vec!["NODE", "STATE", "REVISION", "SEEN", "VERSION"];
    if wide {
        head.extend(["APPLIED IN", "CERTIFICATE UNTIL", "BOOT", "LABELS"]);
    }
    let row = |node: &Node| {
        let mut cells = vec![
            node.node_id.clone(),
            state_name(node),
            node.revision.to_string(),
            format!("{} ago", clock::age(node.last_seen_ms, now)),
            node.version.clone(),
        ];
        if wide {
            let labels: Vec<String> = node
                .labels
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            cells.extend([
                format!("{} us", node.apply_us),
                match node.certificate_expires_ms {
                    0 => "none".to_owned(),
                    until => clock::rfc3339(until),
                },
                node.boot_id.clone(),
                labels.join(","),
            ]);
        }
        cells
    };
    output::table(&head, &nodes.iter().map(row).collect::<Vec<_>>())
}

/// How a node stands, in the words of the list.
pub(crate) fn state_name(node: &Node) -> String {
    let name = state_word(node.state());
    if node.degraded.is_empty() {
        name.to_owned()
    } else {
        format!("{name} (degraded)")
    }
}

/// The word for a state.
pub(crate) const fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Unspecified => "UNKNOWN",
        NodeState::Synced => "SYNCED",
        NodeState::Pending => "PENDING",
        NodeState::Nacked => "NACKED",
        NodeState::Offline => "OFFLINE",
        NodeState::Cached => "CACHED",
        NodeState::Pinned => "PINNED",
    }
}

/// Why a node does not get the newest revision.
pub(crate) fn held_back(node: &Node, newest: u64) -> String {
    format!(
        "{} stays with revision {}: revision {newest} was refused by a data plane of its version and \
         has been taken by none",
        node.node_id, node.revision
    )
}

/// What is wrong with a node, a line each.
pub(crate) fn troubles(node: &Node, newest: u64) -> Vec<String> {
    let id = &node.node_id;
    let held_back = (node.state() == NodeState::Pinned).then(|| held_back(node, newest));
    let refused = node.errors.iter().map(|e| {
        format!(
            "{id} refused revision {}: {}",
            node.nacked_revision,
            Problem::from_wire(e)
        )
    });
    let degraded = node
        .degraded
        .iter()
        .map(|d| format!("{id} serves without: {}", Problem::from_wire(d)));
    held_back
        .into_iter()
        .chain(refused)
        .chain(degraded)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_degraded_node_shows_in_the_table_and_says_why() {
        let node = Node {
            node_id: "dp-1".to_owned(),
            state: NodeState::Synced.into(),
            revision: 7,
            version: "0.1.0".to_owned(),
            last_seen_ms: 1_000,
            degraded: vec![fleet_proto::v1::Problem {
                message: "no such command".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            table(std::slice::from_ref(&node), false, 3_000),
            "NODE   STATE               REVISION   SEEN     VERSION\n\
             dp-1   SYNCED (degraded)   7          2s ago   0.1.0\n"
        );
        assert!(troubles(&node, 7)[0].contains("no such command"));
    }

    #[test]
    fn a_node_that_is_held_back_says_why() {
        let node = Node {
            node_id: "dp-1".to_owned(),
            state: NodeState::Pinned.into(),
            revision: 6,
            ..Default::default()
        };
        let said = troubles(&node, 7);
        assert!(
            said[0].starts_with("dp-1 stays with revision 6: revision 7 was refused"),
            "{said:?}"
        );
    }
}
