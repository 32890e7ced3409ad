//! The life of a backend's connection: opened when it is first needed, and again when it has
//! ended, but not at once: after the Nth failure in a row nobody can open it for 100 ms
//! times 2^(N-1), 30 s at the most, up to half of that left out by chance. Who calls meanwhile
//! fails at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use super::{
    Connection, DuplexError, Hello, OnNotification, State, Transport, handshake, link::Link,
};
use crate::call::Era;

/// Backoff after the first failure; doubles with each that follows.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A connection that has served for so long does not count as a failure of the one before.
const HEALTHY: Duration = Duration::from_secs(10);

type Started = Result<Arc<Link>, DuplexError>;

enum Phase {
    Idle,
    /// With whom waits for it.
    Starting(Vec<oneshot::Sender<Started>>),
    Running {
        link: Arc<Link>,
        pid: Option<u32>,
    },
    Backoff {
        until: Instant,
        error: Arc<DuplexError>,
    },
    Closed,
}

struct Life {
    phase: Phase,
    /// In a row.
    failures: u32,
    /// The era in which it was last met, so that it need not be probed again.
    era: Option<Era>,
}

/// Owns the connection to one backend.
pub(super) struct Supervisor {
    transport: Box<dyn Transport>,
    runtime: Handle,
    on_notification: OnNotification,
    life: Mutex<Life>,
    /// Set once, when the backend is to end.
    stop: watch::Sender<bool>,
    /// Whether there is a connection to be waited for.
    alive: watch::Sender<bool>,
}

impl Supervisor {
    pub(super) fn new(
        transport: Box<dyn Transport>,
        runtime: Handle,
        on_notification: OnNotification,
    ) -> Arc<Self> {
        Arc::new(Self {
            transport,
            runtime,
            on_notification,
            life: Mutex::new(Life {
                phase: Phase::Idle,
                failures: 0,
                era: None,
            }),
            stop: watch::Sender::new(false),
            alive: watch::Sender::new(false),
        })
    }

    pub(super) fn name(&self) -> &str {
        self.transport.name()
    }

    /// What the connection is made of: `stdio`, `websocket`.
    pub(super) fn kind(&self) -> &'static str {
        self.transport.kind()
    }

    /// The link to the server, which is connected to if need be.
    pub(super) async fn link(self: &Arc<Self>) -> Started {
        let (waiter, started) = oneshot::channel();
        let mut start = false;
        {
            let mut life = self.life.lock();
            match &mut life.phase {
                _ if *self.stop.borrow() => return Err(DuplexError::Closed),
                Phase::Closed => return Err(DuplexError::Closed),
                Phase::Running { link, .. } => return Ok(link.clone()),
                Phase::Backoff { until, error } if *until > Instant::now() => {
                    let retry_in = until.saturating_duration_since(Instant::now());
                    return Err(DuplexError::Backoff {
                        retry_in,
                        error: error.clone(),
                    });
                }
                Phase::Starting(waiters) => waiters.push(waiter),
                phase @ (Phase::Idle | Phase::Backoff { .. }) => {
                    *phase = Phase::Starting(vec![waiter]);
                    self.alive.send_replace(true);
                    start = true;
                }
            }
        }
        if start {
            // Not under the lock: a runtime that has ended drops the task here and now.
            let run = Run(self.clone());
            self.runtime.spawn(async move { run.run().await });
        }
        started.await.unwrap_or(Err(DuplexError::Closed))
    }

    /// The link, if there is one.
    pub(super) fn running(&self) -> Option<Arc<Link>> {
        match &self.life.lock().phase {
            Phase::Running { link, .. } => Some(link.clone()),
            _ => None,
        }
    }

    /// The era of the server, once it has been greeted.
    pub(super) fn era(&self) -> Option<Era> {
        self.life.lock().era
    }

    pub(super) fn state(&self) -> State {
        let life = self.life.lock();
        match &life.phase {
            Phase::Idle => State::Idle,
            Phase::Starting(_) => State::Starting,
            Phase::Running { pid, .. } => State::Running { pid: *pid },
            Phase::Backoff { until, error } => State::Backoff {
                retry_in: until.saturating_duration_since(Instant::now()),
                failures: life.failures,
                error: error.detail(),
            },
            Phase::Closed => State::Closed,
        }
    }

    /// Lets the connection end, without waiting for it.
    pub(super) fn stop(&self) {
        let mut life = self.life.lock();
        self.stop.send_replace(true);
        if let Phase::Idle | Phase::Backoff { .. } = life.phase {
            life.phase = Phase::Closed;
        }
    }

    /// Lets the connection end, and waits until it has.
    pub(super) async fn shutdown(&self) {
        self.stop();
        // The sender is ours, so it cannot have gone.
        let _ = self.alive.subscribe().wait_for(|alive| !*alive).await;
    }

    async fn stopped(&self) {
        // As above.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    fn known_legacy(&self) -> bool {
        self.transport.is_legacy() || self.life.lock().era == Some(Era::Legacy)
    }
}

