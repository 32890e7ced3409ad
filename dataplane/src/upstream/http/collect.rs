//! Answers that are read to their end before anybody looks at them.

use bytes::Bytes;

use super::{Http, MAX_ANSWER, Sent};
use crate::{
    codec::sse::Parser,
    envelope::{self, Kind},
    error::CallError,
    upstream::{http1::WireError, pool::ReadError},
};

impl Http {
    /// The body of a response, and its connection back into the pool.
    pub(super) async fn collect(&self, sent: Sent) -> Result<Bytes, CallError> {
        sent.body
            .collect(MAX_ANSWER)
            .await
            .map_err(|e| self.unread(e))
    }

    /// What a call is told of an answer that could not be read.
    #[cold]
    pub(super) fn unread(&self, error: ReadError) -> CallError {
        match error {
            ReadError::TooLarge(most) => {
                self.bad_answer(format!("an answer of more than {} MiB", most >> 20))
            }
            ReadError::Http1(WireError::Malformed(_)) => self.bad_answer(error.to_string()),
            other => CallError::Gone {
                backend: self.0.name.clone(),
                reason: other.to_string(),
            },
        }
    }

    /// The body of a response to a request of the proxy's own; of an event
    /// stream, the first message that is a response.
    pub(super) async fn collect_any(&self, sent: Sent) -> Result<Bytes, CallError> {
        if !sent.head.is_stream {
            return self.collect(sent).await;
        }
        let mut parser = Parser::new(MAX_ANSWER);
        let mut body = sent.body;
        loop {
            for event in parser.by_ref() {
                let event = event.map_err(|e| self.bad_answer(e.to_string()))?;
                if envelope::scan(&event.data)
                    .is_ok_and(|m| matches!(m.kind, Kind::Response | Kind::Error))
                {
                    return Ok(event.data);
                }
            }
            match body.frame().await.map_err(|e| self.unread(e))? {
                Some(piece) => parser.push(piece),
                None => return Err(self.bad_answer("its stream ended without a response")),
            }
        }
    }
}
