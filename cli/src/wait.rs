//! Waiting until the connected data planes serve a revision, or say why not.

mod progress;
#[cfg(test)]
mod tests;
use std::{pin::pin, time::Duration};

use fleet_proto::{
    key::{Key, Kind},
    v1::{Node, NodeState, NodesRequest, NodesResponse, SetKind},
    validate::Problem,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use self::progress::Progress;
use crate::{client::Client, failure::Failure, output, verbs::nodes};

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Nodes must have answered this revision or a later one.
    pub(crate) revision: u64,
    /// And use this version of the secrets or a later one; 0: any.
    pub(crate) secrets: u64,
    /// What was written: what else does not work on a node is not this write's
    /// failure. `None`: everything counts.
    pub(crate) keys: Option<&'a [Key]>,
    /// How many percent of the connected nodes must serve it.
    pub(crate) percent: u8,
    /// How long.
    pub(crate) timeout: Duration,
    /// Whether to tell how far it is.
    pub(crate) progress: bool,
}

/// How the nodes stand towards what is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Connected, and serve it.
    served: Vec<String>,
    /// Connected, and have not answered.
    pending: Vec<String>,
    /// Not connected; they do not block.
    offline: Vec<String>,
    /// `node: reason`.
    refused: Vec<String>,
    /// `node: reason`, of resources that were not written.
    elsewhere: Vec<String>,
    /// How many are connected.
    connected: usize,
    /// Whether the control plane has that revision.
    known: bool,
}

impl Verdict {
    /// Whether so many percent of the connected nodes serve it.
    fn enough(&self, percent: u8) -> bool {
        self.served.len() * 100 >= self.connected * usize::from(percent)
    }

    /// Whether there is nothing left to wait for.
    fn over(&self, percent: u8) -> bool {
        self.known && (self.pending.is_empty() || self.enough(percent))
    }
}

/// Waits. Returns when as many of the connected nodes as wanted serve the
/// revision, or when there is none.
///
/// # Errors
/// `Refused` when too many nodes refused it or serve it with something of it
/// missing, `TimedOut` naming the nodes that did not answer.
pub(crate) async fn until_served(client: &mut Client, wanted: Wanted<'_>) -> Result<(), Failure> {
    let watch = async { Ok(client.watch_nodes(NodesRequest {}).await?.into_inner()) };
    served(watch, wanted).await
}

/// [`until_served`], by what a watch of the nodes shows. Opening it counts too.
async fn served<S>(
    open: impl Future<Output = Result<S, Status>>,
    wanted: Wanted<'_>,
) -> Result<(), Failure>
where
    S: Stream<Item = Result<NodesResponse, Status>>,
{
    let mut last = Verdict::default();
    let mut progress = Progress::new(wanted.progress);
    let watch = async {
        let mut states = pin!(open.await?);
        while let Some(nodes) = states.next().await {
            last = judge(&nodes?, wanted);
            if last.over(wanted.percent) {
                return Ok(());
            }
            progress.show(&last, wanted.revision);
        }
        Err(Failure::Unreachable(
            "the control plane ended the watch of its nodes".to_owned(),
        ))
    };
    let watched = tokio::time::timeout(wanted.timeout, watch).await;
    progress.end();
    match watched {
        Ok(answered) => answered?,
        Err(_) => return Err(late(&last, wanted)),
    }
    report(&last, wanted)
}

fn late(last: &Verdict, wanted: Wanted<'_>) -> Failure {
    let millis = u64::try_from(wanted.timeout.as_millis()).unwrap_or(u64::MAX);
    let timeout = fleet_proto::duration::Duration::from_millis(millis);
    // Nodes that nobody waits for are no reason.
    let who = if last.pending.is_empty() || last.enough(wanted.percent) {
        "the control plane".to_owned()
    } else {
        last.pending.join(", ")
    };
    let text = format!(
        "revision {} was not answered within {timeout} by: {who}",
        wanted.revision
    );
    if last.refused.is_empty() {
        return Failure::TimedOut(text);
    }
    output::note(&format!("error: {text}"));
    Failure::Refused(last.refused.join("\nerror: "))
}

