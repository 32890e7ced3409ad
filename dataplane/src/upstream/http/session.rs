//! Upstream sessions of legacy HTTP backends: opened on first use, once, while
//! the calls that need them wait; ended with DELETE.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{
    Http, end_in_background,
    exchange::is_of_nobody,
    headers::{self, SESSION_ID},
    level::LEVEL_TIMEOUT,
};
use crate::{
    call::{ProtocolVersion, WorkerId},
    envelope,
    error::CallError,
    session::Session,
    upstream::{
        message::{CLIENT_INFO, logs},
        slot::{Live, Slot},
    },
};

/// Longest time for a request of ours whose answer makes no difference.
const TELLING: Duration = Duration::from_secs(10);

/// Why a legacy call, or the opening of its session, failed.
pub(super) enum Failed {
    /// The backend does not speak the legacy era, which is known only now.
    NotSpoken,
    /// Anything else.
    Call(CallError),
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// Ends an upstream session that its call did not come to use: it failed, ran
/// out of time, or its client has left.
struct Unused(WorkerId, Option<Arc<Live>>);

impl Unused {
    fn keep(mut self) {
        self.1 = None;
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        if let Some(live) = self.1.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            end_in_background(self.0, live);
        }
    }
}

/// Whether a refusal is that of a session which the server has forgotten, in a
/// restart perhaps: 404 (2025-11-25, Session Management), or the 400 that many
/// servers give, without an id or with one that names no request. A 400 that answers the
/// request by its id is another matter: the server has looked at it.
pub(super) fn is_lost(status: StatusCode, refusal: &[u8]) -> bool {
    if status == StatusCode::NOT_FOUND {
        return true;
    }
    match envelope::scan(refusal) {
        Ok(message) => is_of_nobody(refusal, &message),
        Err(_) => true,
    }
}

#[derive(Deserialize)]
struct Initialized<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Negotiated {
    #[serde(rename = "protocolVersion")]
    version: String,
}

impl Http {
    /// The session in this slot, opened for `client` where there is none yet.
    pub(super) async fn open(
        &self,
        worker: WorkerId,
        slot: &Arc<Slot>,
        client: Option<&Arc<Session>>,
    ) -> Result<Arc<Live>, Failed> {
        if let Some(live) = slot.live() {
            return Ok(live);
        }
        let _opening = slot.opening.lock().await;
        if let Some(live) = slot.live() {
            return Ok(live);
        }
        let live = Arc::new(self.initialize(worker, client.map(Arc::as_ref)).await?);
        let unused = Unused(worker, Some(live.clone()));
        self.notify(
            worker,
            &live,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.into(),
        )
        .await?;
        slot.set(live.clone());
        self.remember(slot);
        if let Some(client) = client {
            self.subscribe_again(worker, client, slot, &live);
        }
        unused.keep();
        match client {
            Some(client) if client.is_leased() => {
                Box::pin(self.listen_first(worker, client, slot)).await;
            }
            Some(client) if client.is_listening() => {
                self.listen(worker, client, slot);
                // For a call that has begun before its gateway had other backends, perhaps.
                client.has_opened();
            }
            _ => {}
        }
        if let Some(level) = client.and_then(|client| client.log_level()) {
            let _ = timeout(LEVEL_TIMEOUT, self.set_level(worker, &live, level)).await;
        }
        Ok(live)
    }

