//! Each route: input to message, one call of [`Api`], message to reply.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use fleet_proto::{
    key::{DEFAULT_PROJECT, Kind},
    v1::{self, Action, Resource, ResourceKey, resource},
};
use futures_util::{StreamExt, future::BoxFuture};
use serde::Serialize;
use tokio_stream::wrappers::ReceiverStream;

use super::{Failure, Input};
use crate::api::{Api, ApiError, auth::Caller, reports::Lines};

pub(super) mod identity;

/// The type of an answer that goes on: a JSON text each line.
pub(super) const LINES: &str = "application/x-ndjson";

pub(super) type Answer = BoxFuture<'static, Result<Reply, Failure>>;

/// What a handler answers.
pub(super) struct Reply {
    status: StatusCode,
    body: Body,
    kind: &'static str,
    /// The entity tag.
    revision: Option<u64>,
}

impl Reply {
    pub(super) fn of(message: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_string(message)
            .map_err(|error| ApiError::Internal(format!("the answer is no JSON: {error}")))?;
        Ok(Self {
            status: StatusCode::OK,
            body: body.into(),
            kind: "application/json",
            revision: None,
        })
    }

    /// Messages as they come, a line each. One that is not `Ok` is the last, as problem
    /// details.
    fn lines(lines: Lines) -> Self {
        let line = |item: Result<v1::LogLines, ApiError>| {
            let json = match item {
                Ok(lines) => serde_json::to_string(&lines),
                Err(error) => serde_json::to_string(&Failure::from(error).details()),
            };
            json.map(|json| format!("{json}\n"))
        };
        Self {
            status: StatusCode::OK,
            body: Body::from_stream(ReceiverStream::new(lines).map(line)),
            kind: LINES,
            revision: None,
        }
    }

    /// With the revision that the answer is of, or that it has made.
    fn at(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The response, for somebody who may have it already.
    pub(super) fn unless(self, has: Option<u64>) -> Response {
        let known = has.is_some() && has == self.revision;
        let mut response = if known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let kind = (header::CONTENT_TYPE, self.kind);
            (self.status, [kind], self.body).into_response()
        };
        if let Some(tag) = self
            .revision
            .and_then(|revision| HeaderValue::try_from(format!("\"{revision}\"")).ok())
        {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

pub(super) fn apply(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let mut request: v1::ApplyRequest = input.message()?;
        request.expect_revision = input.expected(request.expect_revision)?;
        let done = api.apply(&caller, request).await?;
        Ok(Reply::of(&done)?.at(done.revision))
    })
}

pub(super) fn validate(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move { Reply::of(&api.validate(&caller, input.message()?).await?) })
}

pub(super) fn list(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let kind = input.kind.map(|kind| kind.as_str().to_owned());
        let request = v1::ListRequest {
            kind: kind.unwrap_or_else(|| input.text("kind")),
            project: input.text("project"),
        };
        let found = api.list(&caller, &request)?;
        Ok(Reply::of(&found)?.at(found.revision))
    })
}

pub(super) fn get(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let key = Some(key(&input)?);
        let found = api.get(&caller, &v1::GetRequest { key })?;
        let reply = match found.resource.and_then(|resource| resource.kind) {
            Some(resource::Kind::Backend(backend)) => Reply::of(&backend),
            Some(resource::Kind::Gateway(gateway)) => Reply::of(&gateway),
            Some(resource::Kind::AuthPolicy(policy)) => Reply::of(&policy),
            Some(resource::Kind::Secret(secret)) => Reply::of(&secret),
            None => Err(ApiError::Internal("a resource has no kind".to_owned()).into()),
        };
        Ok(reply?.at(found.revision))
    })
}

pub(super) fn put(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let key = key(&input)?;
        let request = v1::ApplyRequest {
            resources: vec![resource(&input, &key)?],
            dry_run: input.flag("dry_run"),
            message: input.text("message"),
            expect_revision: input.expect_revision,
            remove: Vec::new(),
        };
        let done = api.apply(&caller, request).await?;
        let created = done.changes.iter().any(|c| c.action() == Action::Created);
        let status = if created && !input.flag("dry_run") {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok(Reply::of(&done)?.at(done.revision).status(status))
    })
}

pub(super) fn delete(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let request = v1::DeleteRequest {
            keys: vec![key(&input)?],
            dry_run: input.flag("dry_run"),
            message: input.text("message"),
            expect_revision: input.expect_revision,
        };
        let done = api.delete(&caller, request).await?;
        Ok(Reply::of(&done)?.at(done.revision))
    })
}

