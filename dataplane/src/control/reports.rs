//! The node's end of `FleetReports`: how it does, and its log while somebody follows it.
//!
//! On a connection of its own, so that nothing here holds up configuration, to the control
//! plane that its configuration comes from.

mod status;

use std::{sync::Arc, time::Duration};

use fleet_proto::v1::{
    LogLines, NodeReport, ReportRequest, ReportsHello, fleet_reports_client::FleetReportsClient,
    node_report::Report, report_request::Request as Asked,
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::link::Link;
use crate::{logs, node::Node, sealed};
use status::Watch;

/// How often the node looks at itself.
const LOOK: Duration = Duration::from_secs(1);
/// Log lines within this time go out together.
const GATHER: Duration = Duration::from_millis(100);
/// Bound of the jittered pause before another attempt.
const PAUSE: Duration = Duration::from_secs(5);
/// The pause where the control plane does not know reports.
const UNKNOWN: Duration = Duration::from_secs(60);
/// Reports under way: a slow connection gets fewer of them.
const QUEUE: usize = 2;

/// Reports to the control plane that is reached, until the process ends.
pub(super) async fn run(node: Arc<Node>, boot_id: String, link: Arc<Link>) {
    let mut connected = node.control.connected();
    loop {
        let reached = connected.wait_for(Option::is_some).await;
        let Some(url) = reached.ok().and_then(|url| url.clone()) else {
            return;
        };
        let ended = tokio::select! {
            ended = Box::pin(stream(&node, &boot_id, &url, &link)) => ended,
            () = other_than(&mut connected, &url) => continue,
        };
        let reason = ended.err().unwrap_or_else(|| Status::ok("it was ended"));
        tracing::debug!(
            url,
            reason = reason.message(),
            "no reports to the control plane"
        );
        let pause = if reason.code() == Code::Unimplemented {
            UNKNOWN
        } else {
            let random = sealed::random::<1>().map_or(u8::MAX, |[random]| random);
            PAUSE.mul_f64(f64::from(random) / f64::from(u8::MAX))
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = other_than(&mut connected, &url) => {}
        }
    }
}

/// Resolves when another control plane, or none, is reached.
async fn other_than(connected: &mut watch::Receiver<Option<String>>, url: &str) {
    let is_other = |now: &Option<String>| now.as_deref() != Some(url);
    if connected.wait_for(is_other).await.map(drop).is_err() {
        std::future::pending().await
    }
}

/// One stream, to its end.
async fn stream(node: &Arc<Node>, boot_id: &str, url: &str, link: &Link) -> Result<(), Status> {
    let (say, sent) = mpsc::channel(QUEUE);
    let hello = Report::Hello(ReportsHello {
        node_id: node.settings.node_id.clone(),
        boot_id: boot_id.to_owned(),
    });
    let closed = |_| Status::unavailable("the stream is closed");
    say.send(report(hello)).await.map_err(closed)?;
    let mut client = FleetReportsClient::new(link.connect(url).await?);
    let request = link.authorized(url, ReceiverStream::new(sent))?;
    let mut asked = client.reports(request).await?.into_inner();

    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    let mut follower: Option<logs::Follower> = None;
    loop {
        tokio::select! {
            request = asked.message() => match request? {
                Some(request) => follower = followed(request, follower)?,
                None => return Ok(()),
            },
            _ = look.tick() => {
                // No room: the connection is slow, and the next look will do.
                if let Ok(permit) = say.try_reserve()
                    && let Some(status) = watch.look(node)
                {
                    permit.send(report(Report::Status(status)));
                }
            }
            lines = lines(follower.as_ref()) => {
                say.send(report(Report::Log(lines))).await.map_err(closed)?;
            }
        }
    }
}

/// What of the log is followed after a request.
fn followed(
    request: ReportRequest,
    before: Option<logs::Follower>,
) -> Result<Option<logs::Follower>, Status> {
    match request.request {
        Some(Asked::FollowLog(follow)) => match logs::level(&follow.level) {
            Some(level) => Ok(Some(logs::Follower::new(level))),
            None => Ok(before),
        },
        Some(Asked::StopLog(_)) => Ok(None),
        None => Err(Status::unimplemented("not understood by this version")),
    }
}

/// The next lines; never, where nobody follows.
async fn lines(follower: Option<&logs::Follower>) -> LogLines {
    let Some(follower) = follower else {
        return std::future::pending().await;
    };
    follower.arrived().await;
    sleep(GATHER).await;
    follower.take()
}

fn report(report: Report) -> NodeReport {
    NodeReport {
        report: Some(report),
    }
}
