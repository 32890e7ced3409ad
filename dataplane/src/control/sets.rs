//! Secrets, session keys, revocations and peers: received whole, swapped in, kept on disk,
//! and acknowledged; and brought back from disk at a start.
//!
//! On the config way beside `apply`: a revision names what comes here.

use std::{collections::BTreeSet, sync::Arc};

use fleet_proto::{
    secret::{Name, Value, named},
    sets::{Arriving, Broken, Entries},
    v1::{Revocation, SecretValue, SessionKey, SetAck, SetKind, SetPart, SetVersion},
    validate::{Problem, Valid},
};
use sha2::{Digest, Sha256};

use super::{
    Held,
    apply::apply,
    kept_sets::{Kept, KeptSets},
};
use crate::{
    auth::{bearer, revoked::Revoked},
    node::Node,
    peer,
    sealed::KeyRing,
    secrets::Secrets,
};

/// What a node has of the sets, from stream to stream.
#[derive(Default)]
pub(super) struct Sets {
    arriving: Arriving,
    in_use: InUse,
}

/// The sets in use, and where they are kept.
#[derive(Clone, Default)]
struct InUse {
    versions: Vec<SetVersion>,
    /// As it is, or is to be, on disk.
    kept: Kept,
    /// `None`: nowhere.
    disk: Option<Arc<KeptSets>>,
    /// It is on disk.
    saved: bool,
}

impl Sets {
    /// Puts what was kept on disk in use, before anything is served.
    pub(super) fn restore(node: &Arc<Node>, disk: Option<Arc<KeptSets>>) -> Self {
        let mut in_use = InUse {
            saved: true,
            ..InUse::default()
        };
        if let Some(disk) = disk {
            match disk.load() {
                Ok(kept) => in_use.restored(node, kept),
                Err(problem) => {
                    let what = "what is revoked cannot be told: gateways with tokens let nobody in \
                                until a control plane is reached";
                    tracing::error!(problem, what, "what was kept on disk cannot be used");
                    node.control.sets(format!("{problem}: {what}"));
                    in_use.revoked_is_unknown(node);
                }
            }
            in_use.disk = Some(disk);
        }
        Self {
            arriving: Arriving::default(),
            in_use,
        }
    }

    /// What the hello names.
    pub(super) fn versions(&self) -> Vec<SetVersion> {
        self.in_use.versions.clone()
    }

    /// A new stream: a set that was half there is sent anew.
    pub(super) fn start_over(&mut self) {
        self.arriving = Arriving::default();
    }

    /// Takes a part; with the last one the set is in use. Returns what to answer.
    ///
    /// # Errors
    /// Parts that do not belong together.
    pub(super) async fn add(
        &mut self,
        node: &Arc<Node>,
        held: Option<&Held>,
        part: SetPart,
    ) -> Result<Option<SetAck>, Broken> {
        let Some((version, entries)) = self.arriving.add(part)? else {
            return Ok(None);
        };
        let (node, held) = (node.clone(), held.cloned());
        let mut in_use = self.in_use.clone();
        let meant = version.clone();
        // Compiling a large table, or a slow disk, would hold up what else runs here.
        let taken = tokio::task::spawn_blocking(move || {
            let error = in_use.take(&node, held.as_ref(), version, entries).err();
            let degraded = node.table.load().degraded.clone();
            (in_use, error, degraded)
        });
        let (error, degraded) = match taken.await {
            Ok((in_use, error, degraded)) => {
                self.in_use = in_use;
                (error, degraded)
            }
            Err(error) => (Some(error.to_string()), Vec::new()),
        };
        Ok(Some(SetAck {
            version: Some(meant),
            error: error.unwrap_or_default(),
            degraded: degraded.iter().map(Problem::to_wire).collect(),
        }))
    }

    /// A revision is served: values that only the one before needed go.
    pub(super) fn served(&mut self, node: &Arc<Node>, set: &Valid) {
        let needed = node.secrets.load().needed_by(&named(set));
        if !needed.is_same(&node.secrets.load()) {
            node.secrets.store(Arc::new(needed));
        }
    }
}

impl InUse {
    fn restored(&mut self, node: &Arc<Node>, kept: Kept) {
        self.kept.ring.clone_from(&kept.ring);
        for set in &kept.sets {
            let Some(version) = set.version.clone() else {
                continue;
            };
            let entries = match version.set() {
                SetKind::Secrets => Entries::Secrets(set.secrets.clone()),
                SetKind::SessionKeys => Entries::SessionKeys(set.session_keys.clone()),
                SetKind::Revocations => Entries::Revocations(set.revocations.clone()),
                SetKind::Peers => Entries::Peers(set.peers.clone()),
                SetKind::Unspecified => continue,
            };
            if let Err(problem) = self.put_to_use(node, None, &version, entries) {
                tracing::error!(problem, "a set that was kept on disk cannot be used");
                if version.set() == SetKind::Revocations {
                    self.revoked_is_unknown(node);
                }
            }
        }
    }

    /// Nobody is let in, until a control plane has sent what is revoked: no version is
    /// named like this, so that it does, be it nothing.
    fn revoked_is_unknown(&mut self, node: &Node) {
        node.revoked.store(Arc::new(Revoked::unknown()));
        // Streams that are open look again whether they may be.
        node.epoch.turn();
        node.configured.send_modify(|_| {});
        self.versions
            .retain(|version| version.set() != SetKind::Revocations);
        self.versions.push(SetVersion {
            set: SetKind::Revocations.into(),
            version: 0,
            tag: b"unknown".to_vec(),
        });
    }

