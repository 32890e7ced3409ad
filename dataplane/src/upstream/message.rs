//! What changes in a message between client and backend: names, ids and what
//! the eras write differently. Everything else travels as it came.

pub mod logs;

use bytes::Bytes;
use http::StatusCode;

use crate::{
    bridge::urls,
    call::{Answer, Call, Era, Method, ProtocolVersion},
    envelope::{self, Edit, Edits, Kind, Message, Span},
    error::{self, CallError, INVALID_PARAMS, RESOURCE_NOT_FOUND},
    rounds,
    session::lease::can_be_asked,
    tasks,
};

/// `clientInfo` of requests that the proxy makes for itself.
pub const CLIENT_INFO: &str = concat!(
    r#"{"name":"mcp-fleet","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

/// `_meta` key of the id of a subscription, in its notifications (2026-07-28, Subscriptions).
pub(crate) const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// What only requests of 2026-07-28 have in `_meta`.
const MODERN_FIELDS: [&str; 4] = [
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/logLevel",
];

/// The message for the backend: the client's, with the target's name, with
/// another id where `id` gives one, and with what the backend's era needs.
///
/// # Errors
/// The edits do not fit the message.
pub fn outgoing(call: &Call, to: Era, id: Option<&[u8]>) -> Result<Bytes, CallError> {
    let message = &call.message;
    let (meta, stripped);
    let mut edits = Edits::default();
    if let (Some(id), Some(span)) = (id, message.id) {
        edits.push(Edit::replace(span, id));
    }
    if let (Some(target), Some(span)) = (&call.target, target_span(call.method, message)) {
        edits.push(Edit::replace(span, target));
    }
    if call.rounds.retry.is_some()
        && let Some(state) = rounds::restored(call)
    {
        edits.push(state);
    }
    if to == Era::Modern && call.version.era() == Era::Legacy {
        if message
            .protocol_version
            .or(message.client_info)
            .or(message.client_capabilities)
            .is_some()
        {
            let what =
                "params._meta holds protocol fields of 2026-07-28 in a session of an older version";
            return Err(CallError::refused(INVALID_PARAMS, what));
        }
        let (object, member) = meta_for(call);
        meta = member;
        edits.push(envelope::insert_member(&call.body, object, meta.as_bytes()));
    }
    if to == Era::Legacy
        && call.version.era() == Era::Modern
        && let Some(object) = message.meta
    {
        // Servers of both eras take it for a request of the wrong one. A progress token and
        // what others have put there stay.
        stripped = envelope::without(&call.body, object, &MODERN_FIELDS);
        edits.push(Edit::replace(object, &stripped));
    }
    if edits.is_empty() {
        return Ok(call.body.clone());
    }
    edits
        .splice(&call.body)
        .map_err(|e| CallError::refused(error::INVALID_REQUEST, e.to_string()))
}

/// Where the name or URI is that says which backend a call is for.
#[must_use]
pub fn target_span(method: Method, message: &Message) -> Option<Span> {
    match method {
        Method::ToolsCall | Method::PromptsGet => message.name,
        Method::ResourcesRead | Method::Subscribe | Method::Unsubscribe => message.uri,
        // Two of them would leave it to the backend which one counts.
        Method::Complete if message.ref_name.is_some() && message.ref_uri.is_some() => None,
        Method::Complete => message.ref_name.or(message.ref_uri),
        Method::TaskGet | Method::TaskUpdate | Method::TaskCancel => message.task_id,
        _ => None,
    }
}

/// The `_meta` members that every request of the modern era has.
#[must_use]
pub fn modern_meta(client_info: &str) -> String {
    modern_meta_of(client_info, "{}")
}

fn modern_meta_of(client_info: &str, capabilities: &str) -> String {
    format!(
        r#""io.modelcontextprotocol/protocolVersion":"{}","io.modelcontextprotocol/clientInfo":{client_info},"io.modelcontextprotocol/clientCapabilities":{capabilities}"#,
        ProtocolVersion::V2026_07_28.as_str()
    )
}

/// The object to which a legacy client's request adds the metadata of the
/// modern era, and the member it adds.
fn meta_for(call: &Call) -> (Span, String) {
    let info = call
        .session
        .as_ref()
        .and_then(|s| std::str::from_utf8(&s.client_info).ok())
        .unwrap_or(CLIENT_INFO);
    // What the client can be asked, it is asked for the backend.
    let able = call
        .session
        .as_ref()
        .and_then(|s| can_be_asked(&s.capabilities));
    let able = able
        .as_deref()
        .and_then(|able| std::str::from_utf8(able).ok());
    let mut members = modern_meta_of(info, able.unwrap_or("{}"));
    if let Some(level) = call.session.as_ref().and_then(|s| s.log_level()) {
        members += r#","io.modelcontextprotocol/logLevel":""#;
        members += level.name();
        members.push('"');
    }
    match (call.message.meta, call.message.params) {
        (Some(meta), _) => (meta, members),
        (None, Some(params)) => (params, format!(r#""_meta":{{{members}}}"#)),
        (None, None) => (
            whole(&call.body),
            format!(r#""params":{{"_meta":{{{members}}}}}"#),
        ),
    }
}

/// The span of the message's object, without the white space around it.
fn whole(body: &[u8]) -> Span {
    let start = body.iter().position(|b| *b == b'{').unwrap_or(0);
    let end = body
        .iter()
        .rposition(|b| *b == b'}')
        .map_or(body.len(), |at| at + 1);
    Span {
        start: start as u32,
        end: end as u32,
    }
}

/// The client's answer from a backend's response: `id` restored, and what the
/// client's era needs. `status` is the backend's, where it spoke HTTP.
///
/// # Errors
/// The answer cannot be given to a client of this era.
pub fn incoming(
    call: &Call,
    backend: &str,
    from: Era,
    status: Option<StatusCode>,
    body: Bytes,
    message: &Message,
) -> Result<Answer, CallError> {
    let mut edits = Edits::default();
    if let Some(id) = message.id
        && id.of(&body) != call.id()
    {
        edits.push(Edit::replace(id, call.id()));
    }
    let code = error_code(&body, message);
    let (translated, wrapped, task);
    let outcome = outcome(&body, message);
    let (mut shown, mut asks) = (code, false);
    match (from, call.version.era()) {
        (Era::Legacy, Era::Modern) => {
            if code == Some(urls::URL_REQUIRED)
                && let Some(question) = urls::question(call, backend, &body, message)
            {
                return Ok(question);
            }
            if code == Some(RESOURCE_NOT_FOUND) {
                shown = Some(INVALID_PARAMS);
            }
            if let (Some(result), None) = (message.result, message.result_type) {
                let members = result_members(call.method, &body, result);
                edits.push(envelope::insert_member(&body, result, members));
            }
        }
        (Era::Modern, Era::Legacy) => {
            if code == Some(INVALID_PARAMS) && call.method == Method::ResourcesRead {
                shown = Some(RESOURCE_NOT_FOUND);
            }
            if outcome == Outcome::InputRequired {
                asks = true;
            }
        }
        (Era::Modern, Era::Modern) if call.method.is_about_task() || outcome == Outcome::Task => {
            task = task_id(call, backend, &body, message)?;
            if let Some((span, id)) = &task {
                edits.push(Edit::replace(*span, id));
            }
        }
        (Era::Modern, Era::Modern) if outcome == Outcome::InputRequired => {
            wrapped = rounds::wrap(call, backend, &body, message)?;
            if let Some(state) = wrapped.edit(&body) {
                edits.push(state);
            }
        }
        _ => {}
    }
    if shown != code
        && let (Some(shown), Some(span)) = (shown, message.error_code)
    {
        translated = shown.to_string();
        edits.push(Edit::replace(span, translated.as_bytes()));
    }
    let status = match (shown, status) {
        (None, _) => StatusCode::OK,
        (Some(code), Some(status)) => shown_status(from, code, status),
        (Some(code), None) => error::status_of(code),
    };
    let body = if edits.is_empty() {
        body
    } else {
        edits.splice(&body).map_err(|e| CallError::BadAnswer {
            backend: backend.to_owned(),
            reason: format!("its result cannot be given to the client: {e}"),
        })?
    };
    if asks {
        return Err(CallError::Asks { answer: body });
    }
    Ok(Answer {
        body,
        error: shown,
        status,
    })
}

/// The HTTP status that a client of the modern era sees of a backend's error.
/// What is between backend and proxy (credentials, redirects, versions of HTTP)
/// is not the client's: a 401 would tell it that its own token is wrong.
#[must_use]
pub fn shown_status(from: Era, code: i64, backends: StatusCode) -> StatusCode {
    match backends {
        StatusCode::BAD_REQUEST
        | StatusCode::NOT_FOUND
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::TOO_MANY_REQUESTS
            if from == Era::Modern =>
        {
            backends
        }
        _ => error::status_of(code),
    }
}

/// What a result is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// What was asked for, or nothing that is known here.
    Complete,
    /// The client is to answer first (2026-07-28, Multi Round-Trip Requests).
    InputRequired,
    /// It will be there later (SEP-2663).
    Task,
}

#[inline]
fn outcome(body: &[u8], message: &Message) -> Outcome {
    match message.result_type {
        Some(span) if span.of(body) != b"\"complete\"" => {
            match envelope::string_value(body, span).as_deref() {
                Some("input_required") => Outcome::InputRequired,
                Some("task") => Outcome::Task,
                _ => Outcome::Complete,
            }
        }
        _ => Outcome::Complete,
    }
}

/// The client's id for the task in a result, and where it goes.
#[cold]
fn task_id(
    call: &Call,
    backend: &str,
    body: &[u8],
    message: &Message,
) -> Result<Option<(Span, Bytes)>, CallError> {
    let (Some(span), Some(scope)) = (message.task_id, &call.rounds.scope) else {
        return Ok(None);
    };
    if call.method.is_about_task()
        && let Some(own) = call.message.task_id
    {
        return Ok(Some((span, call.body.slice(own.range()))));
    }
    let own = envelope::string_value(body, span).ok_or_else(|| CallError::BadAnswer {
        backend: backend.to_owned(),
        reason: "the id of its task is not a string".to_owned(),
    })?;
    let token = tasks::seal(scope, &call.principal, backend, &own)?;
    Ok(Some((span, format!("\"{token}\"").into())))
}

/// The code of an error response.
#[must_use]
pub fn error_code(body: &[u8], message: &Message) -> Option<i64> {
    if message.kind != Kind::Error {
        return None;
    }
    let text = message
        .error_code
        .map(|span| span.of(body))
        .and_then(|t| std::str::from_utf8(t).ok());
    Some(text.and_then(|t| t.parse().ok()).unwrap_or(0))
}

/// What a result of the modern era must have and one of the legacy era lacks:
/// its type, and for reads the caching hints, of which nothing is known.
fn result_members(method: Method, body: &[u8], result: Span) -> &'static [u8] {
    if method != Method::ResourcesRead {
        return br#""resultType":"complete""#;
    }
    let has = |hint: &str| {
        envelope::members(body, result).any(|member| member.is_ok_and(|(key, _)| key == hint))
    };
    match (has("ttlMs"), has("cacheScope")) {
        (true, true) => br#""resultType":"complete""#,
        (true, false) => br#""resultType":"complete","cacheScope":"private""#,
        (false, true) => br#""resultType":"complete","ttlMs":0"#,
        (false, false) => br#""resultType":"complete","ttlMs":0,"cacheScope":"private""#,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fields_of_the_modern_era_are_taken_out_of_meta() {
        let strip = |meta: &str| {
            let span = whole(meta.as_bytes());
            String::from_utf8(envelope::without(meta.as_bytes(), span, &MODERN_FIELDS)).unwrap()
        };
        let theirs =
            r#""progressToken":"t","é\u0022":{"x":1.10},"io.modelcontextprotocol/related-task":{}"#;
        let kept = strip(&format!("{{{theirs},{}}}", modern_meta(CLIENT_INFO)));
        assert_eq!(kept, format!("{{{}}}", theirs.replace(r"\u0022", r#"\""#)));
        assert_eq!(strip(&format!("{{ {} }}", modern_meta("{}"))), "{}");
        assert_eq!(strip("{}"), "{}");
    }
}
