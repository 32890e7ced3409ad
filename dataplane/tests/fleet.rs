//! A data plane and its control plane: deltas, and what is kept on disk.

use std::{path::Path, time::Duration};

use fleet_proto::v1::{
    ApplyRequest, Backend, HttpBackend, NodeState, NodesRequest, NodesResponse, Resource,
    backend::Transport, config_service_client::ConfigServiceClient, resource,
};
use mcp_controlplane::ControlPlane;
use mcp_dataplane::{
    DataPlane,
    settings::{Credentials, Guard, Settings, Source},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::{Request, transport::Channel};

/// What does not happen by then does not happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:1";

struct Fleet {
    folder: TempDir,
    control: ControlPlane,
    admin: String,
    node: String,
    client: ConfigServiceClient<Channel>,
}

impl Fleet {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = control_plane(folder.path(), 0).await;
        let admin = control.admin_token().unwrap().to_owned();
        let node = control.node_token().unwrap().to_owned();
        let client = ConfigServiceClient::connect(url(&control)).await.unwrap();
        Self {
            folder,
            control,
            admin,
            node,
            client,
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let token = format!("Bearer {}", self.admin).parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        request
    }

    async fn apply(&self, names: &[&str]) -> u64 {
        let request = ApplyRequest {
            resources: names.iter().map(|name| backend(name)).collect(),
            ..ApplyRequest::default()
        };
        let answer = self.client.clone().apply(self.request(request)).await;
        answer.unwrap().into_inner().revision
    }

    /// Waits until the only node serves the newest revision.
    async fn synced(&self) -> NodesResponse {
        let request = self.request(NodesRequest {});
        let watch = self.client.clone().watch_nodes(request).await;
        let mut watch = watch.unwrap().into_inner();
        let synced = timeout(PATIENCE, async {
            loop {
                let nodes = watch.message().await.unwrap().unwrap();
                let mut all = nodes.nodes.iter();
                if !nodes.nodes.is_empty() && all.all(|n| n.state() == NodeState::Synced) {
                    return nodes;
                }
            }
        });
        synced.await.expect("the node is not in sync")
    }

    fn settings(&self, data_dir: &Path) -> Settings {
        node_settings(vec![url(&self.control)], &self.node, data_dir)
    }
}

async fn control_plane(folder: &Path, port: u16) -> ControlPlane {
    let settings = mcp_controlplane::Settings {
        grpc_listen: ([127, 0, 0, 1], port).into(),
        database: folder.join("fleet.db").into(),
        ..mcp_controlplane::Settings::default()
    };
    mcp_controlplane::start(settings).await.unwrap()
}

fn url(control: &ControlPlane) -> String {
    format!("http://{}", control.grpc_addr())
}

fn node_settings(urls: Vec<String>, token: &str, data_dir: &Path) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        source: Source::ControlPlane {
            urls,
            credentials: Credentials::node_token(token),
        },
        node_id: "n1".to_owned(),
        data_dir: Some(data_dir.to_owned()),
        workers: 1,
        guard: Guard::Off,
        drain: Duration::ZERO,
        ..Settings::default()
    }
}

fn backend(name: &str) -> Resource {
    let http = HttpBackend {
        url: "http://127.0.0.1:1/mcp".to_owned(),
        ..HttpBackend::default()
    };
    let backend = Backend {
        name: name.to_owned(),
        transport: Some(Transport::Http(http)),
        ..Backend::default()
    };
    Resource {
        kind: Some(resource::Kind::Backend(backend)),
    }
}

fn revision(plane: &DataPlane) -> u64 {
    plane.node().table.load().revision
}