    fn take(
        &mut self,
        node: &Arc<Node>,
        held: Option<&Held>,
        version: SetVersion,
        entries: Entries,
    ) -> Result<(), String> {
        self.put_to_use(node, held, &version, entries)?;
        // Who the peers are is told where one comes or goes.
        if version.set() != SetKind::Peers {
            tracing::info!(
                set = version.set().as_str_name(),
                version = version.version,
                "a set is in use"
            );
        }
        self.save(node);
        Ok(())
    }

    fn put_to_use(
        &mut self,
        node: &Arc<Node>,
        held: Option<&Held>,
        version: &SetVersion,
        entries: Entries,
    ) -> Result<(), String> {
        let mut part = SetPart {
            version: Some(version.clone()),
            last: true,
            ..SetPart::default()
        };
        match entries {
            Entries::Secrets(values) => {
                secrets(node, held, &values);
                part.secrets = values;
                // Also those that what is served needs for a little longer.
                let names: BTreeSet<Name> = part
                    .secrets
                    .iter()
                    .map(|value| (value.project.clone(), value.name.clone()))
                    .collect();
                let all = node.secrets.load();
                let left = all.iter().filter(|(name, _)| !names.contains(*name));
                part.secrets.extend(left.map(|(name, value)| SecretValue {
                    project: name.0.clone(),
                    name: name.1.clone(),
                    value: value.to_owned(),
                }));
            }
            Entries::SessionKeys(keys) => {
                self.session_keys(node, &keys)?;
                part.session_keys = keys;
            }
            Entries::Revocations(all) => {
                // What cannot be evaluated refuses: some of it may be in use already.
                revocations(node, &all).inspect_err(|_| self.revoked_is_unknown(node))?;
                part.revocations = all;
                node.control.sets(String::new());
            }
            Entries::Peers(all) => {
                peer::replace(node, &all)?;
                part.peers = all;
            }
        }
        self.versions.retain(|other| other.set != version.set);
        self.versions.push(version.clone());
        self.kept.put(part);
        Ok(())
    }

    /// The ring of the fleet. Where none of its keys was there before, all sessions
    /// are to end: also those that this node has sealed by itself.
    fn session_keys(&mut self, node: &Arc<Node>, keys: &[SessionKey]) -> Result<(), String> {
        let mut ring = Vec::with_capacity(keys.len());
        for key in keys {
            let bytes = <[u8; 32]>::try_from(key.key.as_slice());
            let bytes = bytes.map_err(|_| "a session key has not 32 bytes".to_owned())?;
            ring.push((bytes, key.seals_from_ms));
        }
        if ring.is_empty() {
            return Err("there is no session key in it".to_owned());
        }
        let digests: Vec<_> = ring
            .iter()
            .map(|(key, _)| Sha256::digest(key).to_vec())
            .collect();
        let before = std::mem::replace(&mut self.kept.ring, digests);
        let all_new = self.kept.ring.iter().all(|key| !before.contains(key));
        if !before.is_empty() && all_new {
            node.sessions.replace_own(new_own(node));
            tracing::warn!("all session keys were replaced: sessions end");
        }
        peer::ended::close(node, &node.sessions.turn(KeyRing::timed(ring)));
        Ok(())
    }

    /// Writes what is in use to the disk. What it does not take is tried with the next
    /// change, and said.
    fn save(&mut self, node: &Arc<Node>) {
        let Some(disk) = &self.disk else {
            return;
        };
        match disk.save(&self.kept) {
            Ok(()) => {
                if !self.saved {
                    tracing::info!("secrets, session keys and revocations are kept on disk again");
                }
                self.saved = true;
                node.control.sets(String::new());
            }
            Err(error) => {
                self.saved = false;
                tracing::error!(
                    %error,
                    "revocations, secrets and session keys could not be kept on disk: a restart \
                     without a control plane would not know them"
                );
                node.control.sets(format!("not kept on disk: {error}"));
            }
        }
    }
}

/// Values; backends whose texts they change are made anew.
fn secrets(node: &Arc<Node>, held: Option<&Held>, values: &[SecretValue]) {
    let newer = Secrets::of(values.iter().map(|value| {
        let name = (value.project.clone(), value.name.clone());
        (name, Ok(Value::new(value.value.clone())))
    }));
    let needs = held.map(|held| named(&held.set)).unwrap_or_default();
    let before = node.secrets.load_full();
    let after = before.followed_by(newer, &needs);
    if after.is_same(&before) {
        return;
    }
    node.secrets.store(Arc::new(after));
    if let Some(held) = held {
        apply(node, held.version.clone(), &held.set);
    }
}

fn revocations(node: &Arc<Node>, all: &[Revocation]) -> Result<(), String> {
    let revoked = Arc::new(Revoked::of(all)?);
    node.revoked.store(revoked.clone());
    // Who listens may have lost the right to.
    node.epoch.turn();
    for (project, hash) in revoked.iter() {
        peer::ended::close(node, &node.sessions.end_all(project, &bearer::id_of(hash)));
    }
    Ok(())
}

/// A new own key of this node, also in its file.
fn new_own(node: &Node) -> KeyRing {
    let made = match &node.settings.data_dir {
        Some(directory) => KeyRing::anew_in(directory),
        None => KeyRing::random(),
    };
    made.unwrap_or_else(|error| {
        tracing::error!(%error, "this node's own session key could not be replaced");
        // Nothing opens with it, and nothing is sealed.
        KeyRing::of(&[])
    })
}
