//! Verdicts over nodes, and waiting for one over a scripted watch.

use std::future::{pending, ready};

use super::*;

fn node(id: &str, state: NodeState, revision: u64) -> Node {
    Node {
        node_id: id.to_owned(),
        state: state.into(),
        revision,
        ..Default::default()
    }
}

fn problem(kind: Kind, name: &str) -> fleet_proto::v1::Problem {
    Problem {
        key: Some(Key::new("", kind, name)),
        path: "stdio.command".to_owned(),
        message: "not found".to_owned(),
    }
    .to_wire()
}

fn judged(nodes: Vec<Node>, keys: &[Key]) -> Verdict {
    judge(
        &NodesResponse { nodes, revision: 7 },
        Wanted {
            keys: Some(keys),
            ..WANTED
        },
    )
}

#[test]
fn offline_nodes_do_not_block_and_late_ones_do() {
    let verdict = judged(
        vec![
            node("a", NodeState::Synced, 7),
            node("b", NodeState::Offline, 3),
            node("c", NodeState::Pending, 6),
        ],
        &[],
    );
    assert_eq!(
        (verdict.served, verdict.offline, verdict.pending),
        (
            vec!["a".to_owned()],
            vec!["b".to_owned()],
            vec!["c".to_owned()],
        )
    );
}

#[test]
fn a_nack_names_the_node_and_every_reason() {
    let mut nacked = node("a", NodeState::Nacked, 6);
    nacked.nacked_revision = 7;
    nacked.errors = vec![problem(Kind::Backend, "x"), problem(Kind::Backend, "y")];
    let verdict = judged(vec![nacked], &[]);
    assert_eq!(verdict.refused.len(), 2);
    assert!(
        verdict.refused[0].starts_with("a refused revision 7: "),
        "{verdict:?}"
    );
}

#[test]
fn a_node_that_is_held_back_is_not_waited_for_and_one_that_serves_from_disk_is() {
    let nodes = vec![
        node("held", NodeState::Pinned, 6),
        node("disk", NodeState::Cached, 6),
    ];
    let verdict = judged(nodes, &[]);
    assert_eq!(verdict.pending, ["disk"]);
    assert!(
        verdict.refused[0].starts_with("held stays with revision 6"),
        "{verdict:?}"
    );
    // What it serves it does serve.
    let answer = NodesResponse {
        nodes: vec![node("held", NodeState::Pinned, 6)],
        revision: 7,
    };
    assert_eq!(
        judge(
            &answer,
            Wanted {
                revision: 6,
                ..WANTED
            }
        )
        .served,
        ["held"]
    );
}

#[test]
fn a_node_without_the_new_values_is_waited_for_and_one_that_cannot_take_them_is_not() {
    let with = |version| Node {
        sets: vec![fleet_proto::v1::SetVersion {
            set: SetKind::Secrets.into(),
            version,
            tag: Vec::new(),
        }],
        ..node("n", NodeState::Synced, 7)
    };
    let mut failed = with(2);
    failed.degraded = vec![fleet_proto::v1::Problem {
        path: "secrets".to_owned(),
        message: "no room".to_owned(),
        ..Default::default()
    }];
    let wanted = Wanted {
        secrets: 3,
        ..WANTED
    };
    let judged = |node| {
        let nodes = vec![node];
        judge(&NodesResponse { nodes, revision: 7 }, wanted)
    };
    assert_eq!(judged(node("n", NodeState::Synced, 7)).pending, ["n"]);
    assert_eq!(judged(with(2)).pending, ["n"]);
    assert_eq!(judged(with(3)).served, ["n"]);
    assert!(judged(failed).refused[0].contains("no room"));
}

#[test]
fn an_older_refusal_does_not_count() {
    let mut node = node("a", NodeState::Pending, 5);
    node.nacked_revision = 6;
    assert_eq!(judged(vec![node], &[]).pending, ["a"]);
}

#[test]
fn only_what_was_written_is_a_failure_of_the_write() {
    let mut node = node("a", NodeState::Synced, 7);
    node.degraded = vec![
        problem(Kind::Backend, "mine"),
        problem(Kind::Backend, "theirs"),
    ];
    let verdict = judged(vec![node.clone()], &[Key::new("", Kind::Backend, "mine")]);
    assert_eq!(
        (
            verdict.refused.len(),
            verdict.elsewhere.len(),
            verdict.served.len()
        ),
        (1, 1, 0)
    );
    node.degraded = vec![problem(Kind::Gateway, "g")];
    let verdict = judged(vec![node], &[Key::new("", Kind::AuthPolicy, "staff")]);
    assert_eq!(
        verdict.refused.len(),
        1,
        "a gateway shows what is wrong with its policy"
    );
}

/// Waits a minute for revision 7 of nodes that stand like this, one after the
/// other; then nothing more comes.
async fn waited(script: Vec<Vec<Node>>) -> Result<(), Failure> {
    waited_for(WANTED, script).await
}

