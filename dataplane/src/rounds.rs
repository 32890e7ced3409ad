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
    call::{Call, Era},
    envelope::{self, Edit, Message},
    error::{CallError, INVALID_PARAMS},
    sealed::scope::Scope,
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

/// A state as its backend wrote it: JSON text. `None`: it gave none.
#[derive(Clone, Debug)]
pub(crate) struct Retry(Option<Bytes>);

/// What the wrapper holds.
#[derive(Debug, Deserialize, Serialize)]
struct State {
    /// The backend that asked.
    b: String,
    /// What it was asked for.
    d: String,
    /// Its own state.
    s: Option<Box<RawValue>>,
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
            };
            let token = scope.seal(PURPOSE, &call.principal, state, LIFETIME)?;
            format!("{MEMBER}\"{token}\"")
        }
    };
    Ok(Wrapped { message, member })
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
    call.rounds.retry = Some(Box::new(Retry(own)));
    Ok(())
}

/// The edit that gives the backend its own state back.
pub(crate) fn restored(call: &Call) -> Option<Edit<'_>> {
    let (retry, span) = (call.rounds.retry.as_ref()?, call.message.request_state?);
    match &retry.0 {
        Some(own) => Some(Edit::replace(span, own)),
        None => envelope::remove_member(&call.body, span),
    }
}
