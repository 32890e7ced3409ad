//! Multi round trips (2026-07-28, Multi Round-Trip Requests): a backend that needs more
//! answers `input_required`, and the client repeats its request with what was asked for
//! and with the backend's `requestState`.
//!
//! The client never holds that state itself but a sealed wrapper of it, also where the
//! backend gave none: it says which backend asked, and about which request. What does
//! not open, or was made for something else, reaches no backend.

mod digest;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    auth::Principal,
    call::{Call, Era},
    envelope::{self, Edit, Message, Span},
    error::{CallError, INTERNAL_ERROR, INVALID_PARAMS, result_message},
    sealed::scope::Scope,
    session::Home,
};

/// What the wrapper is sealed for.
const PURPOSE: &str = "request-state";
/// How long a client may take to answer: people are asked.
const LIFETIME: Duration = Duration::from_secs(3600);

/// What a call needs where it may take several rounds.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Where its states are sealed; `None` for requests of the proxy's own, which ask
    /// nobody.
    pub(crate) scope: Option<Arc<Scope>>,
    /// What the backend gave with its question, when this is the answer to one.
    pub(crate) retry: Option<Box<Retry>>,
}

/// What an answer to a question goes on with.
#[derive(Clone, Debug)]
pub(crate) enum Retry {
    /// The state as its backend wrote it: JSON text. `None`: it gave none.
    Own(Option<Bytes>),
    /// A call that a data plane holds: the backend waits in the middle of it.
    Held(At),
}

/// Where a call is held.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct At {
    /// The data plane.
    #[serde(rename = "n")]
    pub(crate) home: Home,
    /// Its name for the call.
    #[serde(rename = "k")]
    pub(crate) key: String,
}

/// What the wrapper holds.
#[derive(Debug, Deserialize, Serialize)]
struct State {
    /// The backend that asked.
    b: String,
    /// What it was asked for.
    d: String,
    /// Its own state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<Box<RawValue>>,
    /// Where the call goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    h: Option<At>,
}

/// What a client is given instead of a backend's state.
pub(crate) struct Wrapped<'a> {
    message: &'a Message,
    /// `requestState` and its value, as a member; empty where nobody can be asked.
    member: String,
}

/// Where a member's value begins.
const MEMBER: &str = r#""requestState":"#;

impl Wrapped<'_> {
    /// The edit that puts it into the result `body`.
    pub(crate) fn edit(&self, body: &[u8]) -> Option<Edit<'_>> {
        let value = self.member.strip_prefix(MEMBER)?;
        match (self.message.request_state, self.message.result) {
            (Some(span), _) => Some(Edit::replace(span, value.as_bytes())),
            (None, Some(result)) => Some(envelope::insert_member(
                body,
                result,
                self.member.as_bytes(),
            )),
            (None, None) => None,
        }
    }
}

/// Wraps the state of a result that asks for input.
///
/// # Errors
/// It cannot be sealed.
#[cold]
pub(crate) fn wrap<'a>(
    call: &Call,
    backend: &str,
    body: &[u8],
    message: &'a Message,
) -> Result<Wrapped<'a>, CallError> {
    let member = match &call.rounds.scope {
        None => String::new(),
        Some(scope) => {
            let own = message.request_state.map(|span| span.of(body));
            let state = State {
                b: backend.to_owned(),
                d: digest::of(&call.body, &call.message),
                // The scan has checked that it is JSON; null is none.
                s: own
                    .and_then(|own| serde_json::from_slice(own).ok())
                    .flatten(),
                h: None,
            };
            let token = scope.seal(PURPOSE, &call.principal, state, LIFETIME)?;
            format!("{MEMBER}\"{token}\"")
        }
    };
    Ok(Wrapped { message, member })
}

/// What a client is given to go on with a call that is held here.
///
/// # Errors
/// It cannot be sealed.
pub(crate) fn holding(call: &Call, backend: &str, at: At) -> Result<String, CallError> {
    seal(call, backend, Some(at))
}

/// What a client is given to repeat a call of which its backend keeps nothing.
///
/// # Errors
/// It cannot be sealed.
pub(crate) fn repeating(call: &Call, backend: &str) -> Result<String, CallError> {
    seal(call, backend, None)
}

fn seal(call: &Call, backend: &str, held: Option<At>) -> Result<String, CallError> {
    let Some(scope) = &call.rounds.scope else {
        return Err(CallError::refused(INTERNAL_ERROR, "nobody can be asked"));
    };
    let state = State {
        b: backend.to_owned(),
        d: digest::of(&call.body, &call.message),
        s: None,
        h: held,
    };
    scope.seal(PURPOSE, &call.principal, state, LIFETIME)
}

/// The answer that asks the client: `requests` are the questions by their names, an object
/// whose end is still missing, and `state` is what it goes on with.
pub(crate) fn asking(call: &Call, requests: &[u8], state: &str) -> Bytes {
    let result = [
        &br#"{"resultType":"input_required","inputRequests":"#[..],
        requests,
        br#"},"requestState":""#,
        state.as_bytes(),
        br#""}"#,
    ];
    result_message(call.id(), &result.concat())
}

/// Where the call is held that a request goes on with, if that is so.
pub(crate) fn held_at(
    scope: &Scope,
    principal: &Principal,
    body: &[u8],
    state: Span,
) -> Option<Home> {
    let token = envelope::string_value(body, state)?;
    let state = scope.open::<State>(PURPOSE, principal, &token)?.value;
    Some(state.h?.home)
}

/// Whether a request answers a question of an earlier round. What a client of the older
/// era writes there is its own.
#[inline]
pub(crate) fn is_retry(call: &Call) -> bool {
    call.message.request_state.is_some() && call.version.era() == Era::Modern
}

/// Opens the state that a client has sent, which is on its way to `backend`.
///
/// # Errors
/// It is not what this client was given for this request.
#[cold]
pub(crate) fn open(scope: &Scope, backend: &str, call: &mut Call) -> Result<(), CallError> {
    let Some(span) = call.message.request_state else {
        return Ok(());
    };
    let wrong = |what: &str| {
        let what = format!("params.requestState {what}: begin the request anew");
        CallError::refused(INVALID_PARAMS, what).with_status(StatusCode::BAD_REQUEST)
    };
    let token = envelope::string_value(&call.body, span).ok_or_else(|| wrong("is not a string"))?;
    let state = scope
        .open::<State>(PURPOSE, &call.principal, &token)
        .ok_or_else(|| wrong("is not one that you were given here, or its time is over"))?
        .value;
    if state.b != backend || state.d != digest::of(&call.body, &call.message) {
        return Err(wrong("was given for another request"));
    }
    let own = state
        .s
        .map(|own| Bytes::from(String::from(Box::<str>::from(own))));
    let retry = state.h.map_or(Retry::Own(own), Retry::Held);
    call.rounds.retry = Some(Box::new(retry));
    Ok(())
}

/// The edit that gives the backend its own state back.
pub(crate) fn restored(call: &Call) -> Option<Edit<'_>> {
    let (retry, span) = (call.rounds.retry.as_ref()?, call.message.request_state?);
    match &**retry {
        Retry::Own(Some(own)) => Some(Edit::replace(span, own)),
        Retry::Own(None) | Retry::Held(_) => envelope::remove_member(&call.body, span),
    }
}
