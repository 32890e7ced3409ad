//! What a node uses of secrets, session keys, revocations and peers.

use fleet_proto::v1::{Problem, SetAck, SetKind, SetVersion};

use super::{Session, bounded};

/// Longest tag of a version.
const LONGEST_TAG: usize = 64;

/// The versions that a node names, as far as they can be kept: one of each set that is
/// in the database. That of peers changes whenever a node comes or goes, at all others.
pub(super) fn known(versions: &[SetVersion]) -> Vec<SetVersion> {
    let mut known: Vec<SetVersion> = Vec::with_capacity(3);
    for version in versions {
        let is_new = known.iter().all(|before| before.set != version.set);
        if is_new && is_stored(version.set()) && version.tag.len() <= LONGEST_TAG {
            known.push(version.clone());
        }
    }
    known
}

const fn is_stored(kind: SetKind) -> bool {
    matches!(
        kind,
        SetKind::Secrets | SetKind::SessionKeys | SetKind::Revocations
    )
}

/// Where a problem of a set is shown.
const fn path(kind: SetKind) -> &'static str {
    match kind {
        SetKind::Secrets => "secrets",
        SetKind::SessionKeys => "session keys",
        SetKind::Revocations => "revocations",
        SetKind::Peers => "peers",
        SetKind::Unspecified => "",
    }
}

impl Session {
    /// The node uses a set, or says why not.
    pub(crate) fn set_acked(&self, ack: SetAck) {
        let Some(version) = ack.version.filter(|v| v.set() != SetKind::Unspecified) else {
            return;
        };
        let kind = version.set();
        let failed = (!ack.error.is_empty()).then_some(ack.error);
        if kind == SetKind::Peers && failed.is_none() {
            self.mended(kind);
            return;
        }
        if let Some(reason) = &failed {
            tracing::error!(
                node = self.node_id(),
                set = path(kind),
                version = version.version,
                reason,
                "a set is not in use on a node"
            );
        }
        self.with(|node| {
            let row = &mut node.row;
            row.set_problems
                .retain(|problem| problem.path != path(kind));
            if let Some(message) = failed {
                row.set_problems.push(Problem {
                    key: None,
                    path: path(kind).to_owned(),
                    message,
                });
                row.set_problems = bounded(std::mem::take(&mut row.set_problems));
            } else {
                row.sets.retain(|before| before.set != version.set);
                row.sets.push(version);
                row.sets = known(&row.sets);
                row.degraded = bounded(ack.degraded);
            }
            node.dirty = true;
        });
        self.registry.bump();
    }

    /// A set is in use of which nothing else is kept.
    fn mended(&self, kind: SetKind) {
        let mended = self.with(|node| {
            let problems = node.row.set_problems.len();
            let of_others = |problem: &Problem| problem.path != path(kind);
            node.row.set_problems.retain(of_others);
            let mended = node.row.set_problems.len() < problems;
            node.dirty |= mended;
            mended
        });
        if mended == Some(true) {
            self.registry.bump();
        }
    }
}
