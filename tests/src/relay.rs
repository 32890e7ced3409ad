//! Between a control plane and a data plane: passes the sync stream on, counts what goes to the
//! node, and may change it on the way. Everything else of the two is real.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::Result;
use fleet_proto::v1::{
    ControlMessage, NodeMessage,
    fleet_sync_client::FleetSyncClient,
    fleet_sync_server::{FleetSync, FleetSyncServer},
};
use futures_util::{StreamExt, stream::BoxStream};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

/// Changes what goes to the node.
pub type Change = Arc<dyn Fn(ControlMessage) -> ControlMessage + Send + Sync>;

/// A running relay, stopped when dropped.
pub struct Relay {
    /// What a data plane takes for its control plane.
    pub url: String,
    bytes: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts one to a control plane.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(control_url: &str, change: Change) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let bytes = Arc::new(AtomicUsize::new(0));
        let service = Between {
            control_url: control_url.to_owned(),
            change,
            bytes: Arc::clone(&bytes),
        };
        let server = Server::builder().add_service(FleetSyncServer::new(service));
        let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { drop(serving.await) });
        Ok(Self { url, bytes, task })
    }

    /// Passes everything on as it is.
    #[must_use]
    pub fn unchanged() -> Change {
        Arc::new(|message| message)
    }

    /// Bytes that have gone to nodes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Between {
    control_url: String,
    change: Change,
    bytes: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl FleetSync for Between {
    type SyncStream = BoxStream<'static, Result<ControlMessage, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let channel = Channel::from_shared(self.control_url.clone())
            .map_err(|error| Status::internal(error.to_string()))?
            .connect()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let (head, _, inbound) = request.into_parts();
        // A node that breaks off has left.
        let inbound = inbound.filter_map(|message| std::future::ready(message.ok()));
        let mut onward = Request::new(inbound);
        for key in ["authorization"] {
            if let Some(value) = head.get(key) {
                onward.metadata_mut().insert(key, value.clone());
            }
        }
        let mut client = FleetSyncClient::new(channel);
        let outbound = client.sync(onward).await?.into_inner();
        let (change, bytes) = (Arc::clone(&self.change), Arc::clone(&self.bytes));
        let outbound = outbound.map(move |message| {
            let message = change(message?);
            bytes.fetch_add(message.encoded_len(), Ordering::Relaxed);
            Ok(message)
        });
        Ok(Response::new(outbound.boxed()))
    }
}
