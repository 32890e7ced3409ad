//! Who may be a node: join tokens, certificates, and the guard of the node's doors.
//!
//! On the config way beside `sync`: before a stream says hello, `identity/guard` has
//! found with what it comes ([`credential::Credential`]), and ends it when that is
//! void. `identity/enrol` gives out certificates that `identity/ca` signs;
//! `identity/known` is what the store says of all of them, in memory.

use std::{sync::Arc, time::Duration};

use rcgen::Error as CertificateError;
use tokio::sync::{OnceCell, watch};

use crate::{
    api::auth::Tokens,
    clock::now_ms,
    store::{
        Store, StoreError,
        identity::{CertificateRow, RENEWABLE},
    },
    vault::{Vault, VaultError},
};

pub(crate) mod ca;
pub(crate) mod credential;
pub(crate) mod enrol;
pub(crate) mod guard;
mod known;

use ca::Ca;
use known::Known;

/// Between two looks at what other control planes have written.
const LOOK: Duration = Duration::from_secs(1);
/// Between two removals of what has expired long ago.
const SWEEP: Duration = Duration::from_hours(1);
/// A certificate is remembered for so long after its end.
const REMEMBERED: Duration = Duration::from_hours(31 * 24);

/// The identities of a fleet.
pub(crate) struct Identities {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tokens: Arc<Tokens>,
    vault: Arc<Vault>,
    ca: OnceCell<Arc<Ca>>,
    known: Known,
    /// How long a node's certificate is good.
    lifetime: Duration,
}

/// Something about certificates does not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the key of the fleet's CA: {0}")]
    Vault(#[from] VaultError),
    #[error("a certificate could not be made: {0}")]
    Make(#[from] CertificateError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the request (PKCS #10) cannot be used: {0}")]
    Csr(String),
    #[error("the certificate is not good: {0}")]
    Certificate(#[from] webpki::Error),
    #[error("the certificate names no node of this fleet")]
    NotOfANode,
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Identities {
    /// What the store knows.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        tokens: Arc<Tokens>,
        vault: Arc<Vault>,
        lifetime: Duration,
    ) -> Result<Self, StoreError> {
        let known = Known::default();
        known.refresh(&*store).await?;
        Ok(Self {
            store,
            tokens,
            vault,
            ca: OnceCell::new(),
            known,
            lifetime,
        })
    }

    /// The CA; made when it is needed first.
    pub(crate) async fn ca(&self) -> Result<&Arc<Ca>, IdentityError> {
        let open = async || Ca::open(&*self.store, &self.vault).await.map(Arc::new);
        self.ca.get_or_try_init(open).await
    }

    /// Seals the key of the CA under the first store key, where there is one that is
    /// sealed under another.
    pub(crate) async fn reseal(&self) -> Result<(), IdentityError> {
        if self.store.ca().await?.is_some() {
            self.ca().await?;
        }
        Ok(())
    }

    /// Until when the newest certificate of a node is good; `None`: it has none.
    pub(crate) fn expires_ms(&self, node_id: &str) -> Option<u64> {
        self.known.expires_ms(node_id)
    }

    /// Takes over what was written, here or by another control plane.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        self.known.refresh(&*self.store).await
    }

    /// A certificate as it is known; looks for one that is not.
    pub(crate) async fn find(&self, serial: &str) -> Result<Option<CertificateRow>, StoreError> {
        if let Some(row) = self.known.certificate(serial) {
            return Ok(Some(row));
        }
        // Another control plane may have signed it a moment ago.
        self.refresh().await?;
        Ok(self.known.certificate(serial))
    }

    /// Follows what others write and forgets what has expired long ago, until the
    /// control plane stops.
    pub(crate) async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sweeps = tokio::time::interval(SWEEP);
        let shared = self.store.shared().is_some();
        loop {
            let sweep = tokio::select! {
                _ = shutdown.wait_for(|down| *down) => return,
                _ = looks.tick(), if shared => false,
                _ = sweeps.tick() => true,
            };
            if sweep {
                self.sweep().await;
            } else {
                // What has failed is said by those who follow the configuration.
                let _ = self.refresh().await;
                self.tokens.refresh().await;
            }
        }
    }

    async fn sweep(&self) {
        let before = now_ms().saturating_sub(REMEMBERED.as_millis() as u64);
        if let Err(error) = self.store.forget_expired(before).await {
            tracing::warn!(%error, "old certificates could not be removed; trying again");
        }
        self.known.forget(now_ms());
    }
}

// What is forgotten can no longer be renewed.
const _: () = assert!(REMEMBERED.as_secs() > RENEWABLE.as_secs());
