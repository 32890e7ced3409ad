//! Secrets, session keys, revocations and peers on disk, beside the last good configuration.
//!
//! With a state key all of them, sealed (XChaCha20-Poly1305); without one only
//! revocations, which hold hashes (a restart must not revive a token), and peers, which
//! are no secret. A file is
//! written aside, synced and renamed, so that there is an old one or a new one. One
//! that cannot be used is not passed over: what is revoked is unknown then.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use fleet_proto::{
    hash::Hash,
    v1::{SetKind, SetPart},
};
use prost::Message;

use crate::sealed;

#[cfg(test)]
mod tests;

/// First line of a sealed file; another version has another number.
const SEALED: &[u8] = b"mcp-fleet sealed sets 1\n";
/// First line of one that is not.
const PLAIN: &[u8] = b"mcp-fleet revocations 1\n";
const SEALED_NAME: &str = "sets.sealed";
const PLAIN_NAME: &str = "revocations";
const NONCE: usize = 24;

/// The file of one data directory.
pub struct KeptSets {
    directory: PathBuf,
    /// The first seals, each opens; none: nothing secret is kept.
    keys: Vec<XChaCha20Poly1305>,
}

/// What is kept.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Kept {
    /// The sets as they came, one part each.
    #[prost(message, repeated, tag = "1")]
    pub(super) sets: Vec<SetPart>,
    /// SHA-256 of the session keys, also where these are not kept: whether all of them
    /// were replaced is to be known after a restart.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) ring: Vec<Vec<u8>>,
}

impl Kept {
    /// The set of this kind.
    pub(super) fn set(&self, kind: SetKind) -> Option<&SetPart> {
        let of = |part: &&SetPart| part.version.as_ref().is_some_and(|v| v.set() == kind);
        self.sets.iter().find(of)
    }

    /// Keeps this set instead of the one of its kind.
    pub(super) fn put(&mut self, set: SetPart) {
        let kind = set.version.as_ref().map(|version| version.set);
        self.sets
            .retain(|other| other.version.as_ref().map(|version| version.set) != kind);
        self.sets.push(set);
    }
}

impl KeptSets {
    /// In this directory, under the keys in a file.
    ///
    /// # Errors
    /// The key file cannot be used; the text does not hold what is in it.
    pub fn new(directory: &Path, state_key: Option<&Path>) -> Result<Self, String> {
        Ok(Self {
            directory: directory.to_owned(),
            keys: state_key.map(read_keys).transpose()?.unwrap_or_default(),
        })
    }

    /// Whether secrets and session keys are kept.
    pub fn keeps_secrets(&self) -> bool {
        !self.keys.is_empty()
    }

    /// What is kept; nothing, where there is no file.
    ///
    /// # Errors
    /// What is there cannot be used.
    pub(super) fn load(&self) -> Result<Kept, String> {
        let mut found = Kept::default();
        // One of the two is there, unless a change from one to the other was cut off.
        for name in [PLAIN_NAME, SEALED_NAME] {
            let path = self.directory.join(name);
            let bytes = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(error.to_string()),
                Ok(bytes) => Ok(bytes),
            };
            let kept = bytes.and_then(|bytes| self.read(&bytes));
            let kept = kept.map_err(|why| format!("{}: {why}", path.display()))?;
            kept.sets.into_iter().for_each(|set| found.put(set));
            found.ring = kept.ring;
        }
        Ok(found)
    }

    fn read(&self, bytes: &[u8]) -> Result<Kept, String> {
        let damaged = "it is damaged";
        let body = if let Some(rest) = bytes.strip_prefix(SEALED) {
            if self.keys.is_empty() {
                return Err("it is sealed: give the key with --state-key".to_owned());
            }
            let (nonce, msg) = rest.split_first_chunk::<NONCE>().ok_or(damaged)?;
            let open = |key: &XChaCha20Poly1305| {
                let payload = Payload { msg, aad: SEALED };
                key.decrypt(&XNonce::from(*nonce), payload).ok()
            };
            let opened = self.keys.iter().find_map(open);
            opened.ok_or(
                "it does not open under the state key: that is another one, or the file is damaged",
            )?
        } else if let Some(rest) = bytes.strip_prefix(PLAIN) {
            let (body, checksum) = rest.split_last_chunk::<32>().ok_or(damaged)?;
            if Hash::of(body) != Hash(*checksum) {
                return Err("it is damaged: its checksum does not match".to_owned());
            }
            body.to_vec()
        } else {
            return Err("it was written by another version, or is damaged".to_owned());
        };
        Kept::decode(body.as_slice()).map_err(|error| format!("it cannot be decoded: {error}"))
    }

    /// Keeps this from now on: without a state key, what is no secret.
    pub(super) fn save(&self, kept: &Kept) -> io::Result<()> {
        let (name, other, bytes) = match self.keys.first() {
            Some(key) => (SEALED_NAME, PLAIN_NAME, seal(key, kept)?),
            None => (PLAIN_NAME, SEALED_NAME, plain(kept)),
        };
        let aside = self.directory.join(format!("{name}.tmp"));
        gone(fs::remove_file(&aside))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)?;
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_all()) {
            // Half a file on a full disk is of no use.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        fs::rename(&aside, self.directory.join(name))?;
        // After the new one is there: nothing is ever without revocations.
        gone(fs::remove_file(self.directory.join(other)))?;
        File::open(&self.directory)?.sync_all()
    }
}

/// What is not there need not be removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn seal(key: &XChaCha20Poly1305, kept: &Kept) -> io::Result<Vec<u8>> {
    let nonce = sealed::random::<NONCE>()?;
    let payload = Payload {
        msg: &kept.encode_to_vec(),
        aad: SEALED,
    };
    let sealed = key.encrypt(&XNonce::from(nonce), payload);
    let sealed = sealed.map_err(|_| io::Error::other("it could not be sealed"))?;
    Ok([SEALED, &nonce, &sealed].concat())
}

fn plain(kept: &Kept) -> Vec<u8> {
    let public = [SetKind::Revocations, SetKind::Peers];
    let public = Kept {
        sets: public
            .into_iter()
            .filter_map(|kind| kept.set(kind).cloned())
            .collect(),
        ring: kept.ring.clone(),
    };
    let body = public.encode_to_vec();
    [PLAIN, &body, &Hash::of(&body).0].concat()
}

fn read_keys(path: &Path) -> Result<Vec<XChaCha20Poly1305>, String> {
    let text = fs::read_to_string(path).map_err(|e| {
        format!("{e}: make one with `openssl rand -hex 32`, readable by its owner only")
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let key = |line: &str| {
        let mut key = [0; 32];
        hex::decode_to_slice(line, &mut key).ok()?;
        Some(XChaCha20Poly1305::new((&key).into()))
    };
    let keys: Option<Vec<_>> = lines.map(key).collect();
    keys.filter(|keys| !keys.is_empty()).ok_or_else(|| {
        "it is no key: it must be 64 hex digits, or several such lines, of which the first seals"
            .to_owned()
    })
}
