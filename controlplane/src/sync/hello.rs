//! How a stream opens: who the node is and what it serves already.

use std::time::Duration;

use fleet_proto::{
    hash::Hash,
    v1::{Hello, node_message},
};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::Status;

use super::stream::Inbound;
use crate::publish::Snapshot;

/// A node says hello within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// A name of 253 bytes, and a port.
const LONGEST_ADDRESS: usize = 259;

/// The hello that opens a stream.
pub(super) async fn first(inbound: &mut impl Inbound) -> Result<Hello, Status> {
    let message = timeout(PATIENCE, inbound.next())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello came: it must be the first message"))?
        .transpose()?;
    let Some(node_message::Message::Hello(hello)) = message.and_then(|m| m.message) else {
        return Err(Status::invalid_argument(
            "the first message of a stream must be a hello",
        ));
    };
    valid_node_id(&hello.node_id)?;
    let label_fits = |(key, value): (&String, &String)| key.len() <= 253 && value.len() <= 253;
    if hello.boot_id.len() > 253
        || hello.version.len() > 253
        || hello.peer_address.len() > LONGEST_ADDRESS
        || hello.labels.len() > 64
        || !hello.labels.iter().all(label_fits)
    {
        return Err(Status::invalid_argument(
            "boot_id, version, peer_address and labels are too long: at most 253 bytes each and 64 labels",
        ));
    }
    if hello.revision > i64::MAX as u64 {
        return Err(Status::invalid_argument("revision is out of range"));
    }
    Ok(hello)
}

/// Refuses what is no name of a node.
pub(crate) fn valid_node_id(id: &str) -> Result<(), Status> {
    if id.is_empty() || id.len() > 253 || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Status::invalid_argument(
            "node_id must have 1 to 253 visible ASCII characters without spaces",
        ));
    }
    Ok(())
}

/// What a node serves.
pub(super) enum Serves {
    Nothing,
    /// Of another store, or no longer known.
    Other,
    Ours {
        revision: u64,
        root_hash: Hash,
    },
}

impl Serves {
    pub(super) fn of(hello: &Hello, lineage: &str) -> Self {
        match Hash::from_wire(&hello.root_hash) {
            _ if hello.root_hash.is_empty() => Self::Nothing,
            Some(root_hash) if hello.lineage == lineage => Self::Ours {
                revision: hello.revision,
                root_hash,
            },
            _ => Self::Other,
        }
    }

    pub(super) fn is(&self, snapshot: &Snapshot) -> bool {
        matches!(self, Self::Ours { revision, root_hash }
            if *revision == snapshot.revision && *root_hash == snapshot.root_hash())
    }
}
