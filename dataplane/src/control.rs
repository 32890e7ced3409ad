//! Where configuration comes from: the control plane's stream, or a file. What
//! came over the stream is kept on disk, and served from there after a start. How the
//! node does is reported on a stream of its own.

pub mod apply;
mod file;
mod kept_sets;
mod last_good;
mod link;
mod reconnect;
mod reports;
mod sets;
mod status;
mod stream;

use std::sync::Arc;

use fleet_proto::validate::Valid;
use tokio::sync::watch;

pub use link::LinkError;
pub(crate) use link::identity::{Identity, node_of};
pub use status::Status;

use crate::{
    StartError,
    node::Node,
    settings::{Settings, Source},
    table::compile::Version,
};
pub use kept_sets::KeptSets;
use last_good::LastGood;
use link::Link;
use sets::Sets;

/// What is served, in the form in which it came: what a delta is applied to.
#[derive(Clone)]
struct Held {
    version: Version,
    set: Valid,
}

/// What a node has to start with.
#[derive(Default)]
pub struct Restored {
    /// Where it is kept on; `None`: nowhere.
    last_good: Option<Arc<LastGood>>,
    held: Option<Held>,
    sets: Sets,
    /// The newest file has to be written anew.
    stale: bool,
}

/// The way to the control planes, if there are any.
pub struct Way(Option<Arc<Link>>);

/// The certificate of this node, which is renewed from time to time.
#[derive(Clone)]
pub(crate) struct Certificate(Arc<Link>);

impl Certificate {
    /// As it is now; `None`: the node has not joined yet.
    pub(crate) fn current(&self) -> Option<Arc<Identity>> {
        self.0.identity()
    }
}

impl Way {
    /// The certificate of this node; `None`: it has none, and will get none.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        let link = self.0.as_ref().filter(|link| link.joins())?;
        Some(Certificate(Arc::clone(link)))
    }
}

/// Finds the way to the control planes, without going it.
///
/// # Errors
/// What the settings say of it does not fit together.
pub fn way(settings: &Settings) -> Result<Way, LinkError> {
    Ok(Way(Link::new(settings)?.map(Arc::new)))
}

/// Where secrets, session keys and revocations are kept; `None`: nowhere.
///
/// # Errors
/// The state key cannot be used.
pub fn kept_sets(settings: &Settings) -> Result<Option<Arc<KeptSets>>, StartError> {
    let Some(directory) = settings.data_dir.as_ref().filter(|_| is_kept(settings)) else {
        return Ok(None);
    };
    let key = settings.state_key.as_deref();
    let kept = KeptSets::new(directory, key).map_err(|reason| StartError::StateKey {
        path: key.unwrap_or(directory).to_owned(),
        reason,
    })?;
    Ok(Some(Arc::new(kept)))
}

/// Serves what was kept on disk, without waiting for any control plane.
pub async fn restore(node: &Arc<Node>, kept: Option<Arc<KeptSets>>) -> Restored {
    let Some(last_good) = kept_in(&node.settings) else {
        return Restored::default();
    };
    let last_good = Arc::new(last_good);
    let node = node.clone();
    // A large set takes its time, and nothing else is to wait for it.
    let restored = tokio::task::spawn_blocking(move || {
        // First: no table without the secrets it names, and none before what is revoked.
        let sets = Sets::restore(&node, kept);
        let found = last_good.load();
        for problem in &found.problems {
            tracing::error!(problem, "a last good configuration cannot be used");
        }
        let held = found.newest.map(|(held, _)| held);
        if let Some(held) = &held {
            let (version, set) = (held.version.clone(), &held.set);
            tracing::info!(
                revision = version.revision,
                "starting with what was kept on disk"
            );
            apply::apply(&node, version, set);
        }
        let stale = held.is_some() && !found.problems.is_empty();
        node.control
            .restored(held.is_some(), stale, &found.problems);
        Restored {
            last_good: Some(last_good),
            held,
            sets,
            stale,
        }
    });
    restored.await.unwrap_or_else(|error| {
        tracing::error!(%error, "what was kept on disk could not be served");
        Restored::default()
    })
}

fn kept_in(settings: &Settings) -> Option<LastGood> {
    let directory = settings.data_dir.as_ref()?;
    is_kept(settings).then(|| LastGood::new(directory))
}

/// Whether anything that is pushed is to be on disk.
fn is_kept(settings: &Settings) -> bool {
    let is_pushed = matches!(settings.source, Source::ControlPlane { .. });
    is_pushed && settings.last_good
}

/// Follows the source until the node is dropped. A source that fails leaves the
/// table as it is.
pub async fn follow(node: Arc<Node>, restored: Restored, way: Way) {
    match (node.settings.source.clone(), way.0) {
        (Source::ControlPlane { .. }, None) => {
            tracing::error!("there is no way to a control plane");
        }
        (Source::ControlPlane { .. }, Some(link)) => {
            let Restored {
                last_good,
                held,
                sets,
                stale,
            } = restored;
            let applied = watch::Sender::new(held.clone().filter(|_| stale));
            if let Some(last_good) = last_good {
                // It ends when the sender does, and with what was applied last on disk.
                tokio::spawn(last_good::keep(
                    last_good,
                    applied.subscribe(),
                    node.clone(),
                ));
            }
            let boot_id = node.peers.me().boot.clone();
            let reports = reports::run(node.clone(), boot_id.clone(), Arc::clone(&link));
            let renewal = Arc::clone(&link).keep();
            let sync = stream::follow(node, link, boot_id, (held, sets), applied);
            tokio::join!(reports, renewal, sync);
        }
        (Source::File(path), _) => file::follow(node, &path).await,
    }
}
