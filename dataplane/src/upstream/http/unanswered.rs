//! A call of a client of the modern era at a backend of the legacy one: the client cancels it by
//! closing its stream, the backend has to be told (2025-11-25, Cancellation).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{runtime::Handle, time::timeout};

use super::Http;
use crate::{call::WorkerId, upstream::slot::Live};

/// How long the notification may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Until it is answered, dropping it cancels the call.
pub(super) struct Unanswered {
    http: Http,
    worker: WorkerId,
    /// The upstream session, and the id that the call has there.
    at: Option<(Arc<Live>, Bytes)>,
}

impl Unanswered {
    pub(super) fn new(http: &Http, worker: WorkerId, live: &Arc<Live>, id: &Bytes) -> Self {
        Self {
            http: http.clone(),
            worker,
            at: Some((live.clone(), id.clone())),
        }
    }

    pub(super) fn answered(&mut self) {
        self.at = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let (Some((live, id)), Ok(runtime)) = (self.at.take(), Handle::try_current()) else {
            return;
        };
        let (http, worker) = (self.http.clone(), self.worker);
        let body = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{},"reason":"cancelled by the client"}}}}"#,
            String::from_utf8_lossy(&id)
        );
        runtime.spawn(async move {
            let _ = timeout(PATIENCE, http.notify(worker, &live, body.into())).await;
        });
    }
}
