//! Declaring files against a real control plane.

use std::{net::SocketAddr, path::Path};

use fleet_proto::{
    key::{Key, Kind},
    read::{Documents, read_yaml},
    v1::{DeleteRequest, Revision, RevisionsRequest},
};
use tempfile::TempDir;

use super::{Declared, declare};
use crate::{
    change::{self, How},
    client::{self, Client},
    failure::Failure,
    kinds, sources,
    verbs::up::places::Places,
};

struct Bench {
    dir: TempDir,
    places: Places,
    plane: mcp_controlplane::ControlPlane,
    client: Client,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::open(Some(dir.path().join("data"))).unwrap();
        let settings = mcp_controlplane::Settings {
            grpc_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            database: places.database().into(),
            ..mcp_controlplane::Settings::default()
        };
        let plane = mcp_controlplane::start(settings).await.unwrap();
        let target = client::ControlPlane {
            url: format!("http://{}", plane.grpc_addr()),
            token: plane.issue_admin_token().await.unwrap(),
        };
        let client = client::connect(&target).await.unwrap();
        Self {
            dir,
            places,
            plane,
            client,
        }
    }

    async fn declare(&mut self, text: &str) -> Result<Declared, Failure> {
        let path = self.dir.path().join("fleet.yaml");
        std::fs::write(&path, text).unwrap();
        let sources = sources::read(std::slice::from_ref(&path))?;
        declare(
            &mut self.client,
            &self.places,
            Path::new("fleet.yaml"),
            &sources,
        )
        .await
    }

    async fn names(&mut self) -> Vec<String> {
        let stored = change::stored(&mut self.client).await.unwrap();
        stored
            .iter()
            .filter_map(Key::of)
            .map(|key| kinds::slashed(&key))
            .collect()
    }

    /// Created, configured and deleted of each revision, newest first.
    async fn history(&mut self) -> Vec<(u32, u32, u32)> {
        let request = RevisionsRequest::default();
        let history = self.client.revisions(request).await.unwrap().into_inner();
        let counts = |r: &Revision| (r.created, r.configured, r.deleted);
        history.revisions.iter().map(counts).collect()
    }
}

const A: &str = "{ kind: Backend, name: a, http: { url: 'http://127.0.0.1:1/mcp' } }\n---\n";
const B: &str = "{ kind: Backend, name: b, http: { url: 'http://127.0.0.1:2/mcp' } }\n---\n";
const STAFF: &str = "{ kind: AuthPolicy, name: staff, bearer: { tokens: ['${env:T}'] } }\n---\n";

fn gateway(name: &str) -> String {
    format!("{{ kind: Gateway, name: {name}, path: /mcp, auth: staff }}\n---\n")
}

#[tokio::test]
async fn what_leaves_the_file_is_deleted_and_the_rest_of_the_store_stays() {
    let mut bench = Bench::new().await;
    bench.declare(&format!("{A}{B}")).await.unwrap();
    let mut documents = Documents::default();
    read_yaml(
        "theirs.yaml",
        &A.replace("name: a", "name: theirs"),
        &mut documents,
    );
    change::submit(&mut bench.client, &documents, &How::default())
        .await
        .unwrap();
    let done = bench.declare(B).await.unwrap();
    assert_eq!(done.changes.len(), 1, "{:?}", done.changes);
    assert_eq!(bench.names().await, ["backend/b", "backend/theirs"]);
    let again = bench.declare(B).await.unwrap();
    assert!(again.changes.is_empty());
    assert_eq!(again.revision, done.revision);
    bench.plane.shutdown().await;
}

#[tokio::test]
async fn what_leaves_and_what_comes_are_one_revision() {
    let mut bench = Bench::new().await;
    // Without a gateway there would be an open one: the renamed one takes over
    // path and policy in the very revision in which the old one goes.
    bench
        .declare(&format!("{A}{STAFF}{}", gateway("old")))
        .await
        .unwrap();
    bench
        .declare(&format!("{A}{STAFF}{}", gateway("new")))
        .await
        .unwrap();
    assert_eq!(
        bench.names().await,
        ["backend/a", "gateway/new", "auth-policy/staff"]
    );
    assert_eq!(bench.history().await, [(1, 0, 1), (3, 0, 0)]);
    bench.plane.shutdown().await;
}

#[tokio::test]
async fn what_somebody_else_has_deleted_may_leave_the_file() {
    let mut bench = Bench::new().await;
    bench.declare(&format!("{A}{B}")).await.unwrap();
    let delete = DeleteRequest {
        keys: vec![Key::new("", Kind::Backend, "a").to_wire()],
        ..DeleteRequest::default()
    };
    bench.client.delete(delete).await.unwrap();
    let done = bench.declare(B).await.unwrap();
    assert_eq!((done.revision, done.changes.len()), (2, 0));
    bench.plane.shutdown().await;
}

#[tokio::test]
async fn what_only_a_refused_file_named_is_not_deleted_later() {
    let mut bench = Bench::new().await;
    let mut theirs = Documents::default();
    read_yaml("theirs.yaml", A, &mut theirs);
    change::submit(&mut bench.client, &theirs, &How::default())
        .await
        .unwrap();
    let bad = format!("{A}{B}{}", gateway("g"));
    bench.declare(&bad).await.unwrap_err();
    bench.declare(B).await.unwrap();
    assert_eq!(bench.names().await, ["backend/a", "backend/b"]);
    bench.plane.shutdown().await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_everything() {
    let mut bench = Bench::new().await;
    let good = bench.declare(&format!("{A}{B}")).await.unwrap();
    let bad = format!("{A}{{ kind: Gateway, name: g, path: /g, auth: nobody, bakends: [b] }}\n");
    let Failure::Invalid(lines) = bench.declare(&bad).await.unwrap_err() else {
        panic!("not invalid")
    };
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines.iter().all(|l| l.contains("fleet.yaml:3:")),
        "{lines:?}"
    );
    assert_eq!(
        bench.declare("# nothing\n").await.unwrap_err().exit_code(),
        3
    );
    assert_eq!(bench.names().await, ["backend/a", "backend/b"]);
    assert_eq!(
        bench.declare(&format!("{A}{B}")).await.unwrap().revision,
        good.revision
    );
    bench.plane.shutdown().await;
}
