//! [`IndexCell`]: the index of a gateway, made anew when it is out of date.
//!
//! What is short is made where it is wanted. What is long would keep all calls of a worker
//! waiting: it is made on a thread of its own, once for all who wait, and no oftener than half
//! of the time, however fast catalogues change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::{sync::Mutex as AsyncMutex, task::spawn_blocking, time::sleep_until};

use super::Index;
use crate::table::Gateway;

/// Backends and entries up to which an index is short.
const SHORT: (usize, usize) = (32, 512);
/// How often the catalogues behind a gateway that is not short are looked at for old ones.
const TOUCH: Duration = Duration::from_secs(1);

/// The index of a gateway.
#[derive(Default)]
pub(crate) struct IndexCell {
    made: ArcSwapOption<Made>,
    /// Held by who makes it.
    making: AsyncMutex<()>,
    /// Somebody sees to it that the next one is made.
    refreshing: AtomicBool,
    touched: Mutex<Option<Instant>>,
}

struct Made {
    index: Arc<Index>,
    at: Instant,
    took: Duration,
}

impl IndexCell {
    /// The index of this moment or later, made here.
    fn here(&self, gateway: &Gateway) -> Arc<Index> {
        let epoch = gateway.epoch.load(Ordering::Acquire);
        let before = self.made.load();
        if let Some(made) = &*before
            && made.index.epoch == epoch
        {
            return made.index.clone();
        }
        let begun = Instant::now();
        // Two workers may do this at once; both come to the same.
        let before = before.as_ref().map(|made| &*made.index);
        let index = Arc::new(Index::new(gateway, epoch, before));
        self.made.store(Some(Arc::new(Made {
            index: index.clone(),
            at: Instant::now(),
            took: begun.elapsed(),
        })));
        index
    }

    /// One that is not older than this epoch.
    fn since(&self, epoch: u64) -> Option<Arc<Index>> {
        let made = self.made.load();
        let made = made.as_ref()?;
        (made.index.epoch >= epoch).then(|| made.index.clone())
    }
}

impl Gateway {
    /// What its backends offer now, rendered for its clients. Renders it here where that is
    /// to be done: only for those who keep nobody waiting.
    #[must_use]
    pub fn index(&self) -> Arc<Index> {
        self.index.here(self)
    }

    /// What its backends offer now, rendered for its clients.
    pub async fn fresh_index(self: &Arc<Self>) -> Arc<Index> {
        let wanted = self.epoch.load(Ordering::Acquire);
        if let Some(index) = self.index.since(wanted) {
            return index;
        }
        if self.is_short() {
            return self.index();
        }
        let _making = self.index.making.lock().await;
        if let Some(index) = self.index.since(wanted) {
            return index;
        }
        let rest = self.index.made.load_full();
        if let Some(rest) = rest.map(|made| made.at + made.took) {
            sleep_until(rest.into()).await;
        }
        let gateway = Arc::clone(self);
        match spawn_blocking(move || gateway.index()).await {
            Ok(index) => index,
            // The runtime is about to end.
            Err(_) => self.index(),
        }
    }

    /// What its backends offer, at once: a name that it does not know may have come since.
    /// `None`: nobody has looked yet.
    pub(crate) fn latest_index(self: &Arc<Self>) -> Option<Arc<Index>> {
        let wanted = self.epoch.load(Ordering::Acquire);
        if let Some(index) = self.index.since(wanted) {
            return Some(index);
        }
        if self.is_short() {
            return Some(self.index());
        }
        if !self.index.refreshing.swap(true, Ordering::AcqRel) {
            let gateway = Arc::clone(self);
            tokio::spawn(async move {
                gateway.fresh_index().await;
                gateway.index.refreshing.store(false, Ordering::Release);
            });
        }
        self.index.since(0)
    }

    /// Has those of its backends asked whose lists have grown old.
    pub(crate) fn touch(self: &Arc<Self>) {
        if self.backends.len() <= SHORT.0 {
            return self.touch_all();
        }
        let now = Instant::now();
        let mut touched = self.index.touched.lock();
        if touched.is_some_and(|last| now.duration_since(last) < TOUCH) {
            return;
        }
        *touched = Some(now);
        drop(touched);
        let gateway = Arc::clone(self);
        spawn_blocking(move || gateway.touch_all());
    }

    fn touch_all(&self) {
        for backend in &self.backends {
            backend.catalog.touch();
        }
    }

    fn is_short(&self) -> bool {
        let entries = |gateway: &Self| -> usize {
            let lists = gateway.backends.iter().map(|b| b.catalog.snapshot());
            lists.map(|now| now.lists.entries()).sum()
        };
        self.backends.len() <= SHORT.0 && entries(self) <= SHORT.1
    }
}
