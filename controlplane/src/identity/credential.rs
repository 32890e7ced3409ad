//! [`Credential`]: with what a node's stream comes, and for how long that is good.

use std::{sync::Arc, time::Duration};

use fleet_proto::hash::Hash;
use tokio::sync::watch;
use tonic::Status;

use super::{Identities, ca::Shown};
use crate::clock::now_ms;

/// With what a node has been let in. Found in the extensions of a request that has
/// passed the [guard](super::guard).
#[derive(Clone)]
pub(crate) struct Credential {
    kind: Kind,
    /// `None`: in tests of a stream alone.
    identities: Option<Arc<Identities>>,
    certificates: watch::Receiver<u64>,
    tokens: watch::Receiver<u64>,
}

#[derive(Clone)]
enum Kind {
    /// A node token, hashed.
    Token(Hash),
    Certificate {
        shown: Shown,
        expires_ms: u64,
    },
}

impl Credential {
    pub(super) fn token(identities: &Arc<Identities>, hash: Hash) -> Self {
        Self::new(identities, Kind::Token(hash))
    }

    pub(super) fn certificate(identities: &Arc<Identities>, shown: Shown, expires_ms: u64) -> Self {
        Self::new(identities, Kind::Certificate { shown, expires_ms })
    }

    fn new(identities: &Arc<Identities>, kind: Kind) -> Self {
        Self {
            kind,
            certificates: identities.known.subscribe(),
            tokens: identities.tokens.subscribe(),
            identities: Some(Arc::clone(identities)),
        }
    }

    /// One that is good for every node, for ever.
    #[cfg(test)]
    pub(crate) fn of_a_test() -> Self {
        let (never, changes) = watch::channel(0);
        // A channel without a sender would be a change.
        std::mem::forget(never);
        Self {
            kind: Kind::Token(Hash([0; 32])),
            identities: None,
            certificates: changes.clone(),
            tokens: changes,
        }
    }

    /// Whether a node that calls itself so may come with this. To be asked of every
    /// stream when it says who it is.
    pub(crate) fn speaks_for(&self, node_id: &str) -> Result<(), Status> {
        match &self.kind {
            Kind::Certificate { shown, .. } if shown.node_id == node_id => Ok(()),
            Kind::Certificate { shown, .. } => Err(Status::permission_denied(format!(
                "the certificate is of node {}: it cannot be {node_id}",
                shown.node_id
            ))),
            Kind::Token(_) => match &self.identities {
                Some(identities) if identities.known.has_joined(node_id) => {
                    Err(Status::permission_denied(format!(
                        "node {node_id} has joined with a certificate: the node token does not stand for \
                         it; let it come with its certificate, or choose another node id"
                    )))
                }
                _ => Ok(()),
            },
        }
    }

    /// Whether it is a certificate of one node, not a token that many may share.
    pub(crate) fn is_certificate(&self) -> bool {
        matches!(self.kind, Kind::Certificate { .. })
    }

    /// Waits until this is good no longer; says why. Cancel safe.
    pub(crate) async fn void(&mut self) -> String {
        loop {
            if let Err(why) = self.check() {
                return why;
            }
            let changed = async {
                let either = tokio::select! {
                    changed = self.certificates.changed() => changed,
                    changed = self.tokens.changed() => changed,
                };
                if either.is_err() {
                    // Its source is gone: so is the control plane.
                    std::future::pending::<()>().await;
                }
            };
            match &self.kind {
                Kind::Token(_) => changed.await,
                Kind::Certificate { expires_ms, .. } => {
                    let left = Duration::from_millis(expires_ms.saturating_sub(now_ms()));
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep(left) => {}
                    }
                }
            }
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let Some(identities) = &self.identities else {
            return Ok(());
        };
        match &mut self.kind {
            Kind::Token(hash) if identities.tokens.is_node_token(*hash) => Ok(()),
            Kind::Token(_) => Err("the node token is good no longer".to_owned()),
            Kind::Certificate { shown, expires_ms } => {
                let row = identities.known.certificate(&shown.serial);
                if row.is_some_and(|row| row.revoked_ms.is_some()) {
                    return Err(format!(
                        "the certificate of node {} is revoked",
                        shown.node_id
                    ));
                }
                // Also when it has expired and is forgotten: a node that is revoked has
                // none that is good.
                let newest = identities.expires_ms(&shown.node_id).ok_or_else(|| {
                    format!(
                        "the certificates of node {} are revoked or have expired",
                        shown.node_id
                    )
                })?;
                if *expires_ms > now_ms() {
                    return Ok(());
                }
                if newest > now_ms() {
                    // A node that has renewed it need not come again for that.
                    *expires_ms = newest;
                    return Ok(());
                }
                Err(format!(
                    "the certificate of node {} has expired",
                    shown.node_id
                ))
            }
        }
    }
}
