//! [`Shown`]: the sets in memory, and what a node is to have of them: of the secrets
//! only those that its backends name.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use fleet_proto::{
    hash::Hash,
    secret::{self, Name},
    sets::Entries,
    v1::{Revocation, SecretValue, SessionKey, SetKind, SetPart, SetVersion, revocation},
};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::Current;
use crate::publish::Snapshot;

/// Revisions and views remembered.
const MOST: usize = 8;

/// The sets as they are shown to streams.
#[derive(Default)]
pub(crate) struct Shown {
    state: watch::Sender<Arc<Current>>,
    views: Mutex<Views>,
}

/// What was worked out before, newest last.
#[derive(Default)]
struct Views {
    /// By root hash.
    named: Vec<(Hash, Arc<BTreeSet<Name>>)>,
    wanted: Vec<(Vec<Hash>, Arc<Wanted>)>,
}

/// What some nodes are to have.
#[derive(Debug)]
pub(crate) struct Wanted {
    current: Arc<Current>,
    /// The secrets that they need.
    names: BTreeSet<Name>,
    versions: [SetVersion; 3],
    parts: [OnceLock<Arc<[SetPart]>>; 3],
}

impl Wanted {
    /// The versions of the three sets. The tag of the secrets also tells which of
    /// them there are.
    pub(crate) fn versions(&self) -> &[SetVersion; 3] {
        &self.versions
    }

    /// The set of this place among [`versions`](Self::versions), in parts.
    pub(crate) fn parts(&self, place: usize) -> Arc<[SetPart]> {
        let make = || {
            let entries = match self.versions[place].set() {
                SetKind::Secrets => self.secrets(),
                SetKind::SessionKeys => self.session_keys(),
                SetKind::Revocations | SetKind::Peers | SetKind::Unspecified => self.revocations(),
            };
            entries.parts(&self.versions[place]).into()
        };
        Arc::clone(self.parts[place].get_or_init(make))
    }

    fn secrets(&self) -> Entries {
        let values = self.names.iter().filter_map(|name| {
            let value = self.current.secrets.entries.get(name)?;
            Some(SecretValue {
                project: name.0.clone(),
                name: name.1.clone(),
                value: value.expose().to_owned(),
            })
        });
        Entries::Secrets(values.collect())
    }

    fn session_keys(&self) -> Entries {
        let keys = self.current.session_keys.entries.iter();
        Entries::SessionKeys(
            keys.map(|key| SessionKey {
                key: key.key.to_vec(),
                seals_from_ms: key.seals_from_ms,
            })
            .collect(),
        )
    }

    fn revocations(&self) -> Entries {
        let rows = self.current.revocations.entries.iter();
        Entries::Revocations(
            rows.map(|row| Revocation {
                project: row.project.clone(),
                until_ms: row.until_ms,
                what: Some(revocation::What::BearerSha256(row.bearer.0.to_vec())),
            })
            .collect(),
        )
    }
}

impl Shown {
    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.state.borrow())
    }

    /// The sets, now and at every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Current>> {
        self.state.subscribe()
    }

    pub(super) fn replace(&self, new: Arc<Current>) {
        self.state.send_replace(new);
    }

    /// Of each set the newer one.
    pub(super) fn newest(&self, new: &Current) {
        self.state.send_modify(|state| *state = merged(state, new));
    }

    /// What the store has now, also where that is older: it was set back. Unless
    /// something was written here since `before`.
    pub(super) fn follow(&self, before: &Arc<Current>, new: Current) {
        self.state.send_modify(|state| {
            *state = if Arc::ptr_eq(state, before) {
                Arc::new(new)
            } else {
                merged(state, &new)
            };
        });
    }

    /// What a node is to have that serves, or is to serve, one of these revisions.
    pub(crate) fn wanted<'a>(
        &self,
        revisions: impl IntoIterator<Item = &'a Arc<Snapshot>>,
    ) -> Arc<Wanted> {
        let mut revisions: Vec<_> = revisions.into_iter().collect();
        revisions.sort_by_key(|revision| revision.root_hash().0);
        revisions.dedup_by_key(|revision| revision.root_hash());
        let roots: Vec<_> = revisions.iter().map(|r| r.root_hash()).collect();
        let current = self.current();
        let mut views = self.views.lock();
        let known = views
            .wanted
            .iter()
            .find(|(of, wanted)| *of == roots && Arc::ptr_eq(&wanted.current, &current));
        if let Some((_, wanted)) = known {
            return Arc::clone(wanted);
        }
        let mut names = BTreeSet::new();
        for revision in revisions {
            names.extend(views.named_in(revision).iter().cloned());
        }
        let wanted = Arc::new(Wanted::new(current, names));
        // Values must not stay in memory for longer than they are good.
        views
            .wanted
            .retain(|(_, old)| Arc::ptr_eq(&old.current, &wanted.current));
        remember(&mut views.wanted, (roots, Arc::clone(&wanted)));
        wanted
    }
}

fn merged(a: &Current, b: &Current) -> Arc<Current> {
    Arc::new(Current {
        secrets: a.secrets.newer_of(&b.secrets),
        session_keys: a.session_keys.newer_of(&b.session_keys),
        revocations: a.revocations.newer_of(&b.revocations),
    })
}

impl Wanted {
    fn new(current: Arc<Current>, names: BTreeSet<Name>) -> Self {
        let mut versions = current.versions().map(Clone::clone);
        if versions[0].version > 0 {
            let mut digest = Sha256::new();
            let mut add = |bytes: &[u8]| {
                digest.update((bytes.len() as u64).to_be_bytes());
                digest.update(bytes);
            };
            add(&versions[0].tag);
            let there = |name: &&Name| current.secrets.entries.contains_key(*name);
            for (project, name) in names.iter().filter(there) {
                add(project.as_bytes());
                add(name.as_bytes());
            }
            versions[0].tag = digest.finalize()[..16].to_vec();
        }
        Self {
            current,
            names,
            versions,
            parts: Default::default(),
        }
    }
}

impl Views {
    fn named_in(&mut self, revision: &Snapshot) -> Arc<BTreeSet<Name>> {
        let root = revision.root_hash();
        if let Some((_, names)) = self.named.iter().find(|(of, _)| *of == root) {
            return Arc::clone(names);
        }
        let names = Arc::new(secret::named(&revision.resources));
        remember(&mut self.named, (root, Arc::clone(&names)));
        names
    }
}

fn remember<T>(all: &mut Vec<T>, new: T) {
    if all.len() == MOST {
        all.remove(0);
    }
    all.push(new);
}
