//! The gRPC door: `fleet.v1.ReportService`.

use std::sync::Arc;

use fleet_proto::v1::{self, report_service_server::ReportService};
use futures_util::{StreamExt, stream::BoxStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::open;
use crate::api::Api;

/// `ReportService` over an [`Api`].
pub(crate) struct Reports(pub(crate) Arc<Api>);

#[tonic::async_trait]
impl ReportService for Reports {
    async fn get_node_status(
        &self,
        request: Request<v1::GetNodeStatusRequest>,
    ) -> Result<Response<v1::GetNodeStatusResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.node_status(&caller, &request)?))
    }

    type FollowNodeLogStream = BoxStream<'static, Result<v1::LogLines, Status>>;

    async fn follow_node_log(
        &self,
        request: Request<v1::FollowNodeLogRequest>,
    ) -> Result<Response<Self::FollowNodeLogStream>, Status> {
        let (caller, request) = open(request)?;
        let lines = self.0.follow_log(caller, &request)?;
        let lines = ReceiverStream::new(lines).map(|item| item.map_err(Status::from));
        Ok(Response::new(lines.boxed()))
    }
}
