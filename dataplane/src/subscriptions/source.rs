//! The stream of one client at one backend.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::notice;
use crate::{
    call::WorkerId,
    envelope::{self, Edit, Kind, Message},
    session::Owner,
    upstream::{
        Upstream,
        listening::{Backoff, Listening, Wanted},
        message::SUBSCRIPTION_ID,
    },
};

const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// What a backend is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subjects {
    pub(crate) uris: Vec<String>,
    /// The backend's own id of a task, and the client's.
    pub(crate) tasks: Vec<(String, String)>,
}

/// The serial number of a backend, and what it has said.
pub(crate) type Heard = (u64, Bytes);

/// Where what is heard goes.
pub(crate) struct Out {
    /// Source text of the subscription's id; `None`: the client knows of none.
    pub(crate) id: Option<Bytes>,
    /// Members of `_meta` of the request.
    pub(crate) meta: String,
    pub(crate) to: mpsc::Sender<Heard>,
    pub(crate) backend: u64,
    /// Whose it is.
    pub(crate) owner: Owner,
}

/// A stream; dropped, it is closed.
pub(crate) struct Source {
    pub(crate) subjects: Arc<Subjects>,
    /// The URIs that the backend honours; `None`: it has not said yet.
    pub(crate) honoured: watch::Receiver<Option<Vec<String>>>,
    task: AbortHandle,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Deserialize)]
struct Acknowledged {
    params: AcknowledgedParams,
}

#[derive(Deserialize)]
struct AcknowledgedParams {
    notifications: Honoured,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Honoured {
    resource_subscriptions: Vec<String>,
}

impl Source {
    /// Opens one, on this runtime; `begun` is its beginning, where there is one already.
    pub(crate) fn open(
        upstream: Upstream,
        worker: WorkerId,
        subjects: Subjects,
        out: Out,
        begun: Option<Listening>,
    ) -> Self {
        let (told, honoured) = watch::channel(None);
        let subjects = Arc::new(subjects);
        let hearing = Hearing {
            upstream,
            worker,
            filter: filter(&subjects),
            subjects: subjects.clone(),
            out,
            told,
        };
        let task = tokio::spawn(hearing.all(begun)).abort_handle();
        Self {
            subjects,
            honoured,
            task,
        }
    }

    /// Whether the backend honours this URI, as far as it has said.
    pub(crate) fn honours(&self, uri: &str) -> bool {
        let honoured = self.honoured.borrow();
        honoured
            .as_ref()
            .is_none_or(|all| all.iter().any(|own| own == uri))
    }
}

/// Whoever listens at the backend.
struct Hearing {
    upstream: Upstream,
    worker: WorkerId,
    /// What it is asked for, as a JSON text.
    filter: String,
    subjects: Arc<Subjects>,
    out: Out,
    told: watch::Sender<Option<Vec<String>>>,
}

impl Hearing {
    /// Listens until nobody does, and connects again whenever the stream ends.
    async fn all(self, mut begun: Option<Listening>) {
        let mut backoff = Backoff::default();
        loop {
            let opened = Instant::now();
            let stream = match begun.take() {
                Some(stream) => Ok(Some(stream)),
                None => {
                    let wanted = Wanted {
                        meta: &self.out.meta,
                        filter: &self.filter,
                        uris: &self.subjects.uris,
                        owner: self.out.owner,
                    };
                    self.upstream.subscribe(self.worker, wanted).await
                }
            };
            match stream {
                Ok(Some(stream)) => {
                    let is_over = tokio::select! {
                        passed = self.one(stream) => passed.is_err(),
                        () = self.upstream.until_closed() => true,
                    };
                    if is_over {
                        return;
                    }
                }
                Ok(None) => {
                    self.told.send_replace(Some(Vec::new()));
                }
                Err(_) if self.upstream.is_closed() => return,
                Err(error) => tracing::debug!(%error, "a backend could not be listened to"),
            }
            backoff.was_open_for(opened.elapsed());
            sleep(backoff.next()).await;
        }
    }

    /// Passes on what a stream brings, to its end. `Err`: nobody wants it any more.
    async fn one(&self, mut stream: Listening) -> Result<(), ()> {
        while let Some(data) = stream.next().await {
            let Ok(message) = envelope::scan(&data) else {
                continue;
            };
            match message.kind {
                Kind::Notification => {}
                Kind::Error => {
                    self.told.send_replace(Some(Vec::new()));
                    break;
                }
                // The closing result.
                _ => break,
            }
            if is(&data, &message, ACKNOWLEDGED) {
                self.told.send_replace(Some(acknowledged(&data)));
            } else if let Some(passed) =
                passed(&data, &message, &self.subjects, self.out.id.as_deref())
            {
                self.out
                    .to
                    .send((self.out.backend, passed))
                    .await
                    .map_err(drop)?;
            }
        }
        Ok(())
    }
}

pub(super) fn filter(subjects: &Subjects) -> String {
    let mut filter = serde_json::Map::new();
    if !subjects.uris.is_empty() {
        filter.insert(
            "resourceSubscriptions".to_owned(),
            subjects.uris.clone().into(),
        );
    }
    if !subjects.tasks.is_empty() {
        let own: Vec<_> = subjects.tasks.iter().map(|(own, _)| own.clone()).collect();
        filter.insert("taskIds".to_owned(), own.into());
    }
    serde_json::Value::Object(filter).to_string()
}

pub(super) fn acknowledged(data: &[u8]) -> Vec<String> {
    serde_json::from_slice::<Acknowledged>(data)
        .map(|told| told.params.notifications.resource_subscriptions)
        .unwrap_or_default()
}

fn is(data: &[u8], message: &Message, method: &str) -> bool {
    message
        .method
        .is_some_and(|m| m.of(data) == method.as_bytes())
}

/// A notification for the client: nothing that it has not asked for.
fn passed(
    data: &Bytes,
    message: &Message,
    subjects: &Subjects,
    id: Option<&[u8]>,
) -> Option<Bytes> {
    if is(data, message, "notifications/resources/updated") && !subjects.uris.is_empty() {
        return match id {
            Some(id) => notice::passed(data, message, id, None),
            None => Some(without_subscription(data, message)),
        };
    }
    if is(data, message, "notifications/tasks") {
        let span = message.task_id?;
        let own = envelope::string_value(data, span)?;
        let (_, token) = subjects.tasks.iter().find(|(task, _)| *task == *own)?;
        let literal = envelope::quote(token);
        return notice::passed(data, message, id?, Some((span, &literal)));
    }
    None
}

/// A notification without the id of a subscription, of which a client of the legacy era knows
/// nothing.
fn without_subscription(data: &Bytes, message: &Message) -> Bytes {
    let Some(meta) = message.meta else {
        return data.clone();
    };
    let kept = envelope::without(data, meta, &[SUBSCRIPTION_ID]);
    let mut edits = [Edit::replace(meta, &kept)];
    // The span is one of this very message.
    envelope::splice(data, &mut edits).unwrap_or_else(|_| data.clone())
}