/// The answer of the admin listener, head and body.
async fn get(plane: &DataPlane, path: &str) -> String {
    let mut stream = TcpStream::connect(plane.admin_addr()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Waits until the admin listener answers with this text.
async fn until(plane: &DataPlane, path: &str, text: &str) -> String {
    let mut last = String::new();
    let seen = timeout(PATIENCE, async {
        loop {
            last = get(plane, path).await;
            if last.contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let seen = seen.await.is_ok();
    assert!(seen, "{path} stays at {last}");
    last
}

async fn until_saved(plane: &DataPlane, is_saved: u8) {
    until(
        plane,
        "/metrics",
        &format!("\nmcp_fleet_last_good_saved {is_saved}\n"),
    )
    .await;
}

#[tokio::test]
async fn unchanged_backends_stay_as_they_are_when_a_delta_is_applied() {
    let fleet = Fleet::start().await;
    fleet.apply(&["a", "b"]).await;
    let data = tempfile::tempdir().unwrap();
    let plane = mcp_dataplane::start(fleet.settings(data.path()))
        .await
        .unwrap();
    fleet.synced().await;
    let before = plane.node().table.load_full();
    assert_eq!(fleet.apply(&["c"]).await, 2);
    fleet.synced().await;
    let after = plane.node().table.load_full();
    assert_eq!((after.revision, after.backends().count()), (2, 3));
    for (key, backend) in before.backends() {
        assert!(std::sync::Arc::ptr_eq(backend, after.backend(key).unwrap()));
    }
    plane.shutdown().await;
    fleet.control.shutdown().await;
}

#[tokio::test]
async fn a_node_starts_from_disk_and_is_in_sync_again_without_a_new_set() {
    let fleet = Fleet::start().await;
    fleet.apply(&["a"]).await;
    let data = tempfile::tempdir().unwrap();
    let plane = mcp_dataplane::start(fleet.settings(data.path()))
        .await
        .unwrap();
    fleet.synced().await;
    until_saved(&plane, 1).await;
    plane.shutdown().await;

    // The control plane is gone: the node is ready when `start` returns.
    let port = fleet.control.grpc_addr().port();
    fleet.control.shutdown().await;
    let settings = node_settings(
        vec![NOWHERE.to_owned(), format!("http://127.0.0.1:{port}")],
        &fleet.node,
        data.path(),
    );
    let plane = mcp_dataplane::start(settings).await.unwrap();
    let ready = get(&plane, "/readyz").await;
    assert!(
        ready.contains("200 OK") && ready.contains("served from disk"),
        "{ready}"
    );
    let metrics = get(&plane, "/metrics").await;
    assert!(metrics.contains("\nmcp_fleet_from_disk 1\n"), "{metrics}");
    let table = plane.node().table.load_full();
    assert_eq!((table.revision, table.backends().count()), (1, 1));

    let control = control_plane(fleet.folder.path(), port).await;
    until(&plane, "/metrics", "\nmcp_fleet_from_disk 0\n").await;
    let same = plane.node().table.load_full();
    assert!(
        std::sync::Arc::ptr_eq(&table, &same),
        "nothing was sent, nothing swapped"
    );
    let fleet = Fleet { control, ..fleet };
    assert_eq!(fleet.synced().await.nodes[0].revision, 1);
    // What comes next is a delta to what was on disk.
    fleet.apply(&["b"]).await;
    fleet.synced().await;
    assert_eq!(revision(&plane), 2);
    plane.shutdown().await;
    fleet.control.shutdown().await;
}

#[tokio::test]
async fn a_damaged_newest_file_falls_back_and_two_make_a_node_that_says_why_it_is_not_ready() {
    let fleet = Fleet::start().await;
    let data = tempfile::tempdir().unwrap();
    let plane = mcp_dataplane::start(fleet.settings(data.path()))
        .await
        .unwrap();
    for name in ["a", "b"] {
        fleet.apply(&[name]).await;
        fleet.synced().await;
        let newest = data.path().join("last-good.1");
        let kept = async {
            while !std::fs::read(&newest).is_ok_and(|kept| contains(&kept, name)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, kept).await.expect("not kept");
    }
    plane.shutdown().await;
    let alone = || node_settings(vec![NOWHERE.to_owned()], "token", data.path());
    let damage = |generation| {
        std::fs::write(
            data.path().join(generation),
            "mcp-fleet last good 1\nnonsense",
        )
        .unwrap();
    };

    damage("last-good.1");
    let plane = mcp_dataplane::start(alone()).await.unwrap();
    assert_eq!(revision(&plane), 1);
    // Written anew, before any control plane is there.
    until_saved(&plane, 1).await;
    plane.shutdown().await;
    let plane = mcp_dataplane::start(alone()).await.unwrap();
    assert_eq!(revision(&plane), 1);
    plane.shutdown().await;

    damage("last-good.1");
    damage("last-good.2");
    let plane = mcp_dataplane::start(alone()).await.unwrap();
    let ready = until(&plane, "/readyz", "no control plane can be reached").await;
    assert!(
        ready.contains(" 503 ") && ready.contains("what is on disk is damaged"),
        "{ready}"
    );
    let details = get(&plane, "/admin/configuration").await;
    for what in [
        "last-good.1: it is damaged",
        "last-good.2: it is damaged",
        NOWHERE,
    ] {
        assert!(details.contains(what), "{details}");
    }
    assert!(!plane.node().is_ready());
    plane.shutdown().await;
    fleet.control.shutdown().await;
}

fn contains(kept: &[u8], name: &str) -> bool {
    let needle = [&[10, 1][..], name.as_bytes()].concat();
    kept.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn a_disk_that_takes_nothing_stops_nobody() {
    let fleet = Fleet::start().await;
    fleet.apply(&["a"]).await;
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir(data.path().join("last-good.tmp")).unwrap();
    let plane = mcp_dataplane::start(fleet.settings(data.path()))
        .await
        .unwrap();
    fleet.synced().await;
    until_saved(&plane, 0).await;
    assert!(plane.node().is_ready());
    // The disk has room again.
    std::fs::remove_dir(data.path().join("last-good.tmp")).unwrap();
    fleet.apply(&["b"]).await;
    until_saved(&plane, 1).await;
    plane.shutdown().await;
    fleet.control.shutdown().await;
}
