//! One request and what comes back for it: a JSON body, or an event stream
//! whose last message is the response.

mod events;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::{Http, Sent, call::Way, unanswered::Unanswered};
use crate::{
    call::{Answer, Call, Era, ProtocolVersion, Reply},
    envelope::{self, Kind, Message},
    error::CallError,
    session::{Session, inflight::CallId},
    upstream::{
        message::{incoming, logs::wants_log, shown_status},
        slot::Live,
    },
};
use events::Events;

/// A request that was sent.
pub(super) struct Exchange {
    pub(super) http: Http,
    pub(super) call: Call,
    /// The era it went out in.
    pub(super) from: Era,
    /// Its id upstream, where that is not the client's.
    pub(super) upstream_id: Option<Bytes>,
    pub(super) live: Option<Arc<Live>>,
    /// Whether the client was asked something.
    asked: bool,
    unanswered: Option<Unanswered>,
}

/// What a message on a call's stream is to the call.
enum Part {
    /// Its response.
    Last(Answer),
    /// Something for the client.
    Passed(Bytes),
    /// Nothing for the client.
    Kept,
}

impl Exchange {
    pub(super) fn new(http: &Http, call: Call, way: Way) -> Self {
        let (from, upstream_id, live, unanswered) = match way {
            Way::Stateless => (Era::Modern, None, None, None),
            Way::Session {
                live,
                id,
                unanswered,
                ..
            } => (Era::Legacy, id, Some(live), unanswered),
        };
        Self {
            http: http.clone(),
            call,
            from,
            upstream_id,
            live,
            asked: false,
            unanswered,
        }
    }

    /// A response that comes as an event stream.
    pub(super) async fn events(self, sent: Sent) -> Result<Reply, CallError> {
        Events::new(self, sent).reply().await
    }

    /// A response that came as one body.
    pub(super) fn whole(&self, status: StatusCode, body: Bytes) -> Result<Answer, CallError> {
        let message = match envelope::scan(&body) {
            Ok(message) if matches!(message.kind, Kind::Response | Kind::Error) => message,
            Ok(_) => return Err(self.bad("it answered a request with another request")),
            Err(_) if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN => {
                let detail = format!(
                    "it answered {status}: check `bearer_token` and `headers` of this backend"
                );
                return Err(self.unavailable("it does not let this gateway in", &detail));
            }
            Err(_) if status.is_server_error() => {
                return Err(self.unavailable(&format!("it answered {status}"), ""));
            }
            Err(e) => return Err(self.bad(&format!("HTTP {status}, {e}"))),
        };
        // A refusal may come from before the server has read the id.
        let about_us = message.kind == Kind::Error && is_of_nobody(&body, &message);
        if !about_us && !self.answers_us(&body, &message) {
            return Err(self.bad("it answered with the id of another request"));
        }
        if about_us {
            return Ok(self.without_id(status, &body, &message));
        }
        incoming(
            &self.call,
            &self.http.0.name,
            self.from,
            Some(status),
            body,
            &message,
        )
    }

    /// An error without an id gets that of the request.
    fn without_id(&self, status: StatusCode, body: &[u8], message: &Message) -> Answer {
        let error = message.error.map_or(&b"{}"[..], |span| span.of(body));
        let code = crate::upstream::message::error_code(body, message);
        let body = [
            &b"{\"jsonrpc\":\"2.0\",\"id\":"[..],
            self.call.id(),
            b",\"error\":",
            error,
            b"}",
        ]
        .concat();
        Answer {
            body: body.into(),
            error: code,
            status: shown_status(self.from, code.unwrap_or_default(), status),
        }
    }

    fn answers_us(&self, body: &[u8], message: &Message) -> bool {
        message.id.is_some_and(|id| self.is_ours(id.of(body)))
    }

    fn is_ours(&self, id: &[u8]) -> bool {
        let own = self.upstream_id.as_deref();
        same_id(id, own.unwrap_or_else(|| self.call.id()))
    }