async fn waited_for(wanted: Wanted<'_>, script: Vec<Vec<Node>>) -> Result<(), Failure> {
    let state = |nodes| Ok(NodesResponse { nodes, revision: 7 });
    let script = tokio_stream::iter(script.into_iter().map(state));
    let script = script.chain(tokio_stream::pending());
    served(ready(Ok(script)), wanted).await
}

const WANTED: Wanted<'_> = Wanted {
    revision: 7,
    secrets: 0,
    keys: Some(&[]),
    percent: 100,
    timeout: Duration::from_secs(60),
    progress: false,
};

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_last_connected_node_serves_it() {
    let steps = vec![
        vec![
            node("a", NodeState::Pending, 6),
            node("b", NodeState::Pending, 6),
        ],
        vec![
            node("a", NodeState::Synced, 7),
            node("b", NodeState::Pending, 6),
        ],
        vec![
            node("a", NodeState::Synced, 7),
            node("b", NodeState::Offline, 6),
        ],
    ];
    let started = tokio::time::Instant::now();
    waited(steps).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    waited(vec![Vec::new()]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_times_out_exits_5_and_names_who_did_not_answer() {
    let steps = vec![
        vec![
            node("a", NodeState::Pending, 6),
            node("b", NodeState::Pending, 6),
        ],
        vec![
            node("a", NodeState::Synced, 7),
            node("b", NodeState::Pending, 6),
        ],
    ];
    let started = tokio::time::Instant::now();
    let failure = waited(steps).await.unwrap_err();
    assert_eq!(started.elapsed(), WANTED.timeout);
    assert_eq!(failure.exit_code(), 5);
    assert_eq!(
        failure.to_string(),
        "error: revision 7 was not answered within 1m by: b"
    );
    // Nothing was shown at all; nothing was even opened.
    let silent = waited(Vec::new()).await.unwrap_err();
    let shut = pending::<Result<tokio_stream::Empty<_>, _>>();
    let shut = served(shut, WANTED).await.unwrap_err();
    for failure in [silent, shut] {
        assert_eq!(failure.exit_code(), 5);
        assert!(failure.to_string().ends_with("by: the control plane"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_outweighs_nodes_that_are_late() {
    let mut refused = node("a", NodeState::Nacked, 6);
    refused.nacked_revision = 7;
    let late = vec![refused.clone(), node("b", NodeState::Pending, 6)];
    let failure = waited(vec![late]).await.unwrap_err();
    assert_eq!(failure.exit_code(), 6);
    let failure = waited(vec![vec![refused]]).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "error: a refused revision 7",
        "and nobody is waited for"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_or_fails_is_not_a_verdict() {
    let nodes = vec![node("a", NodeState::Pending, 6)];
    let last = Ok(NodesResponse { nodes, revision: 7 });
    let ended = served(ready(Ok(tokio_stream::iter([last.clone()]))), WANTED);
    assert_eq!(ended.await.unwrap_err().exit_code(), 8);
    let cut = [last, Err(Status::unavailable("gone"))];
    let failed = served(ready(Ok(tokio_stream::iter(cut))), WANTED);
    assert_eq!(failed.await.unwrap_err().exit_code(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_nodes_may_be_enough() {
    let mut refused = node("c", NodeState::Nacked, 6);
    refused.nacked_revision = 7;
    let nodes = vec![
        node("a", NodeState::Synced, 7),
        node("b", NodeState::Pending, 6),
        refused.clone(),
        node("off", NodeState::Offline, 6),
    ];
    let share = |percent| Wanted { percent, ..WANTED };
    let started = tokio::time::Instant::now();
    waited_for(share(33), vec![nodes.clone()]).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO, "and b is not waited for");
    // 34 % of three are two: b must answer, and does not.
    let failure = waited_for(share(34), vec![nodes.clone()]).await;
    assert_eq!(failure.unwrap_err().exit_code(), 6);
    let healed = vec![
        node("a", NodeState::Synced, 7),
        node("b", NodeState::Synced, 7),
        refused,
    ];
    waited_for(share(34), vec![nodes, healed.clone()])
        .await
        .unwrap();
    let failure = waited_for(share(67), vec![healed]).await;
    assert_eq!(failure.unwrap_err().exit_code(), 6);
}

#[tokio::test(start_paused = true)]
async fn without_named_resources_everything_that_is_missing_counts() {
    let mut degraded = node("a", NodeState::Synced, 7);
    degraded.degraded = vec![problem(Kind::Backend, "theirs")];
    waited(vec![vec![degraded.clone()]]).await.unwrap();
    let all = Wanted {
        keys: None,
        ..WANTED
    };
    let failure = waited_for(all, vec![vec![degraded]]).await.unwrap_err();
    assert_eq!(failure.exit_code(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_not_there_yet_is_waited_for() {
    let early = Wanted {
        revision: 8,
        ..WANTED
    };
    let failure = waited_for(early, vec![Vec::new()]).await.unwrap_err();
    assert_eq!(failure.exit_code(), 5, "no node, but no revision either");
}
