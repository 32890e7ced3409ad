//! Every data plane is stopped and started again behind a balancer, as for a new version of the
//! program: no call fails.

use anyhow::{Result, ensure};
use fleet_tests::{balancer::Balancer, load::Load, replicas::Replicas, store::Store, wait::until};

use super::fleet::{applied, backends, calls, clients};

#[tokio::test(flavor = "multi_thread")]
async fn data_planes_replaced_one_by_one_behind_nginx_fail_no_call() -> Result<()> {
    behind_nginx(Store::Sqlite).await
}

pub(super) async fn behind_nginx(store: Store<'_>) -> Result<()> {
    let backends = backends().await?;
    let mut replicas = Replicas::start_on(store, &[]).await?;
    // Longer than nginx keeps idle connections to data planes (5 s).
    replicas.add("one", &["--drain-seconds", "7"]).await?;
    replicas.add("two", &["--drain-seconds", "7"]).await?;
    applied(&replicas, &backends).await?;
    let balancer = Balancer::nginx(&replicas.planes).await?;
    replaced_under_load(&mut replicas, &balancer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn data_planes_replaced_one_by_one_behind_haproxy_fail_no_call() -> Result<()> {
    let backends = backends().await?;
    let mut replicas = Replicas::start(&[]).await?;
    replicas.add("one", &["--drain-seconds", "7"]).await?;
    replicas.add("two", &["--drain-seconds", "7"]).await?;
    applied(&replicas, &backends).await?;
    let balancer = Balancer::haproxy(&replicas.planes).await?;
    replaced_under_load(&mut replicas, &balancer).await
}

/// Stops the first data plane as systemd does and starts it again, then the second one, while 16
/// clients call without pause: what a new version of the program takes.
async fn replaced_under_load(replicas: &mut Replicas, balancer: &Balancer) -> Result<()> {
    let load = Load::start(clients(&balancer.url, 16).await?, &["alpha", "beta"]);
    for index in 0..replicas.planes.len() {
        load.goes_on(500).await?;
        let used = calls(replicas).await?;
        ensure!(
            used.iter().all(|calls| *calls > 0),
            "only one is used: {used:?}"
        );
        ensure!(replicas.planes[index].stop().await? == 0);
        load.goes_on(500).await?;
        replicas.restart(index).await?;
        let plane = &replicas.planes[index];
        until("calls at the new process", || async {
            plane.calls().await.ok().filter(|calls| *calls > 0)
        })
        .await?;
    }
    load.stop().await?;
    Ok(())
}
