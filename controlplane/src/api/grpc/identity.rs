//! `fleet.v1.IdentityService`.

use fleet_proto::v1::{self, identity_service_server::IdentityService};
use tonic::{Request, Response, Status};

use super::{Grpc, open};

#[tonic::async_trait]
impl IdentityService for Grpc {
    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        let (caller, request) = open(request)?;
        let made = self.0.create_join_token(&caller, request).await?;
        Ok(Response::new(made))
    }

    async fn list_join_tokens(
        &self,
        request: Request<v1::ListJoinTokensRequest>,
    ) -> Result<Response<v1::ListJoinTokensResponse>, Status> {
        let (caller, request) = open(request)?;
        let found = self.0.list_join_tokens(&caller, request).await?;
        Ok(Response::new(found))
    }

    async fn revoke_join_token(
        &self,
        request: Request<v1::RevokeJoinTokenRequest>,
    ) -> Result<Response<v1::RevokeJoinTokenResponse>, Status> {
        let (caller, request) = open(request)?;
        let revoked = self.0.revoke_join_token(&caller, request).await?;
        Ok(Response::new(revoked))
    }

    async fn revoke_node(
        &self,
        request: Request<v1::RevokeNodeRequest>,
    ) -> Result<Response<v1::RevokeNodeResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.revoke_node(&caller, request).await?))
    }

    async fn get_trust(
        &self,
        request: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::GetTrustResponse>, Status> {
        // A good token is enough.
        let _ = open(request)?;
        Ok(Response::new(self.0.trust().await?))
    }
}
