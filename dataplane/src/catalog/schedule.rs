//! [`Discovery`]: who is asked next what it offers. One task for all backends of a node; a
//! backend that waits its turn, or needs not be asked, costs nothing but its place in a queue.
//!
//! Whose lists nobody knows, or have changed, come first. Whose known lists are shown meanwhile
//! come at leisure, so that a change of ten thousand backends takes little from who is served.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep_until},
};

use super::discover;
use crate::{backend::Backend, call::WorkerId, node::Node};

/// Backends asked at the same time.
const AT_ONCE: usize = 256;
/// Waits between attempts at a backend that fails; they double.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Pause of a backend that has been asked, however often it says that its lists have changed.
const REST: Duration = Duration::from_millis(250);

/// How soon a backend is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Nobody knows what it offers, or it says that this has changed.
    Now,
    /// What is known of it will do for a while.
    AtLeisure,
}

/// Who is asked next.
#[derive(Default)]
pub struct Discovery {
    queue: Mutex<Queue>,
    changed: Notify,
    running: AtomicBool,
}

struct Queue {
    now: Line,
    at_leisure: Line,
    /// Those that have failed, or rest.
    later: BinaryHeap<Reverse<Later>>,
    closed: bool,
}

/// Backends that wait, and how fast they are asked.
struct Line {
    waiting: VecDeque<Weak<Backend>>,
    /// Between two of them, on average.
    step: Duration,
    /// How many may be asked at once after a pause.
    burst: u32,
    /// When the next one may be.
    next: Option<Instant>,
}

struct Later {
    due: Instant,
    /// Failures of the backend when this was noted.
    failures: u32,
    backend: Weak<Backend>,
}

/// Where a backend is in all this. Changes under the lock of the queue only.
#[derive(Default)]
pub(super) struct Place {
    home: OnceLock<(Arc<Discovery>, Weak<Backend>)>,
    state: AtomicU8,
    /// In a row.
    failures: AtomicU32,
    /// When it had last been asked.
    asked: Mutex<Option<Instant>>,
}

/// Values of [`Place::state`].
const IDLE: u8 = 0;
const AT_LEISURE: u8 = 1;
const NOW: u8 = 2;
const ASKED: u8 = 3;
/// Asked, and to be asked once more.
const AGAIN: u8 = 4;
/// To be asked once more when it has rested.
const RESTING: u8 = 5;

impl Default for Queue {
    fn default() -> Self {
        Self {
            now: Line::new(Duration::from_micros(400), 256),
            at_leisure: Line::new(Duration::from_millis(2), 64),
            later: BinaryHeap::new(),
            closed: false,
        }
    }
}

/// Has a backend asked whenever its catalogue wants that.
pub(crate) fn enter(node: &Arc<Node>, backend: &Arc<Backend>) {
    let discovery = &node.discoveries;
    let place = &backend.catalog.place;
    // A backend has one node.
    let _ = place.home.set((discovery.clone(), Arc::downgrade(backend)));
    if !discovery.running.swap(true, Relaxed) {
        let run = run(discovery.clone(), node.background_worker());
        node.background.spawn(run);
    }
}

/// Until the node is gone.
async fn run(discovery: Arc<Discovery>, worker: WorkerId) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    while let Ok(place) = room.clone().acquire_owned().await {
        let Some(backend) = discovery.next().await else {
            return;
        };
        let discovery = discovery.clone();
        tokio::spawn(async move {
            let told = discover::renew(&backend, worker).await;
            discovery.asked(&backend, told);
            drop(place);
        });
    }
}

impl Place {
    /// Wants the backend asked.
    pub(super) fn want(&self, urgency: Urgency) {
        if let Some((discovery, backend)) = self.home.get() {
            discovery.want(self, backend, urgency);
        }
    }

    /// When it may be asked again, where that is not now.
    fn rested_at(&self) -> Option<Instant> {
        let asked = *self.asked.lock();
        asked
            .map(|at| at + REST)
            .filter(|due| *due > Instant::now())
    }

    /// Whether what is known may be about to be replaced.
    pub(super) fn is_wanted(&self) -> bool {
        self.state.load(Relaxed) != IDLE || self.failures.load(Relaxed) != 0
    }
}

