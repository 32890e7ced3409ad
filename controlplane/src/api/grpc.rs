//! The gRPC door: `fleet.v1.ConfigService`, and `fleet.v1.IdentityService` in
//! `grpc/identity`.

use std::{sync::Arc, time::Duration};

use fleet_proto::{
    v1::{self, config_service_server::ConfigService},
    validate::Problem,
};
use prost::Message;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Api, ApiError, auth::Caller};

mod identity;
pub(crate) mod reports;
mod security;

/// Problems travel in a header field of the answer; clients take 16 KiB of
/// header by default, and base64 adds a third. `Validate` gives all of them.
const DETAILS: usize = 6 * 1024;
/// Longest text of a status, in bytes: percent-encoding may triple it.
const LONGEST_STATUS: usize = 1024;
/// Changes of nodes within this time make one answer of `WatchNodes`.
const GATHER: Duration = Duration::from_millis(5);

/// How often a watch asks whether its token is still good.
const RECHECK: Duration = Duration::from_secs(5);

/// Both services over an [`Api`].
pub(crate) struct Grpc(pub(crate) Arc<Api>);

#[tonic::async_trait]
impl ConfigService for Grpc {
    async fn validate(
        &self,
        request: Request<v1::ValidateRequest>,
    ) -> Result<Response<v1::ValidateResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.validate(&caller, request).await?))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.apply(&caller, request).await?))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.get(&caller, &request)?))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.list(&caller, &request)?))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.delete(&caller, request).await?))
    }

    async fn revisions(
        &self,
        request: Request<v1::RevisionsRequest>,
    ) -> Result<Response<v1::RevisionsResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.revisions(&caller, request).await?))
    }

    async fn get_revision(
        &self,
        request: Request<v1::GetRevisionRequest>,
    ) -> Result<Response<v1::GetRevisionResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.revision(&caller, request).await?))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.rollback(&caller, request).await?))
    }

    async fn audit(
        &self,
        request: Request<v1::AuditRequest>,
    ) -> Result<Response<v1::AuditResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.audit(&caller, request).await?))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.create_token(&caller, request).await?))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.list_tokens(&caller, request).await?))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let (caller, request) = open(request)?;
        Ok(Response::new(self.0.revoke_token(&caller, request).await?))
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let (caller, _) = open(request)?;
        let token = Some(caller.token);
        Ok(Response::new(v1::WhoAmIResponse { token }))
    }

    async fn nodes(
        &self,
        request: Request<v1::NodesRequest>,
    ) -> Result<Response<v1::NodesResponse>, Status> {
        let (caller, _) = open(request)?;
        Ok(Response::new(self.0.nodes(&caller)))
    }

    type WatchNodesStream = ReceiverStream<Result<v1::NodesResponse, Status>>;

    async fn watch_nodes(
        &self,
        request: Request<v1::NodesRequest>,
    ) -> Result<Response<Self::WatchNodesStream>, Status> {
        let (caller, _) = open(request)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(send_nodes(Arc::clone(&self.0), caller, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends the nodes at every change, as long as the caller's token is good. A slow
/// client gets fewer, newer answers: there is no queue beyond one.
async fn send_nodes(
    api: Arc<Api>,
    caller: Caller,
    sender: mpsc::Sender<Result<v1::NodesResponse, Status>>,
) {
    let mut nodes = api.nodes.subscribe();
    let mut revisions = api.changes.publisher().subscribe();
    let mut shutdown = api.shutdown.clone();
    let void = sleep(RECHECK);
    tokio::pin!(void);
    loop {
        let Ok(permit) = sender.reserve().await else {
            return;
        };
        nodes.mark_unchanged();
        revisions.mark_unchanged();
        permit.send(Ok(api.nodes(&caller)));
        loop {
            tokio::select! {
                changed = nodes.changed() => if changed.is_err() { return } else { break },
                changed = revisions.changed() => if changed.is_err() { return } else { break },
                () = sender.closed() => return,
                () = stopped(&mut shutdown) => return,
                () = &mut void => {
                    if let Err(refused) = api.tokens.admits_still(&caller).await {
                        let _ = sender.send(Err(ApiError::from(refused).into())).await;
                        return;
                    }
                    void.set(sleep(RECHECK));
                }
            }
        }
        sleep(GATHER).await;
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|down| *down).await;
}

/// Who calls, and what for.
fn open<T>(request: Request<T>) -> Result<(Caller, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let caller = extensions
        .remove::<Caller>()
        .ok_or_else(|| Status::internal("a call has come past the guard"))?;
    Ok((caller, message))
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let text = shortened(error.to_string());
        match &error {
            ApiError::Invalid(problems) => {
                Self::with_details(error.code(), text, details(problems).into())
            }
            _ => Self::new(error.code(), text),
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST_STATUS {
        text.truncate(text.floor_char_boundary(LONGEST_STATUS));
        text.push('…');
    }
    text
}

/// An encoded `ApplyResponse` with as many problems as fit.
fn details(problems: &[Problem]) -> Vec<u8> {
    let mut response = v1::ApplyResponse::default();
    let mut room = DETAILS;
    for (number, problem) in problems.iter().enumerate() {
        let problem = problem.to_wire();
        let Some(left) = room.checked_sub(problem.encoded_len() + 4) else {
            let message = format!(
                "and {} more: validate the same resources to see all of them",
                problems.len() - number
            );
            response.problems.push(v1::Problem {
                message,
                ..Default::default()
            });
            break;
        };
        room = left;
        response.problems.push(problem);
    }
    response.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_problems_fit_the_header_and_say_how_many_were_left_out() {
        let problem = |n| Problem {
            key: None,
            path: format!("p{n}"),
            message: "wrong".repeat(20),
        };
        let problems: Vec<_> = (0..1000).map(problem).collect();
        let status = Status::from(ApiError::Invalid(problems));
        assert!(status.details().len() < DETAILS + 200 && status.message().len() < 1100);
        let shown = v1::ApplyResponse::decode(status.details())
            .unwrap()
            .problems;
        let last = shown.last().unwrap();
        assert!(
            last.message
                .starts_with(&format!("and {} more", 1000 - (shown.len() - 1)))
        );
    }
}
