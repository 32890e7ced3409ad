//! The event stream with which a backend answers one call, read to its response.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use tokio::time::timeout;

use super::{
    super::{MAX_ANSWER, Sent},
    Exchange, Part,
};
use crate::{
    call::Reply,
    codec::sse::{Event, Parser},
    error::CallError,
    upstream::pool::Received,
};

/// How long a stream may stay open behind its response.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a stream may still send behind its response.
const TAIL: usize = 64 << 10;

/// An event stream being read for one call.
pub(super) struct Events {
    exchange: Exchange,
    parser: Parser,
    /// Gone once the response was there, or the stream has broken.
    body: Option<Received>,
    /// Behind which event the stream can go on.
    last: Option<Bytes>,
    ready: VecDeque<Bytes>,
    /// Something for the client was there.
    begun: bool,
    done: bool,
}

impl Events {
    pub(super) fn new(exchange: Exchange, sent: Sent) -> Self {
        let parser = Parser::new(MAX_ANSWER);
        Self {
            exchange,
            parser,
            body: Some(sent.body),
            last: None,
            ready: VecDeque::new(),
            begun: false,
            done: false,
        }
    }

    /// A stream that begins with the response is no stream for the client.
    pub(super) async fn reply(mut self) -> Result<Reply, CallError> {
        match self.next().await? {
            Part::Last(answer) => Ok(Reply::Whole(answer)),
            Part::Passed(first) => {
                self.ready.push_back(first);
                Ok(Reply::Stream(Box::pin(stream::unfold(
                    self,
                    |mut events| async {
                        let message = events.message().await?;
                        Some((message, events))
                    },
                ))))
            }
            Part::Kept => Err(self.exchange.gone("its stream ended without a response")),
        }
    }

    async fn message(&mut self) -> Option<Result<Bytes, CallError>> {
        if let Some(ready) = self.ready.pop_front() {
            return Some(Ok(ready));
        }
        if self.done {
            return None;
        }
        match self.next().await {
            Ok(Part::Passed(message)) => Some(Ok(message)),
            Ok(Part::Last(answer)) => {
                self.done = true;
                Some(Ok(answer.body))
            }
            Ok(Part::Kept) => {
                self.done = true;
                Some(Err(self
                    .exchange
                    .gone("its stream ended without a response")))
            }
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }

    /// The next part that is for the client; `Kept` at the end of the stream.
    async fn next(&mut self) -> Result<Part, CallError> {
        loop {
            while let Some(event) = self.parser.next() {
                let event = event.map_err(|e| self.exchange.bad(&e.to_string()))?;
                if let Some(part) = self.event(event)? {
                    self.begun = true;
                    return Ok(part);
                }
            }
            if let Some(last) = self.parser.last_event_id() {
                self.last = Some(last.clone());
            }
            if self.body.is_none() && !Box::pin(self.resume()).await? {
                return Ok(Part::Kept);
            }
            let Some(body) = &mut self.body else { continue };
            match body.frame().await {
                Ok(Some(piece)) => {
                    self.parser.push(piece);
                    continue;
                }
                Err(error) if self.last.is_none() => {
                    return Err(self.exchange.gone(&error.to_string()));
                }
                // That is no invitation to leave: the client waits here until it goes on.
                Err(_) => {
                    self.body = None;
                    continue;
                }
                Ok(None) => self.body = None,
            }
            if self.last.is_some() && self.exchange.polls() {
                return Ok(Part::Passed(Bytes::new()));
            }
        }
    }

    /// What an event is to the client, if anything.
    fn event(&mut self, event: Event) -> Result<Option<Part>, CallError> {
        let kind = event.event.as_deref();
        if kind.is_some_and(|kind| kind != b"message") {
            return Ok(None);
        }
        if event.data.is_empty() {
            // It promises that the stream can be resumed, and so can the client's.
            let promise = event.id.is_some() && !self.begun && self.exchange.polls();
            return Ok(promise.then_some(Part::Passed(event.data)));
        }
        Ok(match self.exchange.part(event.data)? {
            Part::Kept => None,
            Part::Last(answer) => {
                if let Some(unanswered) = &mut self.exchange.unanswered {
                    unanswered.answered();
                }
                if let Some(body) = self.body.take() {
                    drain(body);
                }
                Some(Part::Last(answer))
            }
            passed @ Part::Passed(_) => Some(passed),
        })
    }

    /// Goes on with a stream that has ended without a response. `false`: it cannot.
    async fn resume(&mut self) -> Result<bool, CallError> {
        let (Some(last), Some(live)) = (&self.last, &self.exchange.live) else {
            return Ok(false);
        };
        let (http, worker) = (&self.exchange.http, self.exchange.call.worker);
        let sent = http.resume(worker, live, last, self.parser.retry()).await?;
        self.parser = Parser::new(MAX_ANSWER);
        self.body = Some(sent.body);
        Ok(true)
    }
}

/// The response is there. Where the body ends soon after it, the connection is
/// good for the next request; else it is closed. Servers send the end of a
/// chunked body by itself, so that it is seldom there already.
fn drain(mut body: Received) {
    if body.is_over() {
        return;
    }
    tokio::spawn(async move {
        let mut room = TAIL;
        let end = async {
            while let Ok(Some(piece)) = body.frame().await {
                match room.checked_sub(piece.len()) {
                    Some(left) => room = left,
                    None => return,
                }
            }
        };
        // Read to its end, the connection goes back by itself; else it is closed.
        let _ = timeout(PATIENCE, end).await;
    });
}
