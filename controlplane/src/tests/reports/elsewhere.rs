//! Several control planes over one Postgres: reports are where the node is.

use super::{super::shared::Fleet, *};

#[tokio::test]
async fn what_a_node_reports_to_another_control_plane_is_to_be_asked_there() {
    let (fleet, a) = Fleet::new().await;
    let b = fleet.join().await;
    let (_stream, _) = a.connect_synced("n1").await;
    let node = Reporting::open(&a, "n1").await;
    node.say(Report::Status(doing(1, &["default"]))).await;
    until_calls(&mut reader(&a, &a.admin).await, "n1", 1).await;
    b.until_state("n1", NodeState::Synced).await;
    let mut other = reader(&b, &b.admin).await;
    let refused = status(&mut other, "n1").await.unwrap_err();
    let log = other.follow_node_log(follow("n1", "")).await.unwrap_err();
    for refused in [refused, log] {
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(
            refused.message().contains("another control plane"),
            "{refused}"
        );
    }
}
