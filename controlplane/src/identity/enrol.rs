//! `FleetIdentity`: certificates for join tokens and for certificates.
//!
//! Anybody can call it, so that what is cheap is looked at first, a request is small
//! and has little time, and few are dealt with at once.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fleet_proto::{
    hash::Hash,
    v1::{CertificateResponse, JoinRequest, RenewRequest, fleet_identity_server::FleetIdentity},
};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Request, Response, Status};

use super::{
    Identities, IdentityError,
    ca::{Issued, claimed, has_signed},
};
use crate::{
    clock::now_ms,
    listen::Peer,
    store::{
        AuditRow,
        identity::{Attempt, CertificateRow, RENEWABLE, Turned},
    },
};

/// Bytes of the largest request.
pub(crate) const LARGEST: usize = 16 * 1024;
/// Longest time for one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Requests dealt with at once; as many more may wait as their time allows.
const AT_ONCE: usize = 8;
/// What the text of a join token begins with.
pub(crate) const PREFIX: &str = "mfj1.";
/// What is signed to renew begins with this.
const RENEW: &[u8] = b"mcp-fleet renew 1\0";
/// Longest node id.
const LONGEST_ID: usize = 253;

/// `FleetIdentity` over what the store knows.
pub(crate) struct Enrol {
    identities: Arc<Identities>,
    at_once: Semaphore,
}

impl Enrol {
    pub(crate) fn new(identities: Arc<Identities>) -> Self {
        Self {
            identities,
            at_once: Semaphore::new(AT_ONCE),
        }
    }

    async fn join_one(&self, peer: &Peer, request: JoinRequest) -> Result<Issued, Failure> {
        let JoinRequest {
            token,
            node_id,
            csr,
        } = request;
        check_id(&node_id).map_err(Failure::Bad)?;
        let (token_id, hash) = read(&token).ok_or(Failure::Turned(Turned::Unknown))?;
        let at_ms = now_ms();
        let attempt = Attempt {
            token_id: token_id.to_owned(),
            hash,
            node_id: node_id.clone(),
            at_ms,
        };
        let store = &self.identities.store;
        let kept = store.join_token(attempt.token_id.clone()).await;
        let kept = kept.map_err(IdentityError::from)?;
        // Whether the node has joined is asked where nothing can come between.
        attempt.judge(kept.as_ref(), false)?;
        let ca = self.identities.ca().await?;
        let issued = ca.sign_node(&node_id, &csr, self.identities.lifetime)?;
        let audit = AuditRow {
            at_ms,
            author: format!("join token {token_id}"),
            peer: peer.to_string(),
            action: "node.join".to_owned(),
            token: node_id.clone(),
            ..AuditRow::default()
        };
        let row = row(&issued, &node_id);
        let joined = store.join(attempt, row, audit).await;
        joined.map_err(IdentityError::from)??;
        tracing::info!(node = node_id, token = token_id, %peer, "a node has joined");
        Ok(issued)
    }

    async fn renew_one(&self, peer: &Peer, request: RenewRequest) -> Result<Issued, Failure> {
        let RenewRequest {
            certificate,
            csr,
            signature,
        } = request;
        // First what costs nothing; what it claims is proved below.
        let serial = claimed(&certificate)?.serial;
        let store = &self.identities.store;
        let kept = store.certificate(serial.clone()).await;
        let kept = kept.map_err(IdentityError::from)?;
        let kept = kept.ok_or(Failure::Turned(Turned::NoCertificate))?;
        let now = now_ms();
        if kept.revoked_ms.is_some() {
            return Err(Turned::Revoked.into());
        }
        if kept.expires_ms + RENEWABLE.as_millis() as u64 <= now {
            return Err(Turned::TooOld.into());
        }
        let ca = self.identities.ca().await?;
        // One that has expired was good when it ended.
        let shown = ca.recognise(&certificate, now.min(kept.expires_ms - 1))?;
        if shown.node_id != kept.node_id {
            return Err(Turned::OtherNode.into());
        }
        has_signed(&certificate, &[RENEW, &csr].concat(), &signature)?;
        let issued = ca.sign_node(&kept.node_id, &csr, self.identities.lifetime)?;
        let row = row(&issued, &kept.node_id);
        let renewed = store.renew(serial, row).await;
        renewed.map_err(IdentityError::from)??;
        tracing::info!(node = kept.node_id, %peer, "a node has renewed its certificate");
        Ok(issued)
    }

