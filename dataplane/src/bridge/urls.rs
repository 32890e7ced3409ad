//! `URLElicitationRequired` (2025-11-25, Elicitation): the error with which a backend of the
//! legacy era refuses a call until its user has been somewhere. A client of the modern era is
//! asked to go there, and repeats the call.

use bytes::Bytes;

use crate::{
    call::{Answer, Call},
    envelope::{self, Message},
    rounds,
    session::{asked::elicits, lease::can_be_asked},
};

/// The code of that error.
pub(crate) const URL_REQUIRED: i64 = -32_042;

/// The error as a question; `None`: the client cannot be asked, or nothing is to be asked.
#[cold]
pub(crate) fn question(
    call: &Call,
    backend: &str,
    body: &[u8],
    message: &Message,
) -> Option<Answer> {
    let able = message_capabilities(call)?;
    if !elicits(&able, "url") {
        return None;
    }
    let data = envelope::member(body, message.error?, "data")?;
    let places = envelope::member(body, data, "elicitations")?;
    let mut requests = Vec::new();
    for (count, place) in envelope::elements(body, places).enumerate() {
        let place = place.ok()?;
        requests.extend_from_slice(if count == 0 { b"{" } else { b"," });
        requests.extend_from_slice(format!(r#""url-{}":"#, count + 1).as_bytes());
        requests.extend_from_slice(br#"{"method":"elicitation/create","params":"#);
        requests.extend_from_slice(place.of(body));
        requests.push(b'}');
    }
    if requests.is_empty() {
        return None;
    }
    let state = rounds::repeating(call, backend).ok()?;
    Some(Answer::ok(rounds::asking(call, &requests, &state)))
}

fn message_capabilities(call: &Call) -> Option<Bytes> {
    let declared = call.message.client_capabilities?;
    can_be_asked(declared.of(&call.body))
}