    async fn initialize(&self, worker: WorkerId, client: Option<&Session>) -> Result<Live, Failed> {
        let version = client.map_or(ProtocolVersion::NEWEST_LEGACY, |c| c.version);
        let info = client
            .and_then(|c| std::str::from_utf8(&c.client_info).ok())
            .unwrap_or(CLIENT_INFO);
        // What the client can be asked is passed on to it; a session of many has nobody to ask.
        let capabilities = client
            .and_then(|c| std::str::from_utf8(&c.capabilities).ok())
            .unwrap_or("{}");
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{}","capabilities":{capabilities},"clientInfo":{info}}}}}"#,
            version.as_str()
        );
        let sent = self.post(worker, |_: &mut Vec<u8>| {}, body.into()).await?;
        let status = sent.head.status;
        let id = sent.head.get(SESSION_ID.as_str());
        let id = id.and_then(|id| HeaderValue::from_bytes(id).ok());
        let body = self.collect_any(sent).await?;
        let answer = serde_json::from_slice::<Initialized<'_>>(&body).ok();
        let Some(result) = answer.as_ref().and_then(|a| a.result) else {
            return Err(self.no_session(status, answer.is_some_and(|a| a.error.is_some()), &body));
        };
        let negotiated = serde_json::from_str::<Negotiated>(result.get())
            .ok()
            .and_then(|n| HeaderValue::from_str(&n.version).ok())
            .ok_or_else(|| {
                self.bad_answer("its answer to `initialize` names no protocolVersion")
            })?;
        self.0.eras.set_legacy(true);
        let result = body.slice_ref(result.get().as_bytes());
        Ok(Live {
            logs: logs::are_declared(&result),
            level: Default::default(),
            level_waits: AtomicBool::new(false),
            has_no_stream: AtomicBool::new(false),
            id,
            version: negotiated,
            result,
            backend: Arc::downgrade(&self.0),
        })
    }

    /// Why `initialize` brought no session. A refusal in MCP's terms, or as an
    /// HTTP server refuses what it does not know, says that the era is not spoken.
    fn no_session(&self, status: StatusCode, refused: bool, body: &Bytes) -> Failed {
        use super::era::Spoken;
        let eras = &self.0.eras;
        let credentials = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let unknown = (refused || status.is_client_error()) && !credentials;
        match (eras.modern(), eras.legacy()) {
            (Spoken::No, Spoken::Yes) if unknown => {
                // It was replaced by a server of the other era: probe anew.
                eras.forget();
                eras.set_legacy(false);
                return Failed::NotSpoken;
            }
            (Spoken::Unknown | Spoken::Yes, _) if unknown => {
                eras.set_legacy(false);
                return Failed::NotSpoken;
            }
            // Some modern servers fail over a method they do not know.
            (Spoken::Yes, Spoken::Unknown) if !credentials => {
                eras.set_legacy(false);
                return Failed::NotSpoken;
            }
            (_, Spoken::Yes) => {}
            // The next call probes anew.
            _ => eras.forget(),
        }
        let start = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let detail = format!("it refused `initialize` with HTTP {status}: {start}");
        Failed::Call(CallError::unavailable(
            &self.0.name,
            "it opens no session",
            detail,
        ))
    }

    /// Posts a message that gets no answer.
    pub(crate) async fn notify(
        &self,
        worker: WorkerId,
        live: &Live,
        body: Bytes,
    ) -> Result<(), CallError> {
        let lines = |out: &mut Vec<u8>| headers::legacy(out, live);
        let sent = self.post(worker, lines, body).await?;
        let status = sent.head.status;
        self.collect_any(sent).await?;
        if status.is_success() {
            Ok(())
        } else {
            Err(self.bad_answer(format!("it answered {status} to a notification")))
        }
    }

    /// Makes a request of ours in a session; what is answered makes no difference.
    pub(super) async fn tell(&self, worker: WorkerId, live: &Live, method: &str, params: &str) {
        let body = format!(
            // A text, so that it is none of the ids that the client uses beside it.
            r#"{{"jsonrpc":"2.0","id":"mcp-fleet-{}","method":"{method}","params":{params}}}"#,
            self.next_id()
        );
        let lines = |out: &mut Vec<u8>| headers::legacy(out, live);
        let answer = async {
            let sent = self.post(worker, lines, body.into()).await?;
            self.collect_any(sent).await
        };
        match timeout(TELLING, answer).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(backend = self.0.name, %error, method, "not passed on");
            }
            Err(_) => tracing::debug!(backend = self.0.name, method, "not answered"),
        }
    }

    /// Ends an upstream session. The server may refuse, or be gone: nothing is
    /// to be done about it.
    pub(super) async fn end(&self, worker: WorkerId, live: &Live) {
        if live.id.is_none() {
            return;
        }
        let path = self.0.path.read().clone();
        let lines = |out: &mut Vec<u8>| headers::legacy(out, live);
        let answer = async {
            let sent = self
                .send(worker, "DELETE", &path, lines, Bytes::new())
                .await?;
            self.collect_any(sent).await
        };
        if let Err(error) = answer.await {
            tracing::debug!(backend = self.0.name, %error, "upstream session was not ended");
        }
    }
}