    /// What one message of the stream is to this call.
    fn part(&mut self, data: Bytes) -> Result<Part, CallError> {
        let message = match envelope::scan(&data) {
            Ok(message) => message,
            Err(error) if error.id().is_some_and(|id| self.is_ours(id.of(&data))) => {
                return Err(self.bad(&error.to_string()));
            }
            Err(error) => {
                tracing::warn!(backend = self.http.0.name, %error, "skipped an event that is not MCP");
                return Ok(Part::Kept);
            }
        };
        match message.kind {
            Kind::Response | Kind::Error if self.answers_us(&data, &message) => incoming(
                &self.call,
                &self.http.0.name,
                self.from,
                None,
                data,
                &message,
            )
            .map(Part::Last),
            Kind::Error if is_of_nobody(&data, &message) => {
                Ok(Part::Last(self.without_id(StatusCode::OK, &data, &message)))
            }
            Kind::Response | Kind::Error => {
                tracing::warn!(
                    backend = self.http.0.name,
                    "skipped a response to another request"
                );
                Ok(Part::Kept)
            }
            Kind::Notification => Ok(self.notification(data, &message)),
            Kind::Request => Ok(self.request(&data, &message)),
        }
    }

    fn notification(&self, data: Bytes, message: &Message) -> Part {
        let method = message.method.map_or(&b""[..], |span| span.of(&data));
        let pass = match method {
            b"notifications/message" => wants_log(&self.call, self.from, &data, message),
            // Lists are the proxy's own: what changed in one backend's is not the client's.
            m if m.ends_with(b"/list_changed") => {
                self.http.renew();
                self.call.method == crate::call::Method::Listen
            }
            _ => true,
        };
        if pass { Part::Passed(data) } else { Part::Kept }
    }

    /// A request of the backend. It reaches the client whose session it came in.
    fn request(&mut self, data: &Bytes, message: &Message) -> Part {
        let Some(live) = &self.live else {
            return Part::Kept;
        };
        let call = CallId::of(self.call.id());
        let client = self.own_session().map(|session| (session, Some(call)));
        let question = self
            .http
            .asks(self.call.worker, live, client, data, message);
        self.asked |= question.is_some();
        question.map_or(Part::Kept, Part::Passed)
    }

    /// The client's session, where the upstream session is its own.
    fn own_session(&self) -> Option<&Session> {
        self.live.as_ref().and(self.call.session.as_deref())
    }

    /// Whether the client can be let go of while the call goes on, and come back for the
    /// rest (SEP-1699).
    fn polls(&self) -> bool {
        self.own_session().is_some() && self.call.version == ProtocolVersion::V2025_11_25
    }

    fn bad(&self, reason: &str) -> CallError {
        self.http.bad_answer(reason)
    }

    fn unavailable(&self, reason: &str, detail: &str) -> CallError {
        CallError::unavailable(&self.http.0.name, reason, detail)
    }

    fn gone(&self, reason: &str) -> CallError {
        CallError::Gone {
            backend: self.http.0.name.clone(),
            reason: reason.to_owned(),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.asked
            && let Some(session) = &self.call.session
        {
            session.settle(CallId::of(self.call.id()));
        }
    }
}

/// Whether it names no request; the second is what the Python SDK writes.
pub(super) fn is_of_nobody(body: &[u8], message: &Message) -> bool {
    message
        .id
        .is_none_or(|id| matches!(id.of(body), b"null" | br#""server-error""#))
}

/// Whether two id texts are the same value: a server may write `"a"` for
/// `"\u0061"`, and 1 for 1.0.
fn same_id(a: &[u8], b: &[u8]) -> bool {
    let value = |text| serde_json::from_slice::<serde_json::Value>(text).ok();
    a == b || value(a).is_some_and(|a| Some(a) == value(b))
}
