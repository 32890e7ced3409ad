//! The gRPC door: `fleet.v1.ConfigService`.

use std::{sync::Arc, time::Duration};

use fleet_proto::{
    key::Key,
    v1::{self, config_service_server::ConfigService},
    validate::Problem,
};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::{Api, ApiError, auth::Caller, parse_keys};
use crate::{
    change::{self, ChangeError, Edit},
    store::StoreError,
};

/// Problems travel in a header field of the answer; clients take 16 KiB of
/// header by default, and base64 adds a third. `Validate` gives all of them.
const DETAILS: usize = 6 * 1024;
/// Longest text of a status, in bytes: percent-encoding may triple it.
const LONGEST_STATUS: usize = 1024;
/// Changes of nodes within this time make one answer of `WatchNodes`.
const GATHER: Duration = Duration::from_millis(5);

/// `ConfigService` over an [`Api`].
pub(crate) struct Grpc {
    api: Arc<Api>,
    shutdown: watch::Receiver<bool>,
}

impl Grpc {
    pub(crate) fn new(api: Arc<Api>, shutdown: watch::Receiver<bool>) -> Self {
        Self { api, shutdown }
    }
}

#[tonic::async_trait]
impl ConfigService for Grpc {
    async fn validate(
        &self,
        request: Request<v1::ValidateRequest>,
    ) -> Result<Response<v1::ValidateResponse>, Status> {
        let problems = self.api.validate(request.into_inner().resources).await?;
        let problems = problems.iter().map(Problem::to_wire).collect();
        Ok(Response::new(v1::ValidateResponse { problems }))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let author = author(&request);
        let request = request.into_inner();
        let request = change::Request {
            edit: Edit {
                put: request.resources,
                remove: parse_keys(&request.remove)?,
                must_exist: false,
            },
            dry_run: request.dry_run,
            author,
            message: request.message,
            expect_revision: request.expect_revision,
        };
        let outcome = self.api.write(request).await?;
        Ok(Response::new(v1::ApplyResponse {
            revision: outcome.revision,
            changed: outcome.changed,
            changes: wire(&outcome.changes),
            problems: Vec::new(),
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let (resource, revision) = self.api.get(request.get_ref().key.as_ref())?;
        Ok(Response::new(v1::GetResponse {
            resource: Some(resource),
            revision,
        }))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let request = request.into_inner();
        let (resources, revision) = self.api.list(&request.kind, &request.project)?;
        Ok(Response::new(v1::ListResponse {
            resources,
            revision,
        }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let author = author(&request);
        let request = request.into_inner();
        let request = change::Request {
            edit: Edit {
                put: Vec::new(),
                remove: parse_keys(&request.keys)?,
                must_exist: true,
            },
            dry_run: request.dry_run,
            author,
            message: request.message,
            expect_revision: request.expect_revision,
        };
        let outcome = self.api.write(request).await?;
        let changes = wire(&outcome.changes);
        Ok(Response::new(v1::DeleteResponse {
            revision: outcome.revision,
            changes,
        }))
    }

    async fn revisions(
        &self,
        request: Request<v1::RevisionsRequest>,
    ) -> Result<Response<v1::RevisionsResponse>, Status> {
        Ok(Response::new(
            self.api.revisions(request.get_ref().limit).await?,
        ))
    }

    async fn nodes(
        &self,
        _: Request<v1::NodesRequest>,
    ) -> Result<Response<v1::NodesResponse>, Status> {
        Ok(Response::new(self.api.nodes()))
    }

    type WatchNodesStream = ReceiverStream<Result<v1::NodesResponse, Status>>;

    async fn watch_nodes(
        &self,
        _: Request<v1::NodesRequest>,
    ) -> Result<Response<Self::WatchNodesStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(watch(Arc::clone(&self.api), sender, self.shutdown.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends the nodes at every change. A slow client gets fewer, newer answers:
/// there is no queue beyond one.
async fn watch(
    api: Arc<Api>,
    sender: mpsc::Sender<Result<v1::NodesResponse, Status>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut nodes = api.nodes.subscribe();
    let mut revisions = api.changes.publisher().subscribe();
    loop {
        let Ok(permit) = sender.reserve().await else {
            return;
        };
        nodes.mark_unchanged();
        revisions.mark_unchanged();
        permit.send(Ok(api.nodes()));
        tokio::select! {
            changed = nodes.changed() => if changed.is_err() { return },
            changed = revisions.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
            _ = shutdown.wait_for(|down| *down) => return,
        }
        tokio::time::sleep(GATHER).await;
    }
}

fn author<T>(request: &Request<T>) -> String {
    request
        .extensions()
        .get::<Caller>()
        .map(|caller| caller.0.clone())
        .unwrap_or_default()
}

fn wire(changes: &[(Key, v1::Action)]) -> Vec<v1::Change> {
    let change = |(key, action): &(Key, v1::Action)| v1::Change {
        key: Some(key.to_wire()),
        action: (*action).into(),
    };
    changes.iter().map(change).collect()
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let code = match &error {
            ApiError::Bad(_) => Code::InvalidArgument,
            ApiError::NotFound(_) | ApiError::Change(ChangeError::Missing(_)) => Code::NotFound,
            ApiError::Change(ChangeError::Conflict { .. }) => Code::Aborted,
            ApiError::Change(ChangeError::Invalid(problems)) => {
                let text = shortened(format!("nothing was changed: {error}"));
                return Self::with_details(Code::InvalidArgument, text, details(problems).into());
            }
            ApiError::Change(ChangeError::Interrupted(_)) => Code::Internal,
            ApiError::Change(ChangeError::Store(failure)) | ApiError::Store(failure) => {
                tracing::error!(%error, "a request failed in the store");
                match failure {
                    failure if failure.is_passing() => Code::Unavailable,
                    StoreError::OtherVersion { .. } => Code::FailedPrecondition,
                    _ => Code::Internal,
                }
            }
        };
        Self::new(code, shortened(error.to_string()))
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
        let status = Status::from(ApiError::Change(ChangeError::Invalid(problems)));
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
