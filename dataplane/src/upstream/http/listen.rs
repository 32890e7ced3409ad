//! What legacy backends say outside of calls: the stream that a GET opens (2025-11-25,
//! Transports: Listening for Messages from the Server).
//!
//! It is opened in every upstream session of a client that has such a stream here
//! itself, as long as that lasts, and again when it breaks. Backends need not offer one.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use tokio::time::{interval, sleep, timeout};

use super::{Http, MAX_EVENT, Sent, end_in_background, headers};
use crate::{
    call::WorkerId,
    codec::sse::Parser,
    envelope::{self, Kind},
    error::CallError,
    session::{Session, asked::Unasked},
    upstream::slot::{Live, Slot},
};

/// Waits between attempts, where the backend does not say.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Bounds of what it says.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));
/// Attempts in a row to resume the stream of a call.
const ATTEMPTS: u32 = 5;
/// How long a call waits for such a stream.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a listener looks whether its upstream session is still there.
const LOOK: Duration = Duration::from_secs(5);

impl Http {
    /// Begins to listen in this upstream session, for a client that does. There is one
    /// listener at most; it ends when the client listens no more.
    pub(crate) fn listen(&self, worker: WorkerId, session: &Arc<Session>, slot: &Arc<Slot>) {
        self.listen_to(worker, session, slot, None);
    }

    /// The same in the session of a call. Some servers ask there what belongs to the call: it is
    /// not made before they can.
    pub(super) async fn listen_first(
        &self,
        worker: WorkerId,
        session: &Arc<Session>,
        slot: &Arc<Slot>,
    ) {
        let Some(live) = slot.live() else {
            return;
        };
        let opening = self.open_stream(worker, &live, None);
        if let Ok(Ok(Ok(sent))) = timeout(PATIENCE, opening).await {
            self.listen_to(worker, session, slot, Some((live, sent)));
        }
    }

    fn listen_to(
        &self,
        worker: WorkerId,
        session: &Arc<Session>,
        slot: &Arc<Slot>,
        opened: Option<(Arc<Live>, Sent)>,
    ) {
        if !slot.take_listening() {
            return;
        }
        let (http, session, slot) = (self.clone(), session.clone(), slot.clone());
        tokio::spawn(async move {
            let mut opened = opened;
            loop {
                let may_go_on = tokio::select! {
                    () = session.listens_no_more() => true,
                    () = http.until_closed() => false,
                    offers = http.hear_all(worker, &session, &slot, opened.take()) => offers,
                };
                slot.leave_listening();
                // What has come back meanwhile, client or backend, has found it listening.
                if !may_go_on || !session.is_listening() || !slot.take_listening() {
                    return;
                }
            }
        });
    }

    /// Listens until there is nothing to listen to. Whether there may be again: `false`, the
    /// backend offers no such stream.
    async fn hear_all(
        &self,
        worker: WorkerId,
        session: &Arc<Session>,
        slot: &Arc<Slot>,
        mut opened: Option<(Arc<Live>, Sent)>,
    ) -> bool {
        let (mut pause, mut last) = (PAUSE.0, None);
        let mut reopening = PAUSE.0;
        let mut before: Option<Arc<Live>> = None;
        while let Some(live) = slot.live().filter(|_| !slot.is_withdrawn()) {
            if before.as_ref().is_none_or(|b| !Arc::ptr_eq(b, &live)) {
                (pause, last) = (PAUSE.0, None);
                before = Some(live.clone());
            }
            let mut retry = None;
            let stream = match opened.take() {
                Some((own, sent)) if Arc::ptr_eq(&own, &live) => Ok(Ok(sent)),
                _ => self.open_stream(worker, &live, last.as_ref()).await,
            };
            match stream {
                Ok(Ok(sent)) => {
                    slot.offers_stream.store(true, Ordering::Relaxed);
                    let mut parser = Parser::new(MAX_EVENT);
                    if self
                        .hear(worker, session, slot, &live, sent, &mut parser)
                        .await
                    {
                        (pause, reopening) = (PAUSE.0, PAUSE.0);
                    }
                    last = parser.last_event_id().cloned().or(last);
                    retry = parser.retry();
                }
                // The session is forgotten there, and with it what the client has subscribed
                // to: that need not wait for its next call.
                Ok(Err(StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST))
                    if slot.has_subscriptions()
                        && slot.offers_stream.swap(false, Ordering::Relaxed) =>
                {
                    slot.forget(&live);
                    end_in_background(worker, live);
                    loop {
                        let opened = Box::pin(self.open(worker, slot, Some(session))).await;
                        sleep(reopening).await;
                        reopening = (reopening * 2).min(PAUSE.1);
                        if opened.is_ok() {
                            break;
                        }
                        if slot.is_withdrawn() {
                            return true;
                        }
                    }
                    continue;
                }
                Ok(Err(_)) => {
                    live.has_no_stream.store(true, Ordering::Relaxed);
                    return false;
                }
                Err(error) => {
                    tracing::debug!(backend = self.0.name, %error, "cannot be listened to");
                }
            }
            sleep(retry.map_or(pause, asked_for)).await;
            pause = (pause * 2).min(PAUSE.1);
        }
        true
    }

