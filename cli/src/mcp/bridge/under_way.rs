//! [`UnderWay`]: requests of the client that are not answered yet, and what cancels them.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::AsyncWrite,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout_at},
};

use super::{Bridge, Line};

/// Behind this time a gateway has got a request, though its answer has not begun.
const ARRIVED: Duration = Duration::from_secs(1);

/// A request that is not answered yet.
pub(super) struct UnderWay {
    task: AbortHandle,
    /// Of a client without sessions: an end of the connection is what cancels it.
    stands_alone: bool,
    since: Instant,
    /// Closed when its answer has begun.
    answer: watch::Receiver<()>,
}

impl<W: AsyncWrite + Unpin + Send + 'static> Bridge<W> {
    /// Answers a request beside all else.
    pub(super) fn begin(self: &Arc<Self>, line: Line, requests: &mut JoinSet<()>) {
        let (id, stands_alone) = (line.id.clone(), line.version.is_some());
        let bridge = self.clone();
        let (begun, answer) = watch::channel(());
        let mut under_way = self.under_way();
        let task = requests.spawn(async move {
            let id = line.id.clone();
            bridge.ask(line, begun).await;
            bridge.under_way().remove(&id);
        });
        let since = Instant::now();
        under_way.insert(
            id,
            UnderWay {
                task,
                stands_alone,
                since,
                answer,
            },
        );
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, UnderWay>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancels a request: by the end of its connection where it stands alone. Else it is told,
    /// but not before the request has arrived, which is on a connection of its own.
    pub(super) async fn cancel(self: &Arc<Self>, line: Line, requests: &mut JoinSet<()>) {
        let wait = {
            let mut under_way = self.under_way();
            let id = line.cancels().unwrap_or_default();
            match under_way.get(&id) {
                Some(request) if request.stands_alone => {
                    request.task.abort();
                    under_way.remove(&id);
                    return;
                }
                Some(request) => Some((request.answer.clone(), request.since + ARRIVED)),
                None => None,
            }
        };
        let Some((mut answer, arrived)) = wait else {
            return self.tell(line).await;
        };
        let bridge = self.clone();
        requests.spawn(async move {
            let _ = timeout_at(arrived, answer.changed()).await;
            bridge.tell(line).await;
        });
    }
}
