//! Between the stack and a server: a [`Call`] becomes a request in the backend's era, and what
//! comes back a [`Reply`] in the client's.

use bytes::Bytes;
use futures_util::stream;

use super::{Client, Duplex, DuplexError, Incoming, Listening, Replies, Request};
use crate::{
    call::{Answer, Call, Era, Method, Reply},
    envelope::{self, Span},
    error::CallError,
    session::{Session, inflight::CallId},
    upstream::{
        Greeting,
        listening::Wanted,
        message::{self, logs::Logs},
    },
};

/// A backend behind one connection, as the innermost service of a stack.
#[derive(Debug)]
pub struct Adapter {
    duplex: Duplex,
}

/// A call that the server has.
struct Exchange {
    call: Call,
    /// The backend's era.
    from: Era,
    backend: String,
    replies: Replies,
}

impl Adapter {
    /// The adapter of this backend.
    #[must_use]
    pub(crate) const fn new(duplex: Duplex) -> Self {
        Self { duplex }
    }

    /// The backend, for its state.
    #[must_use]
    pub fn duplex(&self) -> &Duplex {
        &self.duplex
    }

    /// What the server says of itself; connects to it first if need be.
    ///
    /// # Errors
    /// It cannot be reached, or does not greet.
    pub async fn greet(&self) -> Result<Greeting, CallError> {
        let hello = self
            .duplex
            .hello()
            .await
            .map_err(|error| self.unavailable(&error))?;
        Ok(Greeting {
            era: hello.era,
            result: hello.result.clone(),
        })
    }

    /// Opens a stream of notifications; see [`Duplex::subscribe`].
    ///
    /// # Errors
    /// It cannot be reached.
    pub(crate) async fn subscribe(
        &self,
        wanted: Wanted<'_>,
    ) -> Result<Option<Listening>, CallError> {
        let subscribed = self.duplex.subscribe(wanted).await;
        subscribed.map_err(|error| self.unavailable(&error))
    }

    /// Sends a call and gives its answer: a stream if progress comes before the response.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(&self, call: Call) -> Result<Reply, CallError> {
        let hello = self
            .duplex
            .hello()
            .await
            .map_err(|error| self.unavailable(&error))?;
        let logs = Logs::of(&call);
        let body = message::outgoing(&call, hello.era, None)?;
        let scanned = envelope::scan(&body)
            .map_err(|error| CallError::refused(i64::from(error.code()), error.to_string()))?;
        let Some(id) = scanned.id else {
            let what = "a request needs an id";
            return Err(CallError::refused(crate::error::INVALID_REQUEST, what));
        };
        let progress_token = scanned.progress_token.map(Span::range);
        let request = Request {
            body,
            id: id.range(),
            progress_token,
            client: call.session.clone().map(|session| Client {
                session,
                call: CallId::of(call.id()),
            }),
            may_ask: may_ask(call.method),
            listens: false,
            logs,
        };
        let replies = self
            .duplex
            .request(request)
            .await
            .map_err(|error| self.unavailable(&error))?;
        let backend = self.duplex.name().to_owned();
        let exchange = Exchange {
            call,
            from: hello.era,
            backend,
            replies,
        };
        exchange.reply().await
    }

    /// Gives the server a notification of a client. What would name one of the client's calls
    /// names its own.
    pub async fn tell(&self, session: &Session, body: Bytes) {
        let Ok(message) = envelope::scan(&body) else {
            return;
        };
        let method = message.method.map_or(&b""[..], |method| method.of(&body));
        if method == b"notifications/cancelled" {
            if let Some(id) = message.request_id {
                self.duplex.cancel(session, CallId::of(id.of(&body)));
            }
        } else if self.duplex.era() == Some(Era::Legacy)
            && let Err(error) = self.duplex.notify(body).await
        {
            tracing::debug!(%error, "a notification of a client was not passed on");
        }
    }

    /// Ends the connection in order.
    pub async fn close(&self) {
        self.duplex.shutdown().await;
    }

    fn unavailable(&self, error: &DuplexError) -> CallError {
        CallError::unavailable(self.duplex.name(), error.for_client(), error.detail())
    }
}

/// Whether a server may want to know something before it answers. It may do so about lists, too,
/// but those it is asked for by the proxy.
const fn may_ask(method: Method) -> bool {
    method.has_name() || matches!(method, Method::Complete | Method::Other)
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(session) = &self.call.session {
            session.settle(CallId::of(self.call.id()));
        }
    }
}

/// What one item is to the call.
enum Part {
    Last(Answer),
    Passed(Bytes),
}

impl Exchange {
    async fn reply(mut self) -> Result<Reply, CallError> {
        match self.next().await? {
            Part::Last(answer) => Ok(Reply::Whole(answer)),
            Part::Passed(first) => Ok(Reply::Stream(self.stream(first))),
        }
    }

    /// The first message, and all that follow up to the response or an error.
    fn stream(self, first: Bytes) -> crate::call::Messages {
        Box::pin(stream::unfold(
            (Some(first), Some(self)),
            |(first, exchange)| async {
                let mut exchange = exchange?;
                if let Some(first) = first {
                    return Some((Ok(first), (None, Some(exchange))));
                }
                match exchange.next().await {
                    Ok(Part::Passed(message)) => Some((Ok(message), (None, Some(exchange)))),
                    Ok(Part::Last(answer)) => Some((Ok(answer.body), (None, None))),
                    Err(error) => Some((Err(error), (None, None))),
                }
            },
        ))
    }

    async fn next(&mut self) -> Result<Part, CallError> {
        let body = match self
            .replies
            .next()
            .await
            .unwrap_or(Err(DuplexError::Closed))
        {
            Ok(Incoming::Notification(message)) => return Ok(Part::Passed(message)),
            Ok(Incoming::Response(body)) => body,
            Err(error) => return Err(self.lost(&error)),
        };
        let scanned = envelope::scan(&body).map_err(|error| {
            self.lost(&DuplexError::Garbage {
                reason: error.to_string(),
            })
        })?;
        message::incoming(&self.call, &self.backend, self.from, None, body, &scanned)
            .map(Part::Last)
    }

    fn lost(&self, error: &DuplexError) -> CallError {
        let (backend, reason) = (self.backend.clone(), error.for_client());
        match error {
            DuplexError::Garbage { .. } => CallError::BadAnswer { backend, reason },
            _ => CallError::Gone { backend, reason },
        }
    }
}
