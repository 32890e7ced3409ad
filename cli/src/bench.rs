//! A real control plane for tests.

use std::net::SocketAddr;

use fleet_proto::{
    key::Key,
    read::{Documents, read_yaml},
    v1::ApplyResponse,
};
use tempfile::TempDir;

use crate::{
    change::{self, How},
    client::{self, Client},
    kinds,
};

/// A control plane without data planes, and a client of it.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) plane: mcp_controlplane::ControlPlane,
    pub(crate) target: client::ControlPlane,
    pub(crate) client: Client,
}

impl Bench {
    /// Starts one with nothing in it.
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = mcp_controlplane::Settings {
            grpc_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            database: dir.path().join("fleet.db").into(),
            ..mcp_controlplane::Settings::default()
        };
        let plane = mcp_controlplane::start(settings).await.unwrap();
        let target = client::ControlPlane {
            url: format!("http://{}", plane.grpc_addr()),
            token: plane.issue_admin_token().await.unwrap(),
            ca: None,
            insecure: false,
        };
        let client = client::connect(&target).await.unwrap();
        Self {
            dir,
            plane,
            target,
            client,
        }
    }

    /// Applies documents that are good.
    pub(crate) async fn apply(&mut self, text: &str) -> ApplyResponse {
        let mut documents = Documents::default();
        read_yaml("bench.yaml", text, &mut documents);
        change::submit(&mut self.client, &documents, &How::default())
            .await
            .unwrap()
    }

    /// What is stored.
    pub(crate) async fn names(&mut self) -> Vec<String> {
        let stored = change::stored(&mut self.client).await.unwrap();
        let keys = stored.iter().filter_map(Key::of);
        keys.map(|key| kinds::slashed(&key)).collect()
    }

    /// Stops it.
    pub(crate) async fn stop(self) {
        drop(self.client);
        self.plane.shutdown().await;
    }
}
