//! What several control planes over one store tell each other. There is no
//! leader: each looks at the store at least once a second and when another has
//! written, and each answers for the nodes whose streams it holds.

use std::{collections::HashSet, time::Duration};

use futures_util::future::BoxFuture;

use super::{Head, NodeRow, ResourceRow, StoreError};

/// A control plane that has not been heard of for so long is gone, and its nodes
/// are offline.
pub(crate) const GONE: Duration = Duration::from_secs(10);

/// A store with several writers.
pub(crate) trait Shared: Send + Sync {
    /// The name of this control plane: new for every start.
    fn id(&self) -> &str;

    /// Returns when somebody may have written. Never fails: nothing is heard while
    /// the store is out of reach.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// Says that this control plane lives; which ones do.
    fn beat(&self) -> BoxFuture<'_, Result<HashSet<String>, StoreError>>;

    /// Says that this control plane is no more.
    fn leave(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The newest revision, without its contents.
    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>>;

    /// The newest revision and all resources, without holding up writers.
    fn newest(&self) -> BoxFuture<'_, Result<(Head, Vec<ResourceRow>), StoreError>>;

    /// Nodes written since this number (0: all), and the number to go on from.
    fn nodes_since(&self, version: u64) -> BoxFuture<'_, Result<(u64, Vec<SeenNode>), StoreError>>;
}

/// A node to be written.
#[derive(Clone, Debug)]
pub(crate) struct NodeChange {
    pub(crate) row: NodeRow,
    /// This control plane holds its stream.
    pub(crate) connected: bool,
    /// When its last stream was opened. A node whose newer stream another control
    /// plane holds is left alone.
    pub(crate) since_ms: u64,
}

/// What came of a write of nodes.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// Number of the write, as in [`Shared::nodes_since`].
    pub(crate) version: u64,
    /// The nodes that were written.
    pub(crate) written: Vec<String>,
}

/// A node as another control plane may have written it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenNode {
    pub(crate) row: NodeRow,
    /// Who holds its stream; `None`: nobody.
    pub(crate) owner: Option<String>,
    /// When that stream was opened.
    pub(crate) since_ms: u64,
    /// Number of the write.
    pub(crate) version: u64,
}
