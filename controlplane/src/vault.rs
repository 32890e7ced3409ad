//! [`Vault`]: what is in the database and must not be readable there.
//!
//! XChaCha20-Poly1305 under the store key, which is never in the database. The
//! associated data says what a sealed value is and whose: one that is moved to
//! another place does not open there. Layout: the id of the key, the nonce, the
//! sealed bytes. `vault/key` finds the key; [`Vault::prove`] sees to it that a wrong
//! one ends the start.

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::store::{Store, StoreError};

mod key;
#[cfg(test)]
mod tests;

pub use key::StoreKey;
pub(crate) use key::find;

const NONCE: usize = 24;
/// What the check value is, and what is in it.
const CHECK: &[&str] = &["vault", "check"];
const CHECKED: &[u8] = b"mcp-fleet store key";

/// The store keys: the first seals, each opens.
pub(crate) struct Vault {
    keys: Vec<Key>,
}

struct Key {
    /// First byte of what it seals, so that the right key is tried.
    id: u8,
    cipher: XChaCha20Poly1305,
}

/// A sealed value does not open, or none can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VaultError {
    /// No key that is there has sealed it.
    #[error("it is sealed under a store key that was not given")]
    UnknownKey,
    /// It was changed, or is not what it is taken for.
    #[error("it does not open under the store key: it was damaged, or belongs elsewhere")]
    Damaged,
    /// The system gives no random numbers.
    #[error("it could not be sealed: the system gives no random numbers")]
    Seal,
}

/// The store key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreKeyError {
    /// A Postgres is shared, so its key is nobody's own.
    #[error(
        "a Postgres database needs a store key, the same one for all control planes that share it: make \
         one with `openssl rand -hex 32` and give it with --store-key FILE or MCP_FLEET_STORE_KEY"
    )]
    None,
    /// It was given twice.
    #[error("the store key is given twice: give --store-key FILE or MCP_FLEET_STORE_KEY, not both")]
    Twice,
    /// Its file cannot be read or made.
    #[error("the store key in {path}: {reason}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        reason: std::io::Error,
    },
    /// It is no key.
    #[error("the store key in {place} is none: it must be 64 hex digits, or several such lines")]
    Text {
        /// Where it is: never what it is.
        place: String,
    },
    /// The database was sealed under one that has been lost.
    #[error(
        "database {database} is sealed under a store key, and there is none in {path}: put the file back, \
         or give the key with --store-key FILE or MCP_FLEET_STORE_KEY"
    )]
    Lost {
        /// The database.
        database: String,
        /// Where the key was looked for.
        path: std::path::PathBuf,
    },
    /// The database was sealed under another one.
    #[error(
        "the store key is not the one of database {database}: give the key it was sealed under (a new key \
         is put before the old one, which stays until all is sealed anew)"
    )]
    Wrong {
        /// The database.
        database: String,
    },
    /// It cannot be proved.
    #[error("{0}")]
    Store(String),
}

impl From<StoreError> for StoreKeyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl Vault {
    /// A vault with these keys, of which there must be one.
    pub(crate) fn of(keys: &[Zeroizing<[u8; 32]>]) -> Self {
        let keys = keys.iter().map(|key| Key {
            id: Sha256::digest(key.as_slice())[0],
            cipher: XChaCha20Poly1305::new((&**key).into()),
        });
        Self {
            keys: keys.collect(),
        }
    }

    /// Seals `plain`. `about`: what it is, and all that tells it from others of its
    /// kind.
    pub(crate) fn seal(&self, about: &[&str], plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let key = self.keys.first().ok_or(VaultError::UnknownKey)?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::Seal)?;
        let payload = Payload {
            msg: plain,
            aad: &bytes(about),
        };
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| VaultError::Seal)?;
        Ok([&[key.id][..], &nonce, &sealed].concat())
    }

    /// Opens what [`seal`](Self::seal) has made of the same `about`.
    pub(crate) fn open(
        &self,
        about: &[&str],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.opened(about, sealed).map(|(_, plain)| plain)
    }

    /// Seals anew what another key than the first has sealed. `None`: the first has.
    pub(crate) fn renew(
        &self,
        about: &[&str],
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, VaultError> {
        match self.opened(about, sealed)? {
            (0, _) => Ok(None),
            (_, plain) => self.seal(about, &plain).map(Some),
        }
    }

    /// The number of the key that has sealed it, and what it has.
    fn opened(
        &self,
        about: &[&str],
        sealed: &[u8],
    ) -> Result<(usize, Zeroizing<Vec<u8>>), VaultError> {
        let (&id, rest) = sealed.split_first().ok_or(VaultError::Damaged)?;
        let (nonce, msg) = rest
            .split_first_chunk::<NONCE>()
            .ok_or(VaultError::Damaged)?;
        let aad = bytes(about);
        let mut found = VaultError::UnknownKey;
        for (number, key) in self.keys.iter().enumerate() {
            if key.id != id {
                continue;
            }
            let payload = Payload { msg, aad: &aad };
            match key.cipher.decrypt(&XNonce::from(*nonce), payload) {
                Ok(plain) => return Ok((number, Zeroizing::new(plain))),
                Err(_) => found = VaultError::Damaged,
            }
        }
        Err(found)
    }

    /// Sees to it that the keys are those of the database; the first ones that come
    /// are.
    pub(crate) async fn prove(
        &self,
        store: &dyn Store,
        database: &str,
    ) -> Result<(), StoreKeyError> {
        let failed = |error: VaultError| StoreKeyError::Store(error.to_string());
        let kept = match store.vault_check().await? {
            Some(kept) => kept,
            // Of control planes that start at once, one makes it.
            None => {
                let made = self.seal(CHECK, CHECKED).map_err(failed)?;
                store.add_vault_check(made).await?
            }
        };
        match self.open(CHECK, &kept) {
            Ok(plain) if *plain == CHECKED => Ok(()),
            _ => Err(StoreKeyError::Wrong {
                database: database.to_owned(),
            }),
        }
    }

    /// Seals the check value under the first key. Only after everything else is:
    /// then the keys after the first may be taken away.
    pub(crate) async fn finish_rotation(&self, store: &dyn Store) -> Result<(), StoreKeyError> {
        let Some(kept) = store.vault_check().await? else {
            return Ok(());
        };
        let renewed = self.renew(CHECK, &kept);
        let renewed = renewed.map_err(|error| StoreKeyError::Store(error.to_string()))?;
        if let Some(renewed) = renewed {
            store.put_vault_check(renewed).await?;
            tracing::info!(
                "everything is sealed under the first store key: later ones may be removed"
            );
        }
        Ok(())
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

/// Lengths first: no two lists give the same bytes.
fn bytes(parts: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    for part in parts {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
    out
}