    /// Passes on what one stream brings. Returns whether it brought anything.
    async fn hear(
        &self,
        worker: WorkerId,
        session: &Session,
        slot: &Slot,
        live: &Arc<Live>,
        sent: Sent,
        parser: &mut Parser,
    ) -> bool {
        let (mut body, mut any, mut look) = (sent.body, false, interval(LOOK));
        loop {
            let data = tokio::select! {
                data = body.frame() => data,
                _ = look.tick() => {
                    let is_here = slot.live().is_some_and(|now| Arc::ptr_eq(&now, live));
                    if !is_here || slot.is_withdrawn() {
                        return any;
                    }
                    continue;
                }
            };
            if slot.is_withdrawn() {
                return any;
            }
            let Ok(Some(data)) = data else { return any };
            parser.push(data);
            for event in parser.by_ref() {
                let Ok(event) = event else { return any };
                any = true;
                let other = event.event.is_some_and(|kind| *kind != b"message"[..]);
                if !other && !event.data.is_empty() {
                    self.heard(worker, session, live, event.data);
                }
            }
        }
    }

    fn heard(&self, worker: WorkerId, session: &Session, live: &Arc<Live>, data: Bytes) {
        let message = match envelope::scan(&data) {
            Ok(message) => message,
            Err(error) => {
                return tracing::warn!(backend = self.0.name, %error, "skipped an event that is not MCP");
            }
        };
        match message.kind {
            Kind::Request => {
                let Some(question) = self.asks(
                    worker,
                    live,
                    Some((session, session.its_call())),
                    &data,
                    &message,
                ) else {
                    return;
                };
                if !session.unsolicited(question)
                    && let Some(id) = message.id
                {
                    self.refuse(worker, live, id.of(&data), Unasked::TooMany);
                }
            }
            Kind::Notification => {
                let method = message.method.map_or(&b""[..], |span| span.of(&data));
                if method.ends_with(b"/list_changed") {
                    self.renew();
                } else if !session.is_leased() {
                    session.unsolicited(data);
                }
            }
            // Of a call whose stream is read elsewhere.
            Kind::Response | Kind::Error => {}
        }
    }

    /// A backend's lists have changed: they are asked for anew, and who listens is told
    /// when that makes a difference to what it sees.
    pub(super) fn renew(&self) {
        if let Some(renew) = self.0.renewal.get() {
            renew();
        }
    }

    /// Opens a stream, behind this event where one is given; or the status with which that
    /// was refused.
    pub(super) async fn open_stream(
        &self,
        worker: WorkerId,
        live: &Live,
        last: Option<&Bytes>,
    ) -> Result<Result<Sent, StatusCode>, CallError> {
        let lines = |out: &mut Vec<u8>| {
            headers::legacy(out, live);
            if let Some(last) = last {
                headers::last_event_id(out, last);
            }
        };
        let path = self.0.path.read().clone();
        let sent = self.send(worker, "GET", &path, lines, Bytes::new()).await?;
        let status = sent.head.status;
        if status == StatusCode::OK && sent.head.is_stream {
            return Ok(Ok(sent));
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(self.bad_answer(format!("it answered {status} to a GET")));
        }
        Ok(Err(status))
    }

    /// Opens the stream of a call again, behind this event, after the time that the
    /// backend has asked for.
    pub(super) async fn resume(
        &self,
        worker: WorkerId,
        live: &Live,
        last: &Bytes,
        retry: Option<u64>,
    ) -> Result<Sent, CallError> {
        let mut pause = retry.map_or(PAUSE.0, asked_for);
        for _ in 0..ATTEMPTS {
            sleep(pause).await;
            match self.open_stream(worker, live, Some(last)).await {
                Ok(Ok(sent)) => return Ok(sent),
                Ok(Err(_)) => break,
                Err(error) => {
                    tracing::debug!(backend = self.0.name, %error, "a stream was not resumed");
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
        Err(CallError::Gone {
            backend: self.0.name.clone(),
            reason: "its stream ended without a response and could not be resumed".to_owned(),
        })
    }
}

fn asked_for(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds).clamp(RETRY.0, RETRY.1)
}
