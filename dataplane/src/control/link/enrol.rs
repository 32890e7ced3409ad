//! How a node gets its certificate, and the next one.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fleet_proto::v1::{
    CertificateResponse, JoinRequest, RenewRequest, fleet_identity_client::FleetIdentityClient,
};
use rcgen::KeyPair;
use tonic::{Code, Status};

use super::{
    Doubt, Link, Place,
    identity::{Identity, Origin, key, request},
};
use crate::sealed;

/// What is signed to renew begins with this.
const RENEW: &[u8] = b"mcp-fleet renew 1\0";
/// How long a request may take.
const ANSWER: Duration = Duration::from_secs(20);
/// Renewal is thought of this often, by the clock on the wall, and no more often.
const LOOK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// A join token, read.
pub(super) struct JoinToken {
    id: String,
    /// What a control plane is shown: id and secret.
    text: String,
    /// SHA-256 of the certificate of the CA.
    pub(super) pin: Option<[u8; 32]>,
}

impl JoinToken {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let wrong = "it is not a join token: they begin with mfj1. and are made by `mcpctl node join-token`";
        let rest = text.strip_prefix("mfj1.").ok_or(wrong)?;
        let parts: Vec<_> = rest.split('.').collect();
        let (id, secret, pin) = match parts[..] {
            [id, secret] => (id, secret, None),
            [id, secret, pin] => (id, secret, Some(pin)),
            _ => return Err(wrong),
        };
        let pin = pin.map(|pin| {
            let bytes = URL_SAFE_NO_PAD.decode(pin).ok()?;
            <[u8; 32]>::try_from(bytes).ok()
        });
        match pin {
            // A pin that cannot be read is not as if there was none.
            Some(None) => Err(wrong),
            pin => Ok(Self {
                id: id.to_owned(),
                text: format!("{id}.{secret}"),
                pin: pin.flatten(),
            }),
        }
    }
}

impl Link {
    /// The join token that may be used: not the one that was.
    pub(super) fn join_token(&self) -> Option<JoinToken> {
        let token = self.credentials.join_token.as_ref()?.read().ok()?;
        let token = JoinToken::parse(&token).ok()?;
        let identity = self.identity.load();
        let used = identity.as_ref().is_some_and(|i| i.token_id == token.id);
        Some(token).filter(|_| !used)
    }

    /// Sees to it that there is a certificate that can be shown, if there is to be
    /// one: joins, or renews one that has ended or is in doubt.
    pub(super) async fn enrol(&self, url: &str) -> Result<(), Status> {
        if !Place::of(url).is_ok_and(|place| place.tls) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let identity = self.identity.load_full();
        let Some(identity) = identity else {
            return match &self.credentials.join_token {
                Some(_) => self.join(url).await,
                None => Ok(()),
            };
        };
        let doubt = *self.doubt.lock();
        if doubt == Doubt::None && !identity.has_expired() {
            return Ok(());
        }
        let renewed = self.renew(url, &identity).await;
        let Err(status) = renewed else {
            return Ok(());
        };
        if status.code() != Code::Unauthenticated {
            return Err(status);
        }
        *self.doubt.lock() = Doubt::Refused;
        if self.join_token().is_some() {
            return self.join(url).await;
        }
        Err(Status::unauthenticated(format!(
            "{}: this node is not let in any more; give it a new join token (mcpctl node join-token \
             --node-id {})",
            status.message(),
            self.node_id
        )))
    }

    async fn join(&self, url: &str) -> Result<(), Status> {
        let given = self.credentials.join_token.as_ref();
        let text = given.ok_or_else(|| Status::unauthenticated("there is no join token"))?;
        let text = text
            .read()
            .map_err(|e| Status::unauthenticated(format!("the join token cannot be read: {e}")))?;
        let token = JoinToken::parse(&text).map_err(Status::unauthenticated)?;
        let (key, csr) = new_key()?;
        let message = JoinRequest {
            token: token.text,
            node_id: self.node_id.clone(),
            csr,
        };
        let channel = self.channel(url, None).await?;
        let answer = FleetIdentityClient::new(channel).join(timed(message)).await;
        let answer = answer.inspect_err(|status| {
            let hopeless = [
                Code::Unauthenticated,
                Code::AlreadyExists,
                Code::InvalidArgument,
            ];
            if hopeless.contains(&status.code()) {
                *self.doubt.lock() = Doubt::Refused;
            }
        })?;
        let origin = Origin {
            pinned: token.pin.is_some(),
            token_id: token.id,
        };
        self.take(key, answer.into_inner(), origin)?;
        tracing::info!(node = self.node_id, "this node has joined the fleet");
        Ok(())
    }

