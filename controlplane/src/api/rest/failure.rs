//! Failures as problem details (RFC 9457).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use fleet_proto::validate::Problem;
use serde_json::json;

use crate::api::{ApiError, auth::Refused};

/// Seconds after which a caller may try again while the database is out of reach.
const RETRY_AFTER: &str = "5";

/// Why a request has failed.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    detail: String,
    problems: Vec<Problem>,
    /// Of a 401 (RFC 6750, 3).
    challenge: Option<&'static str>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            problems: Vec::new(),
            challenge: None,
        }
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// `shown`: some credentials were there, but not good ones.
    pub(super) fn unauthenticated(refused: &Refused, shown: bool) -> Self {
        let challenge = if shown {
            r#"Bearer realm="mcp-fleet", error="invalid_token""#
        } else {
            r#"Bearer realm="mcp-fleet""#
        };
        Self {
            challenge: Some(challenge),
            ..Self::new(StatusCode::UNAUTHORIZED, refused.to_string())
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let status = match &error {
            ApiError::Bad(_) => StatusCode::BAD_REQUEST,
            ApiError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::Unauthenticated(refused) => return Self::unauthenticated(refused, true),
            ApiError::Denied(_) => StatusCode::FORBIDDEN,
            ApiError::NotFound(_) => StatusCode::NOT_FOUND,
            ApiError::Exists(_) => StatusCode::CONFLICT,
            ApiError::Conflict(_) => StatusCode::PRECONDITION_FAILED,
            ApiError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut failure = Self::new(status, error.to_string());
        if let ApiError::Invalid(problems) = error {
            failure.problems = problems;
        }
        failure
    }
}

impl Failure {
    /// The body.
    pub(super) fn details(&self) -> serde_json::Value {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.problems.is_empty() {
            let problems: Vec<_> = self.problems.iter().map(Problem::to_wire).collect();
            body["problems"] = json!(problems);
        }
        body
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.details().to_string()).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(challenge) = self.challenge {
            let challenge = HeaderValue::from_static(challenge);
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}