fn report(verdict: &Verdict, wanted: Wanted<'_>) -> Result<(), Failure> {
    let revision = wanted.revision;
    for node in &verdict.offline {
        output::note(&format!(
            "note: {node} is offline and will get revision {revision} when it is back"
        ));
    }
    for reason in &verdict.elsewhere {
        output::note(&format!("warning: not of this change: {reason}"));
    }
    if !verdict.enough(wanted.percent) {
        return Err(Failure::Refused(verdict.refused.join("\nerror: ")));
    }
    for reason in &verdict.refused {
        output::note(&format!("warning: {reason}"));
    }
    if !verdict.pending.is_empty() {
        output::note(&format!(
            "note: not waited for: {}",
            verdict.pending.join(", ")
        ));
    }
    match (verdict.connected, &verdict.served[..]) {
        (0, _) => output::note(&format!(
            "note: no data plane is connected; revision {revision} is stored"
        )),
        (_, [one]) => output::note(&format!("revision {revision} is served by {one}")),
        (_, all) => output::note(&format!(
            "revision {revision} is served by {} data planes",
            all.len()
        )),
    }
    Ok(())
}

fn judge(answer: &NodesResponse, wanted: Wanted<'_>) -> Verdict {
    let Wanted { revision, keys, .. } = wanted;
    let mut verdict = Verdict {
        // A control plane of several may hear of a revision later than the nodes.
        known: answer.revision >= revision,
        ..Verdict::default()
    };
    for node in &answer.nodes {
        let id = node.node_id.clone();
        if node.state() != NodeState::Offline {
            verdict.connected += 1;
        }
        if node.state() == NodeState::Offline {
            verdict.offline.push(id);
        } else if node.nacked_revision >= revision && node.nacked_revision > node.revision {
            verdict.refused.extend(refusals(node));
        } else if node.revision < revision && node.state() == NodeState::Pinned {
            // It will not get there by waiting.
            verdict
                .refused
                .push(nodes::held_back(node, answer.revision));
        } else if node.revision < revision || lacks_secrets(node, wanted.secrets) {
            verdict.pending.push(id);
        } else {
            let (ours, others): (Vec<_>, Vec<_>) = node
                .degraded
                .iter()
                .map(Problem::from_wire)
                .partition(|p| concerns(p, keys));
            let reason =
                |p: Problem| format!("{id} serves revision {} without: {p}", node.revision);
            if ours.is_empty() {
                verdict.served.push(id.clone());
            }
            verdict.refused.extend(ours.into_iter().map(&reason));
            verdict.elsewhere.extend(others.into_iter().map(&reason));
        }
    }
    verdict
}

/// Whether a node has not answered this version of the secrets: a set that it could
/// not take shows among what does not work on it.
fn lacks_secrets(node: &Node, wanted: u64) -> bool {
    let mut sets = node.sets.iter();
    let version = sets.find(|set| set.set() == SetKind::Secrets);
    let refused =
        |problem: &fleet_proto::v1::Problem| problem.key.is_none() && problem.path == "secrets";
    version.map_or(0, |set| set.version) < wanted && !node.degraded.iter().any(refused)
}

fn refusals(node: &Node) -> Vec<String> {
    let start = format!("{} refused revision {}", node.node_id, node.nacked_revision);
    if node.errors.is_empty() {
        return vec![start];
    }
    node.errors
        .iter()
        .map(|e| format!("{start}: {}", Problem::from_wire(e)))
        .collect()
}

/// Whether a node's problem is one of what was written. A policy that cannot be
/// resolved shows at the gateways that use it.
fn concerns(problem: &Problem, keys: Option<&[Key]>) -> bool {
    let (Some(key), Some(keys)) = (&problem.key, keys) else {
        return true;
    };
    let through_policy = key.kind == Kind::Gateway
        && keys
            .iter()
            .any(|k| k.kind == Kind::AuthPolicy && k.project == key.project);
    through_policy || keys.contains(key)
}
