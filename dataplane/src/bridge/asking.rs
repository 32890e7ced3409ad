//! A client of the legacy era is asked what a backend of the modern era wants to know: as
//! requests on the stream of its call. With its answers the call is made again (2026-07-28,
//! Multi Round-Trip Requests), however often the backend asks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::PATIENCE;
use crate::{
    backend::Backend,
    call::{Call, Messages, Reply},
    envelope::{self, Kind},
    error::{CANCELLED, CallError, INPUT_REQUIRED, INVALID_PARAMS},
    session::{
        asked::{Asker, Via},
        inflight::CallId,
        waiting::Waiting,
    },
};

/// Rounds of one call.
const ROUNDS: usize = 32;

/// A call that may take several rounds.
struct Rounds {
    backend: Arc<Backend>,
    /// As the client has sent it.
    call: Call,
    messages: Option<Messages>,
    ready: VecDeque<Bytes>,
    open: Option<Open>,
    count: usize,
    /// The client's word that it wants no answer.
    cancelled: oneshot::Receiver<()>,
}

/// What the client owes.
struct Open {
    waiting: Waiting,
    /// By the backend's name for each question.
    methods: BTreeMap<String, String>,
    /// Source text of the backend's state.
    state: Option<Bytes>,
    until: Instant,
}

/// Makes the call, as often as it takes.
pub(super) async fn call(backend: Arc<Backend>, call: Call) -> Result<Reply, CallError> {
    let Some(session) = &call.session else {
        return backend.call(call).await;
    };
    if call.message.request_state.is_some() || call.message.input_responses.is_some() {
        // A backend is to get back what it gave, and from nobody else.
        let what = "params.requestState and params.inputResponses are of revision 2026-07-28";
        return Err(CallError::refused(INVALID_PARAMS, what));
    }
    let mut rounds = Rounds {
        backend: backend.clone(),
        call: call.clone(),
        messages: None,
        ready: VecDeque::new(),
        open: None,
        count: 0,
        cancelled: session.cancellation(CallId::of(call.id())),
    };
    // To let go of a call is to cancel it in that era.
    let reply = tokio::select! {
        reply = backend.call(call) => reply,
        Ok(()) = &mut rounds.cancelled => return Err(cancelled()),
    };
    match reply {
        Ok(Reply::Stream(messages)) => rounds.messages = Some(messages),
        Err(CallError::Asks { answer }) => rounds.ask(&answer)?,
        other => return other,
    }
    let messages = stream::unfold(Some(rounds), |rounds| async {
        let mut rounds = rounds?;
        match rounds.next_unless_cancelled().await {
            Some(Ok(message)) => Some((Ok(message), Some(rounds))),
            Some(Err(error)) => Some((Err(error), None)),
            None => None,
        }
    });
    Ok(Reply::Stream(Box::pin(messages)))
}

fn cancelled() -> CallError {
    CallError::refused(CANCELLED, "the call was cancelled by the client")
}

impl Drop for Rounds {
    fn drop(&mut self) {
        if let Some(session) = &self.call.session {
            session.settle(CallId::of(self.call.id()));
        }
    }
}

impl Rounds {
    async fn next_unless_cancelled(&mut self) -> Option<Result<Bytes, CallError>> {
        let (_, never) = oneshot::channel();
        let mut cancel = std::mem::replace(&mut self.cancelled, never);
        let next = tokio::select! {
            next = self.next() => next,
            Ok(()) = &mut cancel => return Some(Err(cancelled())),
        };
        self.cancelled = cancel;
        next
    }

    async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            if let Some(open) = self.open.take() {
                match self.again(open).await {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            let Some(messages) = &mut self.messages else {
                return None;
            };
            match messages.next().await {
                Some(Err(CallError::Asks { answer })) => {
                    self.messages = None;
                    if let Err(error) = self.ask(&answer) {
                        return Some(Err(error));
                    }
                }
                other => return other,
            }
        }
    }

