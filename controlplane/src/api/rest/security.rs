//! Routes of revocations and session keys.

use std::sync::Arc;

use axum::http::StatusCode;
use fleet_proto::v1;

use super::{
    Input,
    handlers::{Answer, Reply},
};
use crate::api::{Api, ApiError, auth::Caller};

pub(super) fn list(api: Arc<Api>, caller: Caller, _: Input) -> Answer {
    Box::pin(async move { Reply::of(&api.list_revocations(&caller)?) })
}

pub(super) fn revoke(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let made = api.revoke(&caller, input.message()?).await?;
        Ok(Reply::of(&made)?.status(StatusCode::CREATED))
    })
}

pub(super) fn unrevoke(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let bearer = input.segment("bearer").to_owned();
        // Addresses are logged on the way.
        if !bearer.starts_with("sha256:") {
            let what = "an address names a token by `sha256:` and 64 hex digits only";
            return Err(ApiError::Bad(what.to_owned()).into());
        }
        let request = v1::UnrevokeRequest {
            bearer,
            project: input.text("project"),
        };
        Reply::of(&api.unrevoke(&caller, request).await?)
    })
}

pub(super) fn rotate(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let request = input.message_or_default()?;
        Reply::of(&api.rotate_session_keys(&caller, request).await?)
    })
}
