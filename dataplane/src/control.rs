//! Where configuration comes from: the control plane's stream, or a file.

pub mod apply;
mod file;
mod stream;

use std::sync::Arc;

use crate::{node::Node, settings::Source};

/// Follows the source until the node is dropped. A source that fails leaves the
/// table as it is.
pub async fn follow(node: Arc<Node>) {
    match node.settings.source.clone() {
        Source::ControlPlane { url, token } => stream::follow(node, &url, &token).await,
        Source::File(path) => file::follow(node, &path).await,
    }
}