/// One connection and what becomes of it. Dropped at any time, by a runtime that ends,
/// it leaves nobody waiting.
struct Run(Arc<Supervisor>);

impl Run {
    async fn run(&self) {
        let mut connection = match self.start().await {
            Ok(connection) => connection,
            Err(error) => return self.ended(&error, Duration::ZERO),
        };
        let since = Instant::now();
        let error = tokio::select! {
            biased;
            () = self.0.stopped() => {
                connection.link().close(&DuplexError::Closed);
                connection.end().await;
                DuplexError::Closed
            }
            error = connection.ended() => error,
        };
        // In this order, so that nobody is given the dead link again.
        self.ended(&error, since.elapsed());
        connection.link().close(&error);
    }

    /// Connects and greets. A server that ends the connection when it is probed is connected to
    /// again and not probed: some do not survive a request before `initialize`.
    async fn start(&self) -> Result<Box<dyn Connection>, DuplexError> {
        let known = self.0.known_legacy();
        match self.attempt(known).await {
            Err(DuplexError::Exited { .. } | DuplexError::Lost { .. }) if !known => {
                self.attempt(true).await
            }
            outcome => outcome,
        }
    }

    async fn attempt(&self, legacy: bool) -> Result<Box<dyn Connection>, DuplexError> {
        let Self(supervisor) = self;
        let mut connection = tokio::select! {
            biased;
            () = supervisor.stopped() => return Err(DuplexError::Closed),
            opened = supervisor.transport.open(supervisor.on_notification.clone()) => opened?,
        };
        let link = connection.link().clone();
        let greeted = tokio::select! {
            biased;
            () = supervisor.stopped() => Err(DuplexError::Closed),
            greeted = handshake::greet(&link, legacy) => greeted,
            error = connection.ended() => return Err(error),
        };
        match greeted {
            Ok(hello) => {
                connection.greeted();
                self.started(&*connection, hello);
                Ok(connection)
            }
            Err(error) => {
                connection.end().await;
                Err(error)
            }
        }
    }

    fn started(&self, connection: &dyn Connection, hello: Hello) {
        let (link, pid) = (connection.link().clone(), connection.pid());
        let hello = link.greeted(hello);
        tracing::info!(target: "mcp::upstream", backend = self.0.name(), pid, era = ?hello.era, version = hello.protocol_version, "connected over {}", self.0.kind());
        let running = Phase::Running {
            link: link.clone(),
            pid,
        };
        let mut life = self.0.life.lock();
        life.era = Some(hello.era);
        let before = std::mem::replace(&mut life.phase, running);
        drop(life);
        if let Phase::Starting(waiters) = before {
            for waiter in waiters {
                let _ = waiter.send(Ok(link.clone()));
            }
        }
    }

    /// Notes that the connection has ended after it had served for `lived`.
    fn ended(&self, error: &DuplexError, lived: Duration) {
        let Self(supervisor) = self;
        let mut life = supervisor.life.lock();
        let error = if *supervisor.stop.borrow() {
            &DuplexError::Closed
        } else {
            error
        };
        let next = if let DuplexError::Closed = error {
            Phase::Closed
        } else {
            life.failures = if lived >= HEALTHY {
                1
            } else {
                life.failures.saturating_add(1)
            };
            let backoff = shortened(backoff(life.failures));
            // A server that is missing would fill the log: every doubling is enough.
            if life.failures.is_power_of_two() {
                tracing::warn!(target: "mcp::upstream", backend = supervisor.name(), failures = life.failures, ?backoff, "{}", error.detail());
            }
            Phase::Backoff {
                until: Instant::now() + backoff,
                error: Arc::new(error.clone()),
            }
        };
        let before = std::mem::replace(&mut life.phase, next);
        drop(life);
        if let Phase::Starting(waiters) = before {
            for waiter in waiters {
                let _ = waiter.send(Err(error.clone()));
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Still so only when the runtime has dropped the task.
        let lost = matches!(
            self.0.life.lock().phase,
            Phase::Starting(_) | Phase::Running { .. }
        );
        if lost {
            self.ended(&DuplexError::Closed, Duration::ZERO);
        }
        self.0.alive.send_replace(false);
    }
}

/// By up to half, by chance: many data planes lose a server at the same time, and are not to come
/// back at the same time.
fn shortened(backoff: Duration) -> Duration {
    let [chance] = crate::sealed::random().unwrap_or([0]);
    backoff - backoff * u32::from(chance) / 512
}

/// How long nobody can connect after so many failures in a row, at least one.
fn backoff(failures: u32) -> Duration {
    FIRST_BACKOFF
        .saturating_mul(1 << (failures - 1).min(16))
        .min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_up_to_its_bound() {
        let all = [1, 2, 3, 9, 10, u32::MAX].map(|failures| backoff(failures).as_millis());
        assert_eq!(all, [100, 200, 400, 25_600, 30_000, 30_000]);
    }
}
