//! What the other files show on SQLite, on Postgres.

use anyhow::Result;
use fleet_tests::{postgres::cluster, store::Store};

use super::{access, churn, fleet, nodes, replace, split};

fn store() -> Store<'static> {
    Store::Postgres(cluster())
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_waits_for_both_data_planes_and_clients_need_no_affinity() -> Result<()> {
    fleet::no_affinity(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_and_return_of_the_control_plane_fail_no_call_and_data_planes_start_without_it()
-> Result<()> {
    fleet::death_and_return(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_allows_no_programs_starts_none_and_says_so() -> Result<()> {
    fleet::no_programs(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_revision_is_told_with_the_node_and_its_reason_and_the_next_one_heals()
-> Result<()> {
    fleet::refused(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_plane_serves_on_without_its_control_plane_and_finds_it_again() -> Result<()> {
    split::found_again(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_that_is_gone_is_shown_as_offline() -> Result<()> {
    split::offline(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_applies_under_load_fail_no_call_and_leave_nothing_behind() -> Result<()> {
    churn::churn(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unset_variable_fails_its_backend_on_that_node_only_and_is_told_with_its_name()
-> Result<()> {
    nodes::unset_variable(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_that_has_nothing_starts_with_the_newest_acked_revision_not_the_refused_one()
-> Result<()> {
    nodes::newest_acked(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_reads_everything_and_writes_nothing() -> Result<()> {
    access::viewer(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_project_sees_and_writes_nothing_of_another_and_ends_when_revoked()
-> Result<()> {
    access::project(store()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn data_planes_replaced_one_by_one_behind_nginx_fail_no_call() -> Result<()> {
    replace::behind_nginx(store()).await
}
