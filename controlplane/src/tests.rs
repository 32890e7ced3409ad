//! A real control plane over loopback: what its clients and its nodes see.

use std::{collections::BTreeMap, time::Duration};

use fleet_proto::{
    hash::{Hash, root_hash},
    key::{Key, Kind},
    v1::{
        Ack, ApplyRequest, ApplyResponse, Backend, Begin, ControlMessage, Gateway, Hello,
        HttpBackend, Nack, Node, NodeMessage, NodesRequest, NodesResponse, Problem, Resource,
        ResourceKey, SyncMode, backend, config_service_client::ConfigServiceClient,
        control_message::Message as FromControl, fleet_sync_client::FleetSyncClient,
        node_message::Message as FromNode, resource,
    },
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    service::interceptor::InterceptedService,
    transport::Channel,
};

use crate::{ControlPlane, Settings, start};

mod config;
mod restart;
mod stream;
mod tokens;

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
        let request = ApplyRequest {
            resources,
            ..Default::default()
        };
        self.client()
            .await
            .apply(request)
            .await
            .unwrap()
            .into_inner()
            .revision
    }

    /// A node that has said this hello.
    async fn connect(&self, hello: Hello) -> TestNode {
        let mut client =
            FleetSyncClient::with_interceptor(self.channel().await, bearer(&self.node));
        let (sender, receiver) = mpsc::channel(8);
        let inbound = client
            .sync(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        let node = TestNode { sender, inbound };
        node.say(FromNode::Hello(hello)).await;
        node
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
        database: folder.path().join("fleet.db"),
        ..Settings::default()
    }
}

/// What a data plane would do, by hand.
struct TestNode {
    sender: mpsc::Sender<NodeMessage>,
    inbound: Streaming<ControlMessage>,
}

/// A set as received.
struct Set {
    begin: Begin,
    resources: BTreeMap<Key, Vec<u8>>,
    /// Bytes of the largest chunk.
    largest: usize,
    root: Hash,
}

impl Set {
    fn revision(&self) -> u64 {
        self.begin.target.as_ref().unwrap().revision
    }

    fn names(&self) -> Vec<&str> {
        self.resources.keys().map(|key| key.name.as_str()).collect()
    }
}

impl TestNode {
    async fn say(&self, message: FromNode) {
        self.sender
            .send(NodeMessage {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    async fn next(&mut self) -> Result<FromControl, Status> {
        let message = timeout(PATIENCE, self.inbound.message())
            .await
            .expect("no message came");
        Ok(message?.expect("the stream has ended").message.unwrap())
    }

    /// The next set, whole; checks what every set must keep to.
    async fn set(&mut self) -> Set {
        let begin = loop {
            match self.next().await.unwrap() {
                FromControl::Begin(begin) => break begin,
                FromControl::Heartbeat(_) => {}
                other => panic!("{other:?} where a set was to begin"),
            }
        };
        assert_eq!(begin.mode(), SyncMode::Snapshot);
        let mut resources = BTreeMap::new();
        let mut largest = 0;
        let commit = loop {
            match self.next().await.unwrap() {
                FromControl::Chunk(chunk) => {
                    largest = largest.max(prost::Message::encoded_len(&chunk));
                    for resource in chunk.resources {
                        let key = Key::from_wire(&resource.key.unwrap()).unwrap();
                        assert!(resources.insert(key, resource.body).is_none(), "sent twice");
                    }
                }
                FromControl::Commit(commit) => break commit,
                other => panic!("{other:?} inside a set"),
            }
        };
        let root = root_hash(resources.iter().map(|(key, body)| (key, Hash::of(body))));
        assert_eq!(
            commit.root_hash, root.0,
            "the root hash is that of the bytes received"
        );
        assert_eq!(begin.target.as_ref().unwrap().root_hash, root.0);
        Set {
            begin,
            resources,
            largest,
            root,
        }
    }

    async fn ack(&self, set: &Set) {
        self.ack_degraded(set, Vec::new()).await;
    }

    async fn ack_degraded(&self, set: &Set, degraded: Vec<Problem>) {
        let (nonce, revision) = (set.begin.nonce, set.revision());
        let root_hash = set.root.0.to_vec();
        self.say(FromNode::Ack(Ack {
            nonce,
            revision,
            root_hash,
            apply_us: 42,
            degraded,
        }))
        .await;
    }

    async fn nack(&self, set: &Set, message: &str) {
        let problem = Problem {
            message: message.to_owned(),
            ..Default::default()
        };
        self.say(FromNode::Nack(Nack {
            nonce: set.begin.nonce,
            errors: vec![problem],
        }))
        .await;
    }
}

fn hello(node_id: &str) -> Hello {
    Hello {
        node_id: node_id.to_owned(),
        boot_id: "boot-1".to_owned(),
        version: "0.1.0".to_owned(),
        ..Default::default()
    }
}

/// The hello of a node that serves a set already.
fn hello_serving(node_id: &str, set: &Set) -> Hello {
    let target = set.begin.target.clone().unwrap();
    Hello {
        lineage: target.lineage,
        revision: target.revision,
        root_hash: target.root_hash,
        ..hello(node_id)
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
