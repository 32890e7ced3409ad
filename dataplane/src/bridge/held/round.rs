//! One request of a client that has a call held, or may come to: what the backend says until it
//! asks, or answers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::StatusCode;

use super::{Open, Question};
use crate::{
    call::{Answer, Call, Reply},
    envelope::{self, Edit, Kind, Message, Span},
    error::{self, CallError, INTERNAL_ERROR},
    node::Node,
    rounds::{self, At},
    session::asked::Token,
    upstream::message::error_code,
};

/// One request of the client, and the call that it goes on with.
pub(super) struct Round {
    pub(super) node: Arc<Node>,
    /// As the client has sent it.
    pub(super) call: Call,
    /// `None`: it is over, or held.
    pub(super) open: Option<Open>,
}

impl Round {
    /// Gives the backend what the client has answered. Whether that was all.
    pub(super) async fn answer(&mut self) -> Result<bool, CallError> {
        let (body, responses) = (&self.call.body, self.call.message.input_responses);
        let Some(open) = &mut self.open else {
            return Ok(true);
        };
        let mut rest = Vec::new();
        for question in std::mem::take(&mut open.questions) {
            let response = responses.and_then(|all| envelope::member(body, all, &question.name));
            let Some(response) = response else {
                rest.push(question);
                continue;
            };
            let answer: Bytes = error::result_message(&question.id, response.of(body));
            let gone = || CallError::Gone {
                backend: open.backend.name().to_owned(),
                reason: "it can be given no answer".to_owned(),
            };
            let session = open.lease.session().ok_or_else(gone)?;
            let message = envelope::scan(&answer);
            let id = message.ok().and_then(|m| m.id).ok_or_else(gone)?;
            let asked = session.asked(Token::Id, &answer, id).ok_or_else(gone)?;
            let answer = asked.restored(&answer, id).ok_or_else(gone)?;
            let upstream = &open.backend.upstream;
            upstream
                .deliver(self.call.worker, &asked.via, answer)
                .await?;
            session.paid(&asked);
        }
        open.questions = rest;
        Ok(open.questions.is_empty())
    }

    /// The answer to the client's request.
    pub(super) async fn reply(mut self) -> Result<Reply, CallError> {
        let first = match self.next().await {
            Some(first) => first?,
            None => return Err(self.broken()),
        };
        if self.open.is_none() {
            let message = envelope::scan(&first).ok();
            let error = message.and_then(|message| error_code(&first, &message));
            return Ok(Reply::Whole(Answer {
                body: first,
                error,
                status: error.map_or(StatusCode::OK, error::status_of),
            }));
        }
        let rest = stream::unfold(Some(self), |round| async {
            let mut round = round?;
            let message = round.next().await?;
            let next = (message.is_ok() && round.open.is_some()).then_some(round);
            Some((message, next))
        });
        let first = stream::iter([Ok(first)]);
        Ok(Reply::Stream(Box::pin(first.chain(rest))))
    }

    fn broken(&self) -> CallError {
        CallError::refused(INTERNAL_ERROR, "the call ended without a response")
    }

    /// The next message for the client. With the last one, nothing is open any more.
    async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        loop {
            let open = self.open.as_mut()?;
            let next = tokio::select! {
                biased;
                next = open.messages.next() => next?,
                Some(question) = open.aside.recv() => Ok(question),
            };
            let data = match next {
                Ok(data) if data.is_empty() => continue,
                Ok(data) => data,
                Err(error) => return Some(Err(error)),
            };
            let Ok(message) = envelope::scan(&data) else {
                continue;
            };
            match message.kind {
                Kind::Request => return Some(self.ask(&data)),
                Kind::Notification => {
                    if let Some(passed) = self.notification(data, &message) {
                        return Some(Ok(passed));
                    }
                }
                Kind::Response | Kind::Error => {
                    let open = self.open.take()?;
                    drop(open.messages);
                    open.lease.give_back();
                    let id = message.id.filter(|id| id.of(&data) != self.call.id());
                    return Some(Ok(match id {
                        Some(id) => replaced(&data, Edit::replace(id, self.call.id())),
                        None => data,
                    }));
                }
            }
        }
    }

    /// Asks the client this, and what else is asked at the same time.
    pub(super) fn ask(&mut self, question: &Bytes) -> Result<Bytes, CallError> {
        if let Some(open) = &mut self.open
            && let Ok(message) = envelope::scan(question)
        {
            open.ask(question, &message);
            open.ask_what_is_there();
        }
        self.hold()
    }

    /// A notification as one of this request. Progress is told to who asks for it.
    fn notification(&self, data: Bytes, message: &Message) -> Option<Bytes> {
        let Some(at) = message.params_progress_token else {
            return Some(data);
        };
        let open = self.open.as_ref()?;
        if open.token.as_deref() != Some(at.of(&data)) {
            return Some(data);
        }
        let token = self.call.message.progress_token?.of(&self.call.body);
        Some(replaced(&data, Edit::replace(at, token)))
    }

    /// Holds the call, and asks the client.
    pub(super) fn hold(&mut self) -> Result<Bytes, CallError> {
        let open = self.open.take().ok_or_else(|| self.broken())?;
        let mut requests = Vec::new();
        for question in &open.questions {
            requests.extend_from_slice(if requests.is_empty() { b"{" } else { b"," });
            requests.extend_from_slice(&envelope::quote(&question.name));
            requests.push(b':');
            requests.extend_from_slice(&question.text);
        }
        let backend = open.backend.clone();
        let key = self.node.held.put(open)?;
        let at = At {
            home: self.node.peers.me().clone(),
            key: key.clone(),
        };
        let state = rounds::holding(&self.call, backend.name(), at);
        let state = state.inspect_err(|_| drop(self.node.held.take(&key)))?;
        Ok(rounds::asking(&self.call, &requests, &state))
    }
}

impl Open {
    /// Notes what the backend asks, under the id that the session has given it.
    fn ask(&mut self, data: &Bytes, message: &Message) {
        let (Some(id), Some(method)) = (message.id, message.method) else {
            return;
        };
        let method = method.of(data);
        let params = match message.params.map(|params| data.slice(params.range())) {
            // Of the progress of an answer nothing can be told in this era.
            Some(params) if message.progress_token.is_some() => {
                envelope::without(&params, Span::new(0, params.len()), &["_meta"]).into()
            }
            Some(params) if params != "null" => params,
            _ => Bytes::from_static(b"{}"),
        };
        let text = [br#"{"method":""#, method, br#"","params":"#, &params, b"}"].concat();
        self.questions.push(Question {
            name: format!("question-{}", self.questions.len() + 1),
            text,
            id: data.slice(id.range()),
        });
    }

    /// What it asks at the same time is one round.
    fn ask_what_is_there(&mut self) {
        while let Ok(data) = self.aside.try_recv() {
            if let Ok(message) = envelope::scan(&data) {
                self.ask(&data, &message);
            }
        }
        while let Some(Some(Ok(data))) = self.messages.next().now_or_never() {
            match envelope::scan(&data) {
                Ok(message) if message.kind == Kind::Request => self.ask(&data, &message),
                _ => {
                    let rest = std::mem::replace(&mut self.messages, Box::pin(stream::empty()));
                    self.messages = Box::pin(stream::iter([Ok(data)]).chain(rest));
                    return;
                }
            }
        }
    }
}

fn replaced(data: &Bytes, edit: Edit<'_>) -> Bytes {
    // The span is one of this very message.
    envelope::splice(data, &mut [edit]).unwrap_or_else(|_| data.clone())
}
