//! [`Sealed`]: what is handed to a client and trusted when it comes back.
//!
//! XChaCha20-Poly1305 under the fleet's key ring. The associated data binds a
//! token to its purpose, gateway and principal: another principal's token does
//! not open. Expiry is inside, so that it cannot be changed.

pub mod scope;

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const NONCE: usize = 24;

/// What a token is for and to whom it belongs.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// Such as `session`.
    pub purpose: &'a str,
    /// Project and name of the gateway.
    pub gateway: &'a str,
    /// [`Principal::id`](crate::auth::Principal::id).
    pub principal: &'a str,
}

impl Binding<'_> {
    /// Lengths first: no two bindings give the same bytes.
    fn bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        for part in [self.purpose, self.gateway, self.principal] {
            out.extend_from_slice(&(part.len() as u64).to_be_bytes());
            out.extend_from_slice(part.as_bytes());
        }
        out
    }
}

/// A value with an expiry, as it is inside a token.
#[derive(Debug, Deserialize, Serialize)]
pub struct Sealed<T> {
    /// Seconds since 1970-01-01 UTC.
    #[serde(rename = "x")]
    pub expires: u64,
    /// The value.
    #[serde(rename = "v")]
    pub value: T,
}

/// The keys, the newest first: the first whose time has come seals, each opens. A key
/// is rotated out without a logout by putting a new one before it.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    /// First byte of a token, so that the right key is tried.
    id: u8,
    cipher: XChaCha20Poly1305,
    /// In milliseconds; `None`: it only opens.
    seals_from_ms: Option<u64>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

impl KeyRing {
    /// A ring of one new random key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn random() -> io::Result<Self> {
        Ok(Self::of(&[random::<32>()?]))
    }

    /// A ring of these keys.
    #[must_use]
    pub fn of(keys: &[[u8; 32]]) -> Self {
        Self::timed(keys.iter().map(|key| (*key, 0)))
    }

    /// A ring of these keys, the newest first, each of which seals from its time on
    /// (milliseconds since 1970-01-01 UTC).
    #[must_use]
    pub fn timed(keys: impl IntoIterator<Item = ([u8; 32], u64)>) -> Self {
        let keys = keys.into_iter().map(|(key, from)| Key {
            id: key_id(&key),
            cipher: XChaCha20Poly1305::new((&key).into()),
            seals_from_ms: Some(from),
        });
        Self {
            keys: keys.collect(),
        }
    }

    /// This ring, and keys of another one that only open.
    #[must_use]
    pub fn opening(mut self, other: &Self) -> Self {
        self.keys.extend(other.keys.iter().cloned().map(|key| Key {
            seals_from_ms: None,
            ..key
        }));
        self
    }

    /// The newest key whose time has come. Where the clock says that it has for none,
    /// the oldest: the others have it for the longest.
    fn sealing(&self) -> Option<&Key> {
        let now = now().as_millis();
        let mut sealing = self.keys.iter().filter(|key| key.seals_from_ms.is_some());
        let due = |key: &&Key| {
            key.seals_from_ms
                .is_some_and(|from| u128::from(from) <= now)
        };
        sealing.clone().find(due).or_else(|| sealing.next_back())
    }

    /// The ring kept in this directory (`session.key`, 64 hex digits a line);
    /// made there, readable by its owner only, when there is none.
    ///
    /// # Errors
    /// The file cannot be read or made, or is not a key file.
    pub fn kept_in(directory: &Path) -> io::Result<Self> {
        let path = directory.join("session.key");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let keys: Option<Vec<_>> = text.lines().map(parse_key).collect();
                keys.filter(|keys| !keys.is_empty()).map(|keys| Self::of(&keys)).ok_or_else(|| {
                    let what = format!(
                        "{} is not a key file (64 hex digits a line); remove it to have a new one made, \
                         which ends all sessions",
                        path.display()
                    );
                    io::Error::new(io::ErrorKind::InvalidData, what)
                })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let key = random::<32>()?;
                write_private(&path, hex::encode(key).as_bytes())?;
                Ok(Self::of(&[key]))
            }
            Err(e) => Err(e),
        }
    }

    /// As [`kept_in`](Self::kept_in), with a new key instead of what is there.
    ///
    /// # Errors
    /// The file cannot be replaced.
    pub fn anew_in(directory: &Path) -> io::Result<Self> {
        match fs::remove_file(directory.join("session.key")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Self::kept_in(directory),
        }
    }

    /// Seals a value for `lifetime`.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn seal<T: Serialize>(
        &self,
        value: T,
        lifetime: Duration,
        binding: Binding<'_>,
    ) -> io::Result<String> {
        let expires = now().as_secs() + lifetime.as_secs();
        let text = serde_json::to_vec(&Sealed { expires, value })?;
        let nonce = random::<NONCE>()?;
        let key = self
            .sealing()
            .ok_or_else(|| io::Error::other("there is no key to seal with"))?;
        let sealed = key
            .cipher
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: &text,
                    aad: &binding.bytes(),
                },
            )
            .map_err(|_| io::Error::other("a token could not be sealed"))?;
        let mut token = Vec::with_capacity(1 + NONCE + sealed.len());
        token.push(key.id);
        token.extend_from_slice(&nonce);
        token.extend_from_slice(&sealed);
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// Opens a token: `None` if it is not ours, not for this binding, or over.
    #[must_use]
    pub fn open<T: DeserializeOwned>(
        &self,
        token: &str,
        binding: Binding<'_>,
    ) -> Option<Sealed<T>> {
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (&id, rest) = token.split_first()?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        let nonce: [u8; NONCE] = nonce.try_into().ok()?;
        let aad = binding.bytes();
        let text = self
            .keys
            .iter()
            .filter(|key| key.id == id)
            .find_map(|key| {
                key.cipher
                    .decrypt(
                        &XNonce::from(nonce),
                        Payload {
                            msg: sealed,
                            aad: &aad,
                        },
                    )
                    .ok()
            })?;
        let value: Sealed<T> = serde_json::from_slice(&text).ok()?;
        (value.expires > now().as_secs()).then_some(value)
    }
}

