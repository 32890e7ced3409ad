//! A real control plane over loopback: what its clients and its nodes see.

use std::time::Duration;

use fleet_proto::{
    key::{Key, Kind},
    v1::{
        Ack, Action, ApplyRequest, ApplyResponse, Backend, Change, Gateway, Hello, HttpBackend,
        ListRequest, ListResponse, Node, NodeMessage, NodeState, NodesRequest, NodesResponse,
        Problem, Resource, ResourceKey, RevisionsRequest, RevisionsResponse, backend,
        config_service_client::ConfigServiceClient, fleet_sync_client::FleetSyncClient,
        node_message::Message as FromNode, resource,
    },
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::interceptor::InterceptedService,
    transport::Channel,
};

use self::fake_node::{FakeNode, Set, hello, hello_serving};
use crate::{ControlPlane, Settings, start};

mod access;
mod config;
mod damage;
mod delta;
mod fake_node;
mod identity;
mod listeners;
mod outage;
mod remove;
mod reports;
mod rest;
mod restart;
mod rollback;
mod secrets;
mod security;
mod shared;
mod stream;
mod tokens;
mod unknown;
mod vault;

/// Nothing here takes long; what does not happen by then does not happen.
const PATIENCE: Duration = Duration::from_secs(20);

type Client = ConfigServiceClient<InterceptedService<Channel, Bearer>>;

#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

fn bearer(token: &str) -> Bearer {
    Bearer(format!("Bearer {token}").parse().unwrap())
}

/// A control plane on a free port with a database of its own.
struct Plane {
    folder: TempDir,
    running: ControlPlane,
    admin: String,
    node: String,
}

impl Plane {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let running = start(settings(&folder)).await.unwrap();
        let admin = running.admin_token().unwrap().to_owned();
        let node = running.node_token().unwrap().to_owned();
        Self {
            folder,
            running,
            admin,
            node,
        }
    }

    async fn restart(self) -> Self {
        self.running.shutdown().await;
        let running = start(settings(&self.folder)).await.unwrap();
        assert_eq!(running.admin_token(), None, "shown at the first start only");
        Self { running, ..self }
    }

    async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.running.grpc_addr());
        Channel::from_shared(address)
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    async fn client_with(&self, token: &str) -> Client {
        ConfigServiceClient::with_interceptor(self.channel().await, bearer(token))
            .max_decoding_message_size(64 << 20)
    }

    async fn client(&self) -> Client {
        self.client_with(&self.admin).await
    }

    async fn apply(&self, resources: Vec<Resource>) -> u64 {
        let answer = self.client().await.apply(apply(resources)).await;
        answer.unwrap().into_inner().revision
    }

    /// A node that has said this hello.
    async fn connect(&self, hello: Hello) -> FakeNode {
        let mut client =
            FleetSyncClient::with_interceptor(self.channel().await, bearer(&self.node));
        let (sender, receiver) = mpsc::channel(8);
        let inbound = client
            .sync(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        let id = hello.node_id.clone();
        let node = FakeNode {
            id,
            sender,
            inbound,
            parts: Vec::new(),
        };
        node.say(FromNode::Hello(hello)).await;
        node
    }

    /// A node that serves the newest revision, and what it got.
    async fn connect_synced(&self, id: &str) -> (FakeNode, Set) {
        let mut node = self.connect(hello(id)).await;
        let set = node.set().await;
        node.ack(&set).await;
        self.until_state(id, NodeState::Synced).await;
        (node, set)
    }

    /// Waits until a node stands like this.
    async fn until_state(&self, id: &str, wanted: NodeState) -> NodesResponse {
        self.until(|nodes| state(nodes, id) == wanted).await
    }

    /// Writes a revision that this node refuses.
    async fn apply_refused(&self, node: &mut FakeNode, resource: Resource) -> NodesResponse {
        self.apply(vec![resource]).await;
        let bad = node.set().await;
        node.nack(&bad, "no").await;
        self.until_state(&node.id, NodeState::Nacked).await
    }

    async fn list(&self) -> ListResponse {
        let answer = self.client().await.list(ListRequest::default()).await;
        answer.unwrap().into_inner()
    }

    async fn revisions(&self) -> RevisionsResponse {
        let request = RevisionsRequest::default();
        let answer = self.client().await.revisions(request).await;
        answer.unwrap().into_inner()
    }

    /// Waits until the nodes look like this.
    async fn until(&self, wanted: impl Fn(&NodesResponse) -> bool) -> NodesResponse {
        let mut watch = self
            .client()
            .await
            .watch_nodes(NodesRequest {})
            .await
            .unwrap()
            .into_inner();
        let mut last = None;
        let seen = timeout(PATIENCE, async {
            loop {
                let nodes = watch.message().await.unwrap().unwrap();
                if wanted(&nodes) {
                    return nodes;
                }
                last = Some(nodes);
            }
        })
        .await;
        seen.unwrap_or_else(|_| panic!("the nodes stay at {last:?}"))
    }
}

fn settings(folder: &TempDir) -> Settings {
    Settings {
        grpc_listen: "127.0.0.1:0".parse().unwrap(),
        rest_listen: Some("127.0.0.1:0".parse().unwrap()),
        database: folder.path().join("fleet.db").into(),
        ..Settings::default()
    }
}

fn backend(name: &str) -> Resource {
    backend_at(name, "http://127.0.0.1:3001/mcp")
}

fn backend_at(name: &str, url: &str) -> Resource {
    let http = HttpBackend {
        url: url.to_owned(),
        ..Default::default()
    };
    let transport = Some(backend::Transport::Http(http));
    let backend = Backend {
        name: name.to_owned(),
        transport,
        ..Default::default()
    };
    Resource {
        kind: Some(resource::Kind::Backend(backend)),
    }
}

fn gateway(name: &str, backends: &[&str]) -> Resource {
    let gateway = Gateway {
        name: name.to_owned(),
        path: format!("/{name}"),
        backends: backends.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    Resource {
        kind: Some(resource::Kind::Gateway(gateway)),
    }
}

fn wire_key(kind: Kind, name: &str) -> ResourceKey {
    Key::new("", kind, name).to_wire()
}

fn state(nodes: &NodesResponse, id: &str) -> NodeState {
    let found = nodes.nodes.iter().find(|node| node.node_id == id);
    found.map_or(NodeState::Unspecified, Node::state)
}

fn node<'a>(nodes: &'a NodesResponse, id: &str) -> &'a Node {
    nodes
        .nodes
        .iter()
        .find(|node| node.node_id == id)
        .unwrap_or_else(|| panic!("no node {id}"))
}

/// The problems in the details of a refusal.
fn problems(status: &Status) -> Vec<Problem> {
    let response: ApplyResponse = prost::Message::decode(status.details()).unwrap();
    response.problems
}

fn apply(resources: Vec<Resource>) -> ApplyRequest {
    ApplyRequest {
        resources,
        ..Default::default()
    }
}

fn actions(changes: &[Change]) -> Vec<(String, Action)> {
    changes
        .iter()
        .map(|c| (c.key.clone().unwrap().name, c.action()))
        .collect()
}
