//! Join tokens, nodes that are let in no longer, and the CA.

use std::sync::Arc;

use axum::http::StatusCode;
use fleet_proto::v1;

use super::{Answer, Reply};
use crate::api::{Api, auth::Caller, rest::Input};

pub(in crate::api::rest) fn create_token(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let request = input.message_or_default()?;
        let made = api.create_join_token(&caller, request).await?;
        Ok(Reply::of(&made)?.status(StatusCode::CREATED))
    })
}

pub(in crate::api::rest) fn tokens(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let request = v1::ListJoinTokensRequest {
            all: input.flag("all"),
        };
        Reply::of(&api.list_join_tokens(&caller, request).await?)
    })
}

pub(in crate::api::rest) fn revoke_token(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let id = input.segment("id").to_owned();
        let request = v1::RevokeJoinTokenRequest { id };
        Reply::of(&api.revoke_join_token(&caller, request).await?)
    })
}

pub(in crate::api::rest) fn revoke_node(api: Arc<Api>, caller: Caller, input: Input) -> Answer {
    Box::pin(async move {
        let node_id = input.segment("id").to_owned();
        let request = v1::RevokeNodeRequest { node_id };
        Reply::of(&api.revoke_node(&caller, request).await?)
    })
}

pub(in crate::api::rest) fn trust(api: Arc<Api>, _: Caller, _: Input) -> Answer {
    Box::pin(async move { Reply::of(&api.trust().await?) })
}
