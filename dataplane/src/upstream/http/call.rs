//! A call on its way to the backend: in which era, and in which session.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::{Http, Sent, era, exchange::Exchange, headers, session, unanswered::Unanswered};
use crate::{
    call::{Call, Era, Reply},
    error::CallError,
    upstream::{
        http1::Head,
        message::outgoing,
        slot::{Live, Slot},
    },
};

/// A call that was sent.
struct Posted {
    sent: Sent,
    way: Way,
}

/// How a call went out.
pub(super) enum Way {
    /// In the modern era.
    Stateless,
    /// In the legacy era.
    Session {
        slot: Arc<Slot>,
        live: Arc<Live>,
        /// The id it was sent with, where that is not the client's.
        id: Option<Bytes>,
        /// Cancels it, where the client does that by going away.
        unanswered: Option<Unanswered>,
    },
}

impl Way {
    pub(super) fn answered(&mut self) {
        if let Self::Session {
            unanswered: Some(unanswered),
            ..
        } = self
        {
            unanswered.answered();
        }
    }
}

impl Http {
    /// Sends a call and gives its answer.
    ///
    /// # Errors
    /// See [`CallError`].
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice, and a call is large"
    )]
    pub fn call(&self, call: Call) -> impl Future<Output = Result<Reply, CallError>> + Send {
        async move {
            let mut again = true;
            loop {
                let era = match self.known(call.version)? {
                    Some(era) => era,
                    None => Box::pin(self.probe(call.worker)).await?,
                };
                let posted = match era {
                    Era::Modern => self.post_modern(&call).await?,
                    Era::Legacy => match self.post_legacy(&call).await {
                        // It has just turned out not to speak that era: ask again.
                        Err(session::Failed::NotSpoken) => continue,
                        Err(session::Failed::Call(error)) => return Err(error),
                        Ok(posted) => posted,
                    },
                };
                let Posted { sent, mut way } = posted;
                let Head {
                    status, is_stream, ..
                } = sent.head;
                let refused = matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND);
                let reply = if is_stream && !(refused && era == Era::Legacy) {
                    let exchange = Exchange::new(self, call, way);
                    Box::pin(exchange.events(sent)).await
                } else {
                    let body = if is_stream {
                        Box::pin(self.collect_any(sent)).await?
                    } else {
                        self.collect(sent).await?
                    };
                    way.answered();
                    if again && refused && self.is_lost(&way, status, &body) {
                        again = false;
                        continue;
                    }
                    let exchange = Exchange::new(self, call, way);
                    exchange.whole(status, body).map(Reply::Whole)
                };
                if era == Era::Modern {
                    self.learn(refused, &reply);
                }
                return reply;
            }
        }
    }

    /// Whether a refusal says that the session is gone, and another one will do.
    fn is_lost(&self, way: &Way, status: StatusCode, refusal: &[u8]) -> bool {
        let Way::Session { slot, live, .. } = way else {
            return false;
        };
        if !session::is_lost(status, refusal) {
            return false;
        }
        // Without a session nothing was lost, but the server may speak another era by
        // now: the next call's `initialize` will tell.
        slot.forget(live);
        live.id.is_some()
    }

    /// What an answer tells of the era that the backend speaks.
    fn learn(&self, refused: bool, reply: &Result<Reply, CallError>) {
        match reply {
            Ok(Reply::Whole(answer)) if era::is_modern_error(answer.error) => {
                self.0.eras.trust();
            }
            // Perhaps it was replaced by one of the other era.
            _ if refused => self.0.eras.doubt(),
            Ok(_) => self.0.eras.trust(),
            Err(_) => {}
        }
    }

    async fn post_modern(&self, call: &Call) -> Result<Posted, CallError> {
        let body = outgoing(call, Era::Modern, None)?;
        let lines = |out: &mut Vec<u8>| headers::modern(out, call);
        let sent = self.post(call.worker, lines, body).await?;
        Ok(Posted {
            sent,
            way: Way::Stateless,
        })
    }

    /// Sends a call in the session of its client, which is opened where there is none.
    async fn post_legacy(&self, call: &Call) -> Result<Posted, session::Failed> {
        let (slot, id) = match &call.session {
            Some(session) if !session.is_leased() => (session.upstream(self.0.serial), None),
            Some(session) => (
                session.upstream(self.0.serial),
                Some(Bytes::from(self.next_id().to_string())),
            ),
            None => (
                Arc::clone(&self.0.shared),
                Some(Bytes::from(self.next_id().to_string())),
            ),
        };
        let body = outgoing(call, Era::Legacy, id.as_deref())?;
        let live = match slot.live() {
            Some(live) => live,
            None => Box::pin(self.open(call.worker, &slot, call.session.as_ref())).await?,
        };
        if call.message.log_level.is_some() && call.version.era() == Era::Modern && live.logs {
            Box::pin(self.logs_for(call, &live)).await;
        }
        let lines = |out: &mut Vec<u8>| headers::legacy(out, &live);
        let unanswered = match &id {
            Some(id) if call.version.era() == Era::Modern => {
                Some(Unanswered::new(self, call.worker, &live, id))
            }
            _ => None,
        };
        let sent = self.post(call.worker, lines, body).await?;
        Ok(Posted {
            sent,
            way: Way::Session {
                slot,
                live,
                id,
                unanswered,
            },
        })
    }
}
