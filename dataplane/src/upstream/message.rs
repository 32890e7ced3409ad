//! What changes in a message between client and backend: names, ids and what
//! the eras write differently. Everything else travels as it came.

use bytes::Bytes;
use http::StatusCode;

use crate::{
    call::{Answer, Call, Era, Method, ProtocolVersion},
    envelope::{self, Edit, Edits, Kind, Message, Span},
    error::{self, CallError, INVALID_PARAMS, RESOURCE_NOT_FOUND},
};

/// `clientInfo` of requests that the proxy makes for itself.
pub const CLIENT_INFO: &str = concat!(
    r#"{"name":"mcp-fleet","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

/// What only requests of 2026-07-28 have in `_meta`.
const MODERN_FIELDS: [&str; 4] = [
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/logLevel",
];

/// Code of the error for a client that cannot be asked for input.
const INPUT_REQUIRED: i64 = -31_005;

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
        stripped = without_modern_fields(&call.body, object);
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
        _ => None,
    }
}

/// The `_meta` members that every request of the modern era has.
#[must_use]
pub fn modern_meta(client_info: &str) -> String {
    format!(
        r#""io.modelcontextprotocol/protocolVersion":"{}","io.modelcontextprotocol/clientInfo":{client_info},"io.modelcontextprotocol/clientCapabilities":{{}}"#,
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
    let members = modern_meta(info);
    match (call.message.meta, call.message.params) {
        (Some(meta), _) => (meta, members),
        (None, Some(params)) => (params, format!(r#""_meta":{{{members}}}"#)),
        (None, None) => (
            whole(&call.body),
            format!(r#""params":{{"_meta":{{{members}}}}}"#),
        ),
    }
}

/// The `_meta` of a modern request without what only that era has: servers of both eras take it
/// for one of the wrong era. A progress token and what others have put there stay.
fn without_modern_fields(body: &[u8], meta: Span) -> Vec<u8> {
    let mut kept = Vec::with_capacity(meta.len());
    kept.push(b'{');
    // It has been scanned: every member can be read.
    for (key, value) in envelope::members(body, meta).flatten() {
        if MODERN_FIELDS.contains(&&*key) {
            continue;
        }
        if kept.len() > 1 {
            kept.push(b',');
        }
        kept.extend_from_slice(&envelope::quote(&key));
        kept.push(b':');
        kept.extend_from_slice(value.of(body));
    }
    kept.push(b'}');
    kept
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
    let translated;
    let mut shown = code;
    match (from, call.version.era()) {
        (Era::Legacy, Era::Modern) => {
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
            if message
                .result_type
                .is_some_and(|t| t.of(&body) == b"\"input_required\"")
            {
                return Err(CallError::refused(
                    INPUT_REQUIRED,
                    "the backend asks for input, which this client's protocol version cannot be asked for here",
                ));
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
    let hinted = || {
        envelope::members(body, result)
            .any(|member| member.is_ok_and(|(key, _)| key == "ttlMs" || key == "cacheScope"))
    };
    match method {
        Method::ResourcesRead if !hinted() => {
            br#""resultType":"complete","ttlMs":0,"cacheScope":"private""#
        }
        _ => br#""resultType":"complete""#,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fields_of_the_modern_era_are_taken_out_of_meta() {
        let strip = |meta: &str| {
            let span = whole(meta.as_bytes());
            String::from_utf8(without_modern_fields(meta.as_bytes(), span)).unwrap()
        };
        let theirs =
            r#""progressToken":"t","é\u0022":{"x":1.10},"io.modelcontextprotocol/related-task":{}"#;
        let kept = strip(&format!("{{{theirs},{}}}", modern_meta(CLIENT_INFO)));
        assert_eq!(kept, format!("{{{}}}", theirs.replace(r"\u0022", r#"\""#)));
        assert_eq!(strip(&format!("{{ {} }}", modern_meta("{}"))), "{}");
        assert_eq!(strip("{}"), "{}");
    }
}
