//! Calls between the eras whose backend asks something in the middle of them.
//!
//! A backend of the legacy era asks on the call's stream and waits; a client of the modern era
//! is given the question as an answer, and its next request goes on with the call, which is
//! [`held`] meanwhile. A backend of the modern era gives the question as an answer; a client of
//! the legacy era is asked on its stream ([`asking`]), and the call is made again with what it
//! says. Where both are of one era, nothing of this is needed.

mod asking;
pub(crate) mod held;
pub(crate) mod urls;

use std::{sync::Arc, time::Duration};

use crate::{
    backend::Backend,
    call::{Call, Era, Reply},
    error::CallError,
    node::Node,
    rounds::Retry,
};

/// How long a client may take to answer: people are asked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Whether a call may have to be bridged.
#[inline]
pub(crate) fn is_needed(backend: &Backend, call: &Call) -> bool {
    // What a backend is not known to speak, it may learn from this very call.
    match call.version.era() {
        Era::Modern => {
            call.rounds.retry.is_some() && is_held(call)
                || call.method.has_name()
                    && call
                        .message
                        .client_capabilities
                        .is_some_and(|c| c.len() > 2)
                    && !backend.upstream.speaks(Era::Modern)
        }
        Era::Legacy => {
            call.session.is_some()
                && call.method.has_name()
                && !backend.upstream.speaks(Era::Legacy)
        }
    }
}

fn is_held(call: &Call) -> bool {
    matches!(call.rounds.retry.as_deref(), Some(Retry::Held(_)))
}

/// Sends such a call.
///
/// # Errors
/// See [`CallError`].
#[cold]
pub(crate) async fn call(
    node: &Arc<Node>,
    backend: Arc<Backend>,
    call: Call,
) -> Result<Reply, CallError> {
    match call.version.era() {
        Era::Modern if is_held(&call) => held::go_on(node, backend, call).await,
        Era::Modern => held::begin(node, backend, call).await,
        Era::Legacy => asking::call(backend, call).await,
    }
}