pub(super) fn revisions(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let limit = input.count("limit") as u32;
        let request = v1::RevisionsRequest { limit };
        Reply::of(&api.revisions(&caller, request).await?)
    })
}

pub(super) fn revision(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let request = v1::GetRevisionRequest {
            number: input.number("number")?,
            resources: input.flag("resources"),
        };
        Reply::of(&api.revision(&caller, request).await?)
    })
}

pub(super) fn rollback(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let number = input.number("number")?;
        let mut request: v1::RollbackRequest = input.message_or_default()?;
        if ![0, number].contains(&request.revision) {
            return Err(Failure::bad(format!(
                "revision: is {}, but the path says {number}: leave it out",
                request.revision
            )));
        }
        request.revision = number;
        request.expect_revision = input.expected(request.expect_revision)?;
        let done = api.rollback(&caller, request).await?;
        Ok(Reply::of(&done)?.at(done.revision))
    })
}

pub(super) fn nodes(api: Arc<Api>, caller: Caller, _: Input) -> Answer {
    Box::pin(async move { Reply::of(&api.nodes(&caller)) })
}

pub(super) fn node_status(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let node_id = input.segment("id").to_owned();
        let request = v1::GetNodeStatusRequest { node_id };
        Reply::of(&api.node_status(&caller, &request)?)
    })
}

pub(super) fn node_log(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let request = v1::FollowNodeLogRequest {
            node_id: input.segment("id").to_owned(),
            level: input.text("level"),
        };
        Ok(Reply::lines(api.follow_log(caller, &request)?))
    })
}

pub(super) fn audit(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let request = v1::AuditRequest {
            limit: input.count("limit") as u32,
            before: input.count("before"),
        };
        Reply::of(&api.audit(&caller, request).await?)
    })
}

pub(super) fn tokens(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let request = v1::ListTokensRequest {
            all: input.flag("all"),
        };
        Reply::of(&api.list_tokens(&caller, request).await?)
    })
}

pub(super) fn create_token(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let made = api.create_token(&caller, input.message()?).await?;
        Ok(Reply::of(&made)?.status(StatusCode::CREATED))
    })
}

pub(super) fn revoke_token(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let name = input.segment("name").to_owned();
        let request = v1::RevokeTokenRequest { name };
        Reply::of(&api.revoke_token(&caller, request).await?)
    })
}

pub(super) fn who_am_i(_: Arc<Api>, caller: Caller, _: Input) -> Answer {
    Box::pin(async move {
        Reply::of(&v1::WhoAmIResponse {
            token: Some(caller.token),
        })
    })
}

/// The key that a path and its parameters name.
fn key(input: &Input) -> Result<ResourceKey, Failure> {
    let kind = input
        .kind
        .ok_or_else(|| ApiError::Internal("a route without a kind".to_owned()))?;
    Ok(ResourceKey {
        project: input.text("project"),
        kind: kind.as_str().to_owned(),
        name: input.segment("name").to_owned(),
    })
}

/// The resource in a body. Its name and project may be left out, as the path and the
/// parameter say them, but must not contradict these.
fn resource(input: &Input, key: &ResourceKey) -> Result<Resource, Failure> {
    let kind = match input.kind {
        Some(Kind::Gateway) => {
            let mut gateway: v1::Gateway = input.message()?;
            place(key, &mut gateway.name, &mut gateway.project)?;
            resource::Kind::Gateway(gateway)
        }
        Some(Kind::AuthPolicy) => {
            let mut policy: v1::AuthPolicy = input.message()?;
            place(key, &mut policy.name, &mut policy.project)?;
            resource::Kind::AuthPolicy(policy)
        }
        Some(Kind::Secret) => {
            let mut secret: v1::Secret = input.message()?;
            place(key, &mut secret.name, &mut secret.project)?;
            resource::Kind::Secret(secret)
        }
        Some(Kind::Backend) | None => {
            let mut backend: v1::Backend = input.message()?;
            place(key, &mut backend.name, &mut backend.project)?;
            resource::Kind::Backend(backend)
        }
    };
    Ok(Resource { kind: Some(kind) })
}

fn place(key: &ResourceKey, name: &mut String, project: &mut String) -> Result<(), Failure> {
    let wanted = if key.project.is_empty() {
        DEFAULT_PROJECT
    } else {
        &key.project
    };
    for (what, wanted, found) in [
        ("name", key.name.as_str(), name),
        ("project", wanted, project),
    ] {
        if found.is_empty() {
            wanted.clone_into(found);
        } else if found != wanted {
            return Err(Failure::bad(format!(
                "{what}: is {found:?} in the body, but the address says {wanted:?}"
            )));
        }
    }
    Ok(())
}