impl Discovery {
    /// Nobody is asked from now on.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.now.waiting = VecDeque::new();
        queue.at_leisure.waiting = VecDeque::new();
        queue.later = BinaryHeap::new();
        drop(queue);
        self.changed.notify_one();
    }

    fn want(&self, place: &Place, backend: &Weak<Backend>, urgency: Urgency) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return;
        }
        let is_idle = place.state.load(Relaxed) == IDLE;
        if is_idle && let Some(due) = place.rested_at() {
            place.state.store(RESTING, Relaxed);
            queue.postpone(due, backend.clone(), place);
            drop(queue);
            return self.changed.notify_one();
        }
        let (line, state) = match (place.state.load(Relaxed), urgency) {
            // One that waited at leisure moves up; its old place is passed over.
            (IDLE | AT_LEISURE, Urgency::Now) => (&mut queue.now, NOW),
            (IDLE, Urgency::AtLeisure) => (&mut queue.at_leisure, AT_LEISURE),
            (ASKED, _) => return place.state.store(AGAIN, Relaxed),
            _ => return,
        };
        place.state.store(state, Relaxed);
        line.waiting.push_back(backend.clone());
        let is_first = line.waiting.len() == 1;
        drop(queue);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// A backend has been asked.
    fn asked(&self, backend: &Arc<Backend>, told: bool) {
        let place = &backend.catalog.place;
        let mut queue = self.queue.lock();
        let again = place.state.load(Relaxed) == AGAIN;
        place.state.store(IDLE, Relaxed);
        *place.asked.lock() = Some(Instant::now());
        if told {
            place.failures.store(0, Relaxed);
        } else {
            let failures = place.failures.load(Relaxed).saturating_add(1);
            place.failures.store(failures, Relaxed);
            let due = Instant::now() + backoff(failures);
            queue.postpone(due, Arc::downgrade(backend), place);
        }
        drop(queue);
        if again {
            place.want(Urgency::Now);
        } else if !told {
            self.changed.notify_one();
        }
    }

    /// The next backend, when it is its turn; `None`: nobody is asked any more.
    async fn next(&self) -> Option<Arc<Backend>> {
        loop {
            let changed = self.changed.notified();
            let look_again = {
                let mut queue = self.queue.lock();
                if queue.closed {
                    return None;
                }
                let now = Instant::now();
                queue.wake(now);
                match queue.take(now) {
                    Ok(backend) => return Some(backend),
                    Err(look_again) => look_again,
                }
            };
            match look_again {
                None => changed.await,
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// How many wait for their turn.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        let queue = self.queue.lock();
        queue.now.waiting.len() + queue.at_leisure.waiting.len()
    }
}

impl Queue {
    fn postpone(&mut self, due: Instant, backend: Weak<Backend>, place: &Place) {
        let failures = place.failures.load(Relaxed);
        self.later.push(Reverse(Later {
            due,
            failures,
            backend,
        }));
    }

    /// Those whose pause is over stand in line again.
    fn wake(&mut self, now: Instant) {
        while self
            .later
            .peek()
            .is_some_and(|Reverse(next)| next.due <= now)
        {
            let Some(Reverse(next)) = self.later.pop() else {
                return;
            };
            let Some(backend) = next.backend.upgrade() else {
                continue;
            };
            let place = &backend.catalog.place;
            // One that was asked meanwhile has another pause, or none.
            let is_same = place.failures.load(Relaxed) == next.failures;
            let (line, state) = match place.state.load(Relaxed) {
                // Its rest may have begun anew: there is a later entry for that.
                RESTING if place.rested_at().is_none() => (&mut self.now, NOW),
                IDLE if is_same => (&mut self.at_leisure, AT_LEISURE),
                _ => continue,
            };
            place.state.store(state, Relaxed);
            line.waiting.push_back(next.backend);
        }
    }

    /// The next one; or when to look again.
    fn take(&mut self, now: Instant) -> Result<Arc<Backend>, Option<Instant>> {
        let mut look_again = self.later.peek().map(|Reverse(next)| next.due);
        for (line, state) in [(&mut self.now, NOW), (&mut self.at_leisure, AT_LEISURE)] {
            match line.take(now, state) {
                Ok(backend) => return Ok(backend),
                Err(None) => {}
                Err(Some(at)) => look_again = Some(look_again.map_or(at, |other| other.min(at))),
            }
        }
        Err(look_again)
    }
}

impl Line {
    fn new(step: Duration, burst: u32) -> Self {
        Self {
            waiting: VecDeque::new(),
            step,
            burst,
            next: None,
        }
    }

    fn take(&mut self, now: Instant, state: u8) -> Result<Arc<Backend>, Option<Instant>> {
        while let Some(backend) = self.waiting.front() {
            let place = backend.upgrade();
            let place = place.filter(|b| b.catalog.place.state.load(Relaxed) == state);
            let Some(backend) = place else {
                self.waiting.pop_front();
                continue;
            };
            if let Some(next) = self.next.filter(|next| *next > now) {
                return Err(Some(next));
            }
            self.waiting.pop_front();
            let rested = now.checked_sub(self.step * self.burst).unwrap_or(now);
            self.next = Some(self.next.map_or(rested, |next| next.max(rested)) + self.step);
            backend.catalog.place.state.store(ASKED, Relaxed);
            return Ok(backend);
        }
        // Ten thousand may have waited once.
        self.waiting.shrink_to(1_024);
        Err(None)
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF.0 * 2_u32.pow(failures.saturating_sub(1).min(10));
    doubled.min(BACKOFF.1)
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Later {}

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

#[cfg(test)]
mod tests;