    /// Asks what an `input_required` result asks.
    fn ask(&mut self, answer: &Bytes) -> Result<(), CallError> {
        self.count += 1;
        let refused = |what: &str| CallError::refused(INPUT_REQUIRED, what);
        let (Some(session), true) = (&self.call.session, self.count <= ROUNDS) else {
            return Err(refused("the backend asks for input again and again"));
        };
        let bad = |reason: &str| CallError::BadAnswer {
            backend: self.backend.name().to_owned(),
            reason: reason.to_owned(),
        };
        let message = envelope::scan(answer).map_err(|error| bad(&error.to_string()))?;
        let waiting = session
            .wait()
            .ok_or_else(|| refused("nobody can be asked"))?;
        let requests = message
            .result
            .and_then(|r| envelope::member(answer, r, "inputRequests"));
        let mut methods = BTreeMap::new();
        for request in requests
            .into_iter()
            .flat_map(|r| envelope::members(answer, r))
        {
            let (name, request) = request.map_err(|_| bad("its inputRequests cannot be read"))?;
            let method = envelope::member(answer, request, "method");
            let method = method.and_then(|method| envelope::string_value(answer, method));
            let method = method.ok_or_else(|| bad("one of its inputRequests has no method"))?;
            let params =
                envelope::member(answer, request, "params").map_or(&b"{}"[..], |p| p.of(answer));
            let question = [
                br#"{"jsonrpc":"2.0","id":"#,
                &envelope::quote(&name)[..],
                br#","method":"#,
                &envelope::quote(&method),
                br#","params":"#,
                params,
                b"}",
            ];
            let question = Bytes::from(question.concat());
            let scanned = envelope::scan(&question).map_err(|e| bad(&e.to_string()))?;
            let asker = Asker {
                backend: self.backend.name(),
                via: Via::Call {
                    waiter: waiting.name.clone(),
                },
                call: Some(CallId::of(self.call.id())),
            };
            let question = session.question(&asker, &question, &scanned);
            let question = question
                .map_err(|why| refused(&format!("the backend asks for {method}, and {why}")))?;
            methods.insert(name.into_owned(), method.into_owned());
            self.ready.push_back(question);
        }
        let state = message.request_state.map(|s| answer.slice(s.range()));
        if methods.is_empty() && state.is_none() {
            return Err(bad("it asks for input and does not say for which"));
        }
        self.open = Some(Open {
            waiting,
            methods,
            state: state.filter(|state| state != "null"),
            until: Instant::now() + PATIENCE,
        });
        Ok(())
    }

    /// Waits for the answers, and makes the call again with them.
    async fn again(&mut self, mut open: Open) -> Result<(), CallError> {
        let mut responses = Vec::new();
        while !open.methods.is_empty() {
            let answer = timeout_at(open.until, open.waiting.answers.recv()).await;
            let Ok(Some((name, answer))) = answer else {
                let what = format!(
                    "the client has not answered within {} s",
                    PATIENCE.as_secs()
                );
                return Err(CallError::refused(INPUT_REQUIRED, what));
            };
            let Some(method) = open.methods.remove(&name) else {
                continue;
            };
            let response = response(&method, &answer)?;
            responses.extend_from_slice(if responses.is_empty() { b"{" } else { b"," });
            responses.extend_from_slice(&envelope::quote(&name));
            responses.push(b':');
            responses.extend_from_slice(&response);
        }
        responses.extend_from_slice(if responses.is_empty() { b"{}" } else { b"}" });
        let call = self.retry(&responses, open.state.as_deref())?;
        match self.backend.clone().call(call).await {
            Ok(Reply::Stream(messages)) => self.messages = Some(messages),
            Ok(Reply::Whole(answer)) => self.ready.push_back(answer.body),
            Ok(Reply::Parts(parts)) => self.ready.push_back(parts.concat().into()),
            Err(CallError::Asks { answer }) => self.ask(&answer)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn retry(&self, responses: &[u8], state: Option<&[u8]>) -> Result<Call, CallError> {
        let refused = |what: String| CallError::refused(INPUT_REQUIRED, what);
        let body = &self.call.body;
        let params = self.call.message.params;
        let params = params.ok_or_else(|| refused("the request has no parameters".to_owned()))?;
        let mut added = [&br#""inputResponses":"#[..], responses].concat();
        if let Some(state) = state {
            added.extend_from_slice(br#","requestState":"#);
            added.extend_from_slice(state);
        }
        let mut edits = [envelope::insert_member(body, params, &added)];
        let body = envelope::splice(body, &mut edits).map_err(|e| refused(e.to_string()))?;
        let message = envelope::scan(&body).map_err(|e| refused(e.to_string()))?;
        Ok(Call {
            body,
            message,
            ..self.call.clone()
        })
    }
}

/// What a client's answer is as one of the `inputResponses`. Only of an elicitation there is a
/// result that says that there will be none.
fn response(method: &str, answer: &Bytes) -> Result<Bytes, CallError> {
    let refused = |what: String| CallError::refused(INPUT_REQUIRED, what);
    let message = envelope::scan(answer).map_err(|error| refused(error.to_string()))?;
    match (message.kind, message.result) {
        (Kind::Response, Some(result)) => Ok(answer.slice(result.range())),
        _ if method == "elicitation/create" => Ok(Bytes::from_static(br#"{"action":"cancel"}"#)),
        _ => {
            let error = message.error.map_or(&b"{}"[..], |error| error.of(answer));
            let error = String::from_utf8_lossy(error);
            Err(refused(format!(
                "the client does not answer {method}: {error}"
            )))
        }
    }
}
