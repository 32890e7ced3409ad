//! `fleet.v1.SecurityService`.

use fleet_proto::v1::{self, security_service_server::SecurityService};
use tonic::{Request, Response, Status};

use super::{Grpc, open};

#[tonic::async_trait]
impl SecurityService for Grpc {
    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.revoke(&caller, request).await?))
    }

    async fn unrevoke(
        &self,
        request: Request<v1::UnrevokeRequest>,
    ) -> Result<Response<v1::UnrevokeResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.unrevoke(&caller, request).await?))
    }

    async fn list_revocations(
        &self,
        request: Request<v1::ListRevocationsRequest>,
    ) -> Result<Response<v1::ListRevocationsResponse>, Status> {
        let (caller, _) = open(request)?;
        Ok(Response::new(self.0.list_revocations(&caller)?))
    }

    async fn rotate_session_keys(
        &self,
        request: Request<v1::RotateSessionKeysRequest>,
    ) -> Result<Response<v1::RotateSessionKeysResponse>, Status> {
        let (caller, request) = open(request)?;
        let done = self.0.rotate_session_keys(&caller, request).await?;
        Ok(Response::new(done))
    }
}
