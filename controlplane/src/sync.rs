//! The server of `fleet.v1.FleetSync`: pushes revisions to data planes.
//!
//! On the config way: after `publish`, before the data plane's control stream.
//! Each stream is one task (`sync/stream.rs`), opened by a hello
//! (`sync/hello.rs`), which also brings the sets that no revision holds
//! (`sync/sets.rs`); what nodes answer is kept in the
//! registry (`sync/node.rs`) and brought back
//! after a restart (`sync/recall.rs`).

use std::sync::Arc;

use fleet_proto::v1::{ControlMessage, NodeMessage, fleet_sync_server::FleetSync};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{identity::credential::Credential, peers::Peers, publish::Publisher, sets::Shown};

mod end;
mod hello;
pub(crate) mod node;
pub(crate) mod recall;
mod sets;
mod stream;

pub(crate) use hello::valid_node_id;

/// Messages that wait for a slow connection: with chunks of 256 KiB, what a
/// stream may hold in memory.
const WINDOW: usize = 2;

/// `FleetSync` over what is published.
pub(crate) struct Sync {
    publisher: Arc<Publisher>,
    sets: Arc<Shown>,
    peers: Arc<Peers>,
    nodes: Arc<node::Registry>,
    shutdown: watch::Receiver<bool>,
}

impl Sync {
    pub(crate) fn new(
        publisher: Arc<Publisher>,
        sets: Arc<Shown>,
        peers: Arc<Peers>,
        nodes: Arc<node::Registry>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self {
            publisher,
            sets,
            peers,
            nodes,
            shutdown,
        }
    }
}

#[tonic::async_trait]
impl FleetSync for Sync {
    type SyncStream = ReceiverStream<Result<ControlMessage, Status>>;

    /// Answers at once: a client may wait for the answer before it says hello.
    async fn sync(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let credential = request.extensions().get::<Credential>().cloned();
        let credential =
            credential.ok_or_else(|| Status::internal("a stream has come past the guard"))?;
        let (sender, receiver) = mpsc::channel(WINDOW);
        tokio::spawn(stream::serve(
            request.into_inner(),
            credential,
            sender,
            Arc::clone(&self.publisher),
            (Arc::clone(&self.sets), self.peers.subscribe()),
            Arc::clone(&self.nodes),
            self.shutdown.clone(),
        ));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
