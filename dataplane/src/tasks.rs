//! The tasks extension, `io.modelcontextprotocol/tasks` (SEP-2663): a backend may answer a
//! call with a task, and the client asks for its state later, of any node.
//!
//! What the client gets for the backend's task id is a sealed one of ours: it says whose
//! task it is, and opens for the client only that was given it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    auth::Principal,
    call::Call,
    error::{CallError, MISSING_CAPABILITY},
    sealed::scope::Scope,
};

/// The extension's name.
pub(crate) const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// What ids are sealed for.
const PURPOSE: &str = "task";
/// How long an id is good for. A task may live longer than the keys do.
const LIFETIME: Duration = crate::session::LIFETIME;

/// A task of a backend.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// The backend.
    pub(crate) backend: String,
    /// Its own id for it.
    pub(crate) own: String,
    /// The client's.
    pub(crate) token: String,
}

/// What a sealed id holds.
#[derive(Deserialize, Serialize)]
struct Sealed {
    b: String,
    t: String,
}

/// The client's id for a backend's task.
///
/// # Errors
/// It cannot be sealed.
pub(crate) fn seal(
    scope: &Scope,
    principal: &Principal,
    backend: &str,
    own: &str,
) -> Result<String, CallError> {
    let sealed = Sealed {
        b: backend.to_owned(),
        t: own.to_owned(),
    };
    scope.seal(PURPOSE, principal, sealed, LIFETIME)
}

/// The task of an id that a client sends; `None`: it was not given this id here.
pub(crate) fn open(scope: &Scope, principal: &Principal, token: &str) -> Option<Task> {
    let Sealed { b, t } = scope.open::<Sealed>(PURPOSE, principal, token)?.value;
    Some(Task {
        backend: b,
        own: t,
        token: token.to_owned(),
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    extensions: std::collections::HashMap<String, serde::de::IgnoredAny>,
}

/// Whether the client has declared that it knows of tasks.
///
/// # Errors
/// It has not.
pub(crate) fn declared(call: &Call) -> Result<(), CallError> {
    let text = call.message.client_capabilities;
    let text = text.map_or(&b"{}"[..], |span| span.of(&call.body));
    let capabilities = serde_json::from_slice::<Capabilities>(text).unwrap_or_default();
    if capabilities.extensions.contains_key(EXTENSION) {
        return Ok(());
    }
    let data = format!(r#"{{"requiredCapabilities":{{"extensions":{{"{EXTENSION}":{{}}}}}}}}"#);
    let what = "the tasks extension is not among the client's capabilities";
    Err(CallError::refused(MISSING_CAPABILITY, what).with_data(data))
}
