//! Answers that are read to their end before anybody looks at them.

use bytes::Bytes;
use http_body_util::BodyExt;

use super::{Http, MAX_ANSWER, Sent, exchange::is_stream};
use crate::{
    codec::sse::Parser,
    envelope::{self, Kind},
    error::CallError,
};

impl Http {
    /// The body of a response, and its connection back into the pool.
    pub(super) async fn collect(&self, sent: Sent) -> Result<Bytes, CallError> {
        let Sent { response, mut conn } = sent;
        let limited = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
        match conn.drive(limited.collect()).await {
            Ok(collected) => {
                conn.release();
                Ok(collected.to_bytes())
            }
            Err(e) if e.is::<http_body_util::LengthLimitError>() => {
                Err(self.bad_answer(format!("an answer of more than {} MiB", MAX_ANSWER >> 20)))
            }
            Err(e) => Err(CallError::Gone {
                backend: self.0.name.clone(),
                reason: e.to_string(),
            }),
        }
    }

    /// The body of a response to a request of the proxy's own; of an event
    /// stream, the first message that is a response.
    pub(super) async fn collect_any(&self, sent: Sent) -> Result<Bytes, CallError> {
        if !is_stream(sent.response.headers()) {
            return self.collect(sent).await;
        }
        let mut parser = Parser::new(MAX_ANSWER);
        let Sent { response, mut conn } = sent;
        let mut body = response.into_body();
        loop {
            for event in parser.by_ref() {
                let event = event.map_err(|e| self.bad_answer(e.to_string()))?;
                if envelope::scan(&event.data)
                    .is_ok_and(|m| matches!(m.kind, Kind::Response | Kind::Error))
                {
                    return Ok(event.data);
                }
            }
            match conn.drive(body.frame()).await {
                Some(Ok(frame)) => parser.push(frame.into_data().unwrap_or_default()),
                Some(Err(e)) => {
                    return Err(CallError::Gone {
                        backend: self.0.name.clone(),
                        reason: e.to_string(),
                    });
                }
                None => return Err(self.bad_answer("its stream ended without a response")),
            }
        }
    }
}