fn key_id(key: &[u8; 32]) -> u8 {
    use sha2::{Digest, Sha256};
    Sha256::digest(key)[0]
}

fn parse_key(line: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    hex::decode_to_slice(line.trim(), &mut key).ok()?;
    Some(key)
}

/// Random bytes of the system.
///
/// # Errors
/// The system has none.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Time since 1970-01-01 UTC.
#[must_use]
pub fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // A part of it, as a full disk leaves, would be in the way of every later start.
        let _ = fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: Binding<'static> = Binding {
        purpose: "session",
        gateway: "default/a",
        principal: "bearer:1",
    };

    #[test]
    fn a_token_opens_for_its_own_binding_only() {
        let ring = KeyRing::random().unwrap();
        let token = ring.seal("hello", Duration::from_secs(60), MINE).unwrap();
        assert_eq!(ring.open::<String>(&token, MINE).unwrap().value, "hello");
        for other in [
            Binding {
                purpose: "state",
                ..MINE
            },
            Binding {
                gateway: "default/b",
                ..MINE
            },
            Binding {
                principal: "bearer:2",
                ..MINE
            },
        ] {
            assert!(ring.open::<String>(&token, other).is_none());
        }
    }

    #[test]
    fn changed_expired_and_foreign_tokens_do_not_open() {
        let ring = KeyRing::random().unwrap();
        let token = ring.seal("hello", Duration::from_secs(60), MINE).unwrap();
        let mut changed = token.clone().into_bytes();
        let last = changed.len() - 3;
        changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
        assert!(
            ring.open::<String>(std::str::from_utf8(&changed).unwrap(), MINE)
                .is_none()
        );
        assert!(
            KeyRing::random()
                .unwrap()
                .open::<String>(&token, MINE)
                .is_none()
        );
        let over = ring.seal("hello", Duration::ZERO, MINE).unwrap();
        assert!(ring.open::<String>(&over, MINE).is_none());
        assert!(ring.open::<String>("", MINE).is_none());
    }

    #[test]
    fn the_newest_key_whose_time_has_come_seals() {
        let (newest, new, old, own) = ([4; 32], [3; 32], [2; 32], [1; 32]);
        let later = u64::try_from(now().as_millis()).unwrap() + 60_000;
        let own = KeyRing::of(&[own]);
        let ring = KeyRing::timed([(newest, later), (new, 1), (old, 0)]).opening(&own);
        let opens =
            |key: [u8; 32], token: &str| KeyRing::of(&[key]).open::<u8>(token, MINE).is_some();
        let token = ring.seal(1, Duration::from_secs(60), MINE).unwrap();
        assert!(opens(new, &token) && !opens(newest, &token) && !opens(old, &token));
        let by_own = own.seal(1, Duration::from_secs(60), MINE).unwrap();
        assert!(ring.open::<u8>(&by_own, MINE).is_some());
        // The clock is behind.
        let ring = KeyRing::timed([(newest, later + 1), (new, later)]).opening(&own);
        let token = ring.seal(1, Duration::from_secs(60), MINE).unwrap();
        assert!(opens(new, &token));
    }

    #[test]
    fn a_rotated_key_still_opens_and_a_kept_one_survives_a_restart() {
        let (old, new) = ([1; 32], [2; 32]);
        let token = KeyRing::of(&[old])
            .seal(1, Duration::from_secs(60), MINE)
            .unwrap();
        assert!(KeyRing::of(&[new, old]).open::<u8>(&token, MINE).is_some());
        let dir = tempfile::tempdir().unwrap();
        let token = KeyRing::kept_in(dir.path())
            .unwrap()
            .seal(1, Duration::from_secs(60), MINE)
            .unwrap();
        assert!(
            KeyRing::kept_in(dir.path())
                .unwrap()
                .open::<u8>(&token, MINE)
                .is_some()
        );
    }
}
