//! Real data planes that are sent a field which they do not know, as a newer control plane would:
//! a relay adds it to one resource and sets the hashes right.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use fleet_proto::{
    hash::{Hash, root_hash},
    key::Key,
    v1::{ControlMessage, EncodedResource, NodeState, control_message::Message as Down},
};
use fleet_tests::{
    admin::http_backend,
    backend::{Backend, server::Server},
    client::Client,
    fleet::LEGACY,
    relay::{Change, Relay},
    replicas::Replicas,
};
use parking_lot::Mutex;
use serde_json::json;

use super::fleet::{node, number, printed};

/// The backend that a newer control plane gives a new field.
const NEWER: &str = "newer";

/// Field 1000 of `Backend` inside field 1 of `Resource`: a text.
fn with_a_new_field(body: &[u8]) -> Vec<u8> {
    let field = b"\xc2\x3e\x01x";
    // Field 1, length-delimited, is all that a resource of this kind has.
    let (&tag, rest) = body.split_first().expect("a resource has a kind");
    assert_eq!(tag, 0x0a, "Backend is field 1");
    let mut inner = rest;
    let length = prost::decode_length_delimiter(&mut inner).expect("a length");
    assert_eq!(length, inner.len(), "nothing stands after it");
    let inner = [inner, field].concat();
    let mut changed = vec![tag];
    prost::encode_length_delimiter(inner.len(), &mut changed).expect("room");
    changed.extend(inner);
    changed
}

type Set = BTreeMap<Key, Hash>;

/// What was sent, by the root hash that the control plane knows it under.
#[derive(Default)]
struct Sent {
    known: HashMap<Vec<u8>, Set>,
    /// The set under way.
    set: Set,
}

/// As a control plane does that knows one more field of backends and has it in [`NEWER`]: bytes,
/// hashes and root hashes fit together.
fn newer() -> Change {
    let sent = Mutex::new(Sent::default());
    Arc::new(move |mut message: ControlMessage| {
        let mut sent = sent.lock();
        match &mut message.message {
            // A snapshot has no base, and no set has the root hash of nothing.
            Some(Down::Begin(begin)) => {
                let base = sent.known.get(&begin.base_root_hash).cloned();
                sent.set = base.unwrap_or_default();
            }
            Some(Down::Chunk(chunk)) => {
                for key in chunk.removed.iter().filter_map(Key::from_wire) {
                    sent.set.remove(&key);
                }
                for EncodedResource { key, body } in &mut chunk.resources {
                    let key = key.as_ref().and_then(Key::from_wire).expect("a known kind");
                    if key.name == NEWER {
                        *body = with_a_new_field(body);
                    }
                    sent.set.insert(key, Hash::of(body));
                }
            }
            Some(Down::Commit(commit)) => {
                let set = sent.set.clone();
                let root = root_hash(set.iter().map(|(key, hash)| (key, *hash)));
                sent.known.insert(commit.root_hash.clone(), set);
                commit.root_hash = root.0.to_vec();
            }
            _ => {}
        }
        message
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_that_does_not_know_a_field_refuses_serves_on_and_heals() -> Result<()> {
    let backend = Backend::start(Server::echo("alpha").legacy()).await?;
    let mut replicas = Replicas::start(&[]).await?;
    let relay = Relay::start(&replicas.control_url, newer()).await?;
    replicas.add_by("old", &relay.url, &[]).await?;
    let mut admin = replicas.admin().await?;
    admin.node_in(NodeState::Synced).await?;
    let good = http_backend("alpha", &backend.url());
    let first = admin.apply(vec![good]).await?.revision;
    admin.acked(first).await?;

    let apply = async |name: &str, more: &[&str]| {
        let url = backend.at(&format!("/{name}"));
        let yaml = format!("kind: Backend\nname: {name}\nhttp: {{ url: '{url}' }}\n");
        std::fs::write(replicas.dir().join("next.yaml"), yaml)?;
        let arguments = [&["apply", "-f", "next.yaml", "--wait"], more].concat();
        Ok::<_, anyhow::Error>(printed(&replicas.mcpctl("", &arguments).await?))
    };
    let (code, _, errors) = apply(NEWER, &[]).await?;
    ensure!(code == Some(6), "{code:?} {errors}");
    let line = errors
        .lines()
        .find(|line| line.contains("old refused revision"));
    let line = line.with_context(|| format!("the node is not named: {errors}"))?;
    ensure!(
        line.contains(&format!("Backend {NEWER}")) && line.contains("upgrade"),
        "{line}"
    );
    let old = node(&replicas, "old").await?;
    ensure!(
        old["state"] == "NODE_STATE_NACKED"
            && number(&old["nacked_revision"]) == Some(first + 1)
            && number(&old["revision"]) == Some(first),
        "{old}"
    );
    let url = format!("http://{}/mcp", replicas.planes[0].address);
    let mut client = Client::legacy(&url, LEGACY).await?;
    ensure!(client.text("alpha__echo", json!({"text": "x"})).await? == "alpha:x");

    // A new node gets what others have taken, serves it, and stays there.
    let second = Relay::start(&replicas.control_url, newer()).await?;
    replicas.add_by("new", &second.url, &[]).await?;
    let held = admin.node_in(NodeState::Pinned).await?;
    ensure!(held.node_id == "new" && held.revision == first, "{held:?}");
    let url = format!("http://{}/mcp", replicas.planes[1].address);
    let mut client = Client::legacy(&url, LEGACY).await?;
    ensure!(client.text("alpha__echo", json!({"text": "y"})).await? == "alpha:y");
    let (_, table, errors) = printed(&replicas.mcpctl("", &["nodes"]).await?);
    ensure!(
        table.contains("PINNED") && errors.contains("new stays with revision"),
        "{table}\n{errors}"
    );
    let wait = replicas.mcpctl("", &["wait", "--timeout", "60s"]).await?;
    let (code, _, errors) = printed(&wait);
    ensure!(
        code == Some(6) && errors.contains("new stays"),
        "{code:?} {errors}"
    );

    // The next good apply heals all.
    let removed = replicas.mcpctl("", &["delete", "backend", NEWER]).await?;
    ensure!(removed.status.success(), "{removed:?}");
    let backend_url = backend.at("/third");
    let third = admin
        .apply(vec![http_backend("third", &backend_url)])
        .await?;
    admin.acked(third.revision).await?;
    for plane in &replicas.planes {
        let state = node(&replicas, &plane.name).await?;
        ensure!(state["state"] == "NODE_STATE_SYNCED", "{state}");
    }
    let mut client = Client::legacy(&url, LEGACY).await?;
    ensure!(client.text("third__echo", json!({"text": "z"})).await? == "alpha:z");
    Ok(())
}
