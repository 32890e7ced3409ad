//! What a legacy backend asks the client of a session, and what the client answers.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use tokio::time::timeout;

use super::Http;
use crate::{
    call::WorkerId,
    envelope::Message,
    error::{CallError, error_message, result_message},
    session::{
        Session,
        asked::{Asker, Unasked, Via},
        inflight::CallId,
    },
    upstream::slot::Live,
};

/// How long an answer of the proxy's own may take to send.
const PATIENCE: Duration = Duration::from_secs(1);

impl Http {
    /// A request that came in the upstream session `live`: as the client is to see it,
    /// or `None` where it has been answered for it. `ping` is the proxy's to answer, and
    /// what the client cannot be asked is refused.
    pub(super) fn asks(
        &self,
        worker: WorkerId,
        live: &Arc<Live>,
        client: Option<(&Session, Option<CallId>)>,
        request: &Bytes,
        message: &Message,
    ) -> Option<Bytes> {
        let id = message.id?.of(request);
        if message.method.is_some_and(|m| m.of(request) == b"ping") {
            self.answer(worker, live, result_message(id, b"{}"));
            return None;
        }
        let asked = match client {
            Some((session, call)) => {
                let asker = Asker {
                    backend: &self.0.name,
                    via: self.way_back(live),
                    call,
                };
                session.question(&asker, request, message)
            }
            None => Err(Unasked::NotDeclared),
        };
        match asked {
            Ok(question) => Some(question),
            Err(why) => {
                self.refuse(worker, live, id, why);
                None
            }
        }
    }

    /// Tells a backend that its request is not asked.
    pub(super) fn refuse(&self, worker: WorkerId, live: &Arc<Live>, id: &[u8], why: Unasked) {
        let refusal = error_message(id, why.code(), &why.to_string(), None);
        self.answer(worker, live, refusal);
    }

    /// Posts a client's answer, or its notification, in the upstream session that it is for.
    ///
    /// # Errors
    /// It belongs elsewhere, or the backend does not take it.
    pub(crate) async fn deliver(
        &self,
        worker: WorkerId,
        to: &Via,
        body: Bytes,
    ) -> Result<(), CallError> {
        let elsewhere = || CallError::Gone {
            backend: self.0.name.clone(),
            reason: "it is another one than that which asked".to_owned(),
        };
        let Via::Http {
            session,
            version,
            address,
        } = to
        else {
            return Err(elsewhere());
        };
        if *address != self.0.address {
            return Err(elsewhere());
        }
        let header = |text: &str| HeaderValue::from_str(text).map_err(|_| elsewhere());
        let live = Live {
            id: session.as_deref().map(header).transpose()?,
            version: header(version)?,
            result: Bytes::new(),
            logs: false,
            level: Default::default(),
            level_waits: AtomicBool::new(false),
            has_no_stream: AtomicBool::new(false),
            backend: Arc::downgrade(&self.0),
        };
        self.notify(worker, &live, body).await
    }

    /// What an answer needs to come back to this upstream session.
    fn way_back(&self, live: &Live) -> Via {
        let text = |value: &HeaderValue| value.to_str().map(ToOwned::to_owned);
        Via::Http {
            session: live.id.as_ref().and_then(|id| text(id).ok()),
            version: text(&live.version).unwrap_or_default(),
            address: self.0.address.clone(),
        }
    }

    /// Posts an answer of the proxy's own. Of those of one backend there is a bounded
    /// number under way; a flood of requests goes unanswered.
    fn answer(&self, worker: WorkerId, live: &Arc<Live>, body: Bytes) {
        let Ok(room) = self.0.answers.clone().try_acquire_owned() else {
            tracing::debug!(
                backend = self.0.name,
                "left a request of a backend unanswered: too many at once"
            );
            return;
        };
        let (http, live) = (self.clone(), live.clone());
        tokio::spawn(async move {
            let _room = room;
            let sent = timeout(PATIENCE, http.notify(worker, &live, body)).await;
            if !matches!(sent, Ok(Ok(()))) {
                tracing::debug!(
                    backend = http.0.name,
                    "a backend's request could not be answered"
                );
            }
        });
    }
}
