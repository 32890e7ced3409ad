//! The server of `fleet.v1.FleetReports`: one task for each node's stream.

use std::{sync::Arc, time::Duration};

use fleet_proto::v1::{
    FollowLog, NodeReport, ReportRequest, ReportsHello, StopLog,
    fleet_reports_server::FleetReports, node_report::Report, report_request,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Level, Reports};
use crate::{identity::credential::Credential, sync::valid_node_id};

/// A node says hello within this time, and something every 10 s from then on.
const PATIENCE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(45);
/// Requests that wait for a slow connection.
const WINDOW: usize = 2;
/// Bytes of the largest report: 10,000 backends, each with an error.
pub(crate) const LARGEST: usize = 16 << 20;

/// `FleetReports` over what is kept.
pub(crate) struct Server {
    reports: Arc<Reports>,
    shutdown: watch::Receiver<bool>,
}

impl Server {
    pub(crate) fn new(reports: Arc<Reports>, shutdown: watch::Receiver<bool>) -> Self {
        Self { reports, shutdown }
    }
}

type Answers = mpsc::Sender<Result<ReportRequest, Status>>;

#[tonic::async_trait]
impl FleetReports for Server {
    type ReportsStream = ReceiverStream<Result<ReportRequest, Status>>;

    /// Answers at once: a client may wait for the answer before it says hello.
    async fn reports(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::ReportsStream>, Status> {
        let credential = request.extensions().get::<Credential>().cloned();
        let credential =
            credential.ok_or_else(|| Status::internal("a stream has come past the guard"))?;
        let (sender, receiver) = mpsc::channel(WINDOW);
        let (reports, shutdown) = (Arc::clone(&self.reports), self.shutdown.clone());
        tokio::spawn(async move {
            let ended = serve(
                request.into_inner(),
                credential,
                &sender,
                &reports,
                shutdown,
            )
            .await;
            if let Err(status) = ended {
                // The node may have left already.
                let _ = timeout(PATIENCE, sender.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

async fn serve(
    mut inbound: Streaming<NodeReport>,
    mut credential: Credential,
    outbound: &Answers,
    reports: &Arc<Reports>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Status> {
    let hello = first(&mut inbound).await?;
    credential.speaks_for(&hello.node_id)?;
    let (session, mut wanted, mut replaced) = reports.connect(&hello.node_id);
    tracing::debug!(node = hello.node_id, boot = hello.boot_id, "reports");
    loop {
        let received = tokio::select! {
            _ = &mut replaced => return Err(taken()),
            () = stopped(&mut shutdown) => {
                return Err(Status::unavailable("the control plane stops"));
            }
            why = credential.void() => return Err(Status::unauthenticated(why)),
            () = outbound.closed() => return Ok(()),
            changed = wanted.changed() => {
                changed.map_err(|_| taken())?;
                let level = *wanted.borrow_and_update();
                let sent = timeout(PATIENCE, outbound.send(Ok(request(level)))).await;
                sent.map_err(|_| gone())?.map_err(|_| gone())?;
                continue;
            }
            received = timeout(SILENCE, inbound.next()) => received,
        };
        let received =
            received.map_err(|_| Status::deadline_exceeded("the node reports nothing any more"))?;
        let Some(report) = received.transpose()? else {
            return Ok(());
        };
        match report.report {
            Some(Report::Status(status)) => session.status(status),
            Some(Report::Log(lines)) => session.log(&lines),
            Some(Report::Hello(_)) => {
                return Err(Status::invalid_argument("a second hello on one stream"));
            }
            None => {
                return Err(Status::invalid_argument(
                    "a report of a kind that is not known here",
                ));
            }
        }
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|down| *down).await;
}

async fn first(inbound: &mut Streaming<NodeReport>) -> Result<ReportsHello, Status> {
    let message = timeout(PATIENCE, inbound.next())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello came: it must be the first message"))?
        .transpose()?;
    let Some(Report::Hello(hello)) = message.and_then(|message| message.report) else {
        return Err(Status::invalid_argument(
            "the first message of a stream must be a hello",
        ));
    };
    valid_node_id(&hello.node_id)?;
    Ok(hello)
}

fn request(level: Option<Level>) -> ReportRequest {
    let request = match level {
        Some(level) => report_request::Request::FollowLog(FollowLog {
            level: level.as_str().to_owned(),
        }),
        None => report_request::Request::StopLog(StopLog {}),
    };
    ReportRequest {
        request: Some(request),
    }
}

fn taken() -> Status {
    Status::aborted("a newer stream has the same node id")
}

fn gone() -> Status {
    Status::unavailable("the node has left")
}