    async fn renew(&self, url: &str, identity: &Identity) -> Result<(), Status> {
        let (key, csr) = new_key()?;
        let signature = identity.sign(&[RENEW, &csr].concat());
        let message = RenewRequest {
            certificate: identity.certificate.to_vec(),
            signature: signature.map_err(Status::internal)?,
            csr,
        };
        // Without showing it: it may have ended.
        let channel = self.channel(url, None).await?;
        let answer = FleetIdentityClient::new(channel)
            .renew(timed(message))
            .await?;
        self.take(key, answer.into_inner(), identity.origin())?;
        tracing::info!(node = self.node_id, "this node has a new certificate");
        Ok(())
    }

    /// Keeps what a control plane has given, first on disk.
    fn take(&self, key: KeyPair, given: CertificateResponse, origin: Origin) -> Result<(), Status> {
        let received = sealed::now();
        let identity =
            Identity::new(key, given.certificate, given.ca, received, origin).map_err(|e| {
                Status::internal(format!("the control plane gave no good certificate: {e}"))
            })?;
        if identity.node_id != self.node_id {
            return Err(Status::internal(format!(
                "the control plane gave a certificate for {}",
                identity.node_id
            )));
        }
        if let Some(kept) = &self.kept
            && let Err(error) = kept.save(&identity)
        {
            // It is good as long as this process lives.
            tracing::error!(%error, "the certificate could not be kept: a restart needs a new join token");
        }
        self.identity.store(Some(Arc::new(identity)));
        *self.doubt.lock() = Doubt::None;
        self.renewed.notify_one();
        Ok(())
    }

    /// Renews the certificate when it is time, for as long as the node lives. Streams
    /// that are open go on; the next ones come with the new one.
    pub(in crate::control) async fn keep(self: Arc<Self>) {
        let urls: Vec<_> = self
            .urls()
            .iter()
            .filter(|url| super::is_tls(url))
            .collect();
        if urls.is_empty() {
            return;
        }
        let mut said = String::new();
        for url in urls.iter().cycle() {
            self.until_due().await;
            let _turn = self.turn.lock().await;
            let Some(identity) = self.identity.load_full().filter(is_due) else {
                continue;
            };
            if *self.doubt.lock() == Doubt::Refused {
                continue;
            }
            match self.renew(url, &identity).await {
                Ok(()) => said.clear(),
                Err(status) => {
                    if status.code() == Code::Unauthenticated {
                        // The next stream says so, and what is to be done.
                        *self.doubt.lock() = Doubt::Refused;
                    }
                    let reason = format!("{:?}: {}", status.code(), status.message());
                    if said != reason {
                        tracing::warn!(
                            url,
                            reason,
                            "the certificate of this node is not renewed: trying again"
                        );
                        said = reason;
                    }
                    drop(_turn);
                    let life = identity.expires.saturating_sub(identity.received);
                    tokio::time::sleep((life / 50).clamp(LOOK.0, LOOK.1)).await;
                }
            }
        }
    }

    /// Waits until there is a certificate that is to be renewed. Looks at the clock
    /// again and again: it may be set, and the machine may sleep.
    async fn until_due(&self) {
        loop {
            let refused = *self.doubt.lock() == Doubt::Refused;
            let left = match self.identity.load_full() {
                Some(identity) if !refused => identity.due().saturating_sub(sealed::now()),
                _ => LOOK.1,
            };
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left.clamp(LOOK.0, LOOK.1)) => {}
                () = self.renewed.notified() => {}
            }
        }
    }
}

fn is_due(identity: &Arc<Identity>) -> bool {
    identity.due() <= sealed::now()
}

fn new_key() -> Result<(KeyPair, Vec<u8>), Status> {
    let failed = |what: String| Status::internal(format!("no key could be made: {what}"));
    let key = key().map_err(failed)?;
    let csr = request(&key).map_err(failed)?;
    Ok((key, csr))
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(ANSWER);
    request
}