    /// What both have in common.
    async fn answer<T>(
        &self,
        request: Request<T>,
        what: &'static str,
        deal: impl AsyncFnOnce(&Peer, T) -> Result<Issued, Failure>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("it is not known who calls"))?;
        if !peer.tls {
            return Err(Status::failed_precondition(
                "certificates are given out over TLS only: start the control plane with --tls-name or \
                 --tls-cert, and call it with https://",
            ));
        }
        let busy = || Status::unavailable("too many want certificates at once: try again");
        let _turn = timeout(PATIENCE, self.at_once.acquire())
            .await
            .map_err(|_| busy())?
            .map_err(|_| busy())?;
        let issued = match deal(&peer, request.into_inner()).await {
            Ok(issued) => issued,
            Err(failure) => return Err(failure.tell(&peer, what)),
        };
        let known = self.identities.refresh().await;
        if let Err(error) = known {
            tracing::warn!(%error, "a new certificate is known here a little later");
        }
        let ca = self.identities.ca().await;
        let ca = ca.map_err(|error| Failure::from(error).tell(&peer, what))?;
        Ok(Response::new(CertificateResponse {
            certificate: issued.der,
            ca: ca.certificate().to_vec(),
        }))
    }
}

#[tonic::async_trait]
impl FleetIdentity for Enrol {
    async fn join(
        &self,
        request: Request<JoinRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let deal = async |peer: &Peer, request| self.join_one(peer, request).await;
        self.answer(request, "join", deal).await
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let deal = async |peer: &Peer, request| self.renew_one(peer, request).await;
        self.answer(request, "renew", deal).await
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Bad(String),
    #[error(transparent)]
    Turned(#[from] Turned),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Failure {
    /// What the caller is told; all of it is in the log.
    fn tell(self, peer: &Peer, what: &'static str) -> Status {
        tracing::warn!(%peer, reason = %self, "no certificate: {what}");
        match self {
            Self::Bad(text) => Status::invalid_argument(text),
            Self::Turned(Turned::Taken) => Status::already_exists(
                "a node of this id has joined before: use a join token made for it \
                 (mcpctl node join-token --node-id ID), or choose another node id",
            ),
            Self::Turned(_)
            | Self::Identity(IdentityError::NotOfANode | IdentityError::Certificate(_)) => {
                Status::unauthenticated(if what == "renew" {
                    "the certificate cannot be renewed: it is not of this fleet, has expired too long ago, \
                     or is revoked; join again with a new join token"
                } else {
                    "the join token is not good: have a new one made (mcpctl node join-token)"
                })
            }
            Self::Identity(error @ IdentityError::Csr(_)) => {
                Status::invalid_argument(error.to_string())
            }
            Self::Identity(IdentityError::Store(error)) if error.is_passing() => {
                Status::unavailable("the database is out of reach: try again")
            }
            Self::Identity(_) => {
                Status::internal("no certificate could be made: see the log of the control plane")
            }
        }
    }
}

fn row(issued: &Issued, node_id: &str) -> CertificateRow {
    CertificateRow {
        serial: issued.serial.clone(),
        node_id: node_id.to_owned(),
        issued_ms: issued.issued_ms,
        expires_ms: issued.expires_ms,
        revoked_ms: None,
    }
}

/// The id of a join token, and the hash of its secret.
fn read(token: &str) -> Option<(&str, Hash)> {
    let token = token.strip_prefix(PREFIX).unwrap_or(token);
    let mut parts = token.splitn(3, '.');
    let (id, secret) = (parts.next()?, parts.next()?);
    let fits =
        id.len() <= 64 && secret.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric());
    fits.then(|| (id, Hash::of(secret.as_bytes())))
}

/// The text of a join token.
pub(crate) fn write(id: &str, secret: &str, pin: Option<Hash>) -> String {
    let pin = pin.map(|pin| format!(".{}", URL_SAFE_NO_PAD.encode(pin.0)));
    format!("{PREFIX}{id}.{secret}{}", pin.unwrap_or_default())
}

/// A node id that can be in a certificate.
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    let fits = (1..=LONGEST_ID).contains(&id.len())
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits {
        return Ok(());
    }
    Err(format!(
        "node_id: {id:?} is not a name: use letters, digits, `-`, `_` and `.`, at most {LONGEST_ID}, the \
         first one a letter or digit"
    ))
}
