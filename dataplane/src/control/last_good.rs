//! The last good configuration on disk, in two generations.
//!
//! A file is written aside, synced and renamed, and only after what it holds is
//! served. Its layout: a line that names format and version; a `Target`, then
//! every `EncodedResource`, each preceded by its length; the SHA-256 of all that.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fleet_proto::{
    hash::Hash,
    key::Key,
    v1::{EncodedResource, Target},
    validate::validate_encoded,
};
use parking_lot::Mutex;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::{sync::watch, time::timeout};

use super::Held;
use crate::{node::Node, table::compile::Version};

#[cfg(test)]
mod tests;

/// First line of a file; another version has another number.
const FORMAT: &[u8] = b"mcp-fleet last good 1\n";
/// Newest first.
const GENERATIONS: [&str; 2] = ["last-good.1", "last-good.2"];
const ASIDE: &str = "last-good.tmp";
const LOCK: &str = "last-good.lock";
/// How long until what could not be written is tried again: soon at first, since
/// the process before this one may be about to end; it doubles.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The files of one data directory.
pub(super) struct LastGood {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Held from the first write on: two writers would mix their files.
    lock: Option<File>,
    /// The newest file is damaged: the one before must not be lost to it.
    newest_is_bad: bool,
}

/// What was found on disk.
#[derive(Default)]
pub(super) struct Found {
    /// The newest one that can be used, and its generation.
    pub(super) newest: Option<(Held, usize)>,
    /// What is wrong with others.
    pub(super) problems: Vec<String>,
}

impl LastGood {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            state: Mutex::default(),
        }
    }

    /// The newest generation that is whole and valid.
    pub(super) fn load(&self) -> Found {
        let mut found = Found::default();
        for (generation, name) in GENERATIONS.into_iter().enumerate() {
            let path = self.directory.join(name);
            let read = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(error.to_string()),
                Ok(bytes) => read(&bytes),
            };
            match read {
                Ok(held) => {
                    found.newest = Some((held, generation));
                    break;
                }
                Err(why) => {
                    self.state.lock().newest_is_bad |= generation == 0;
                    found.problems.push(format!("{}: {why}", path.display()));
                }
            }
        }
        found
    }

    /// Makes this the newest generation.
    pub(super) fn save(&self, held: &Held) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.lock.is_none() {
            state.lock = Some(self.lock()?);
        }
        let path = |name| self.directory.join(name);
        let aside = path(ASIDE);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)?;
        if let Err(error) = write(held, &file).and_then(|()| file.sync_all()) {
            // Half a file on a full disk is of no use.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        let [newest, older] = GENERATIONS.map(path);
        if !state.newest_is_bad && newest.exists() {
            fs::rename(&newest, &older)?;
        }
        fs::rename(&aside, &newest)?;
        state.newest_is_bad = false;
        File::open(&self.directory)?.sync_all()
    }

    fn lock(&self) -> io::Result<File> {
        let file = File::create(self.directory.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another data plane uses the same data directory: give each its own",
            )),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn write(held: &Held, file: &File) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, file);
    let mut digest = Sha256::new();
    let mut part = FORMAT.to_vec();
    let mut put = |part: &mut Vec<u8>| {
        digest.update(&*part);
        out.write_all(part)?;
        part.clear();
        io::Result::Ok(())
    };
    put(&mut part)?;
    let target = Target {
        lineage: held.version.lineage.clone(),
        revision: held.version.revision,
        root_hash: held.set.root_hash().0.to_vec(),
    };
    target.encode_length_delimited(&mut part)?;
    put(&mut part)?;
    for (key, entry) in held.set.iter() {
        let resource = EncodedResource {
            key: Some(key.to_wire()),
            body: entry.body().to_vec(),
        };
        resource.encode_length_delimited(&mut part)?;
        put(&mut part)?;
    }
    out.write_all(&digest.finalize())?;
    out.flush()
}

/// The set in a file, checked as if it had just arrived.
fn read(bytes: &[u8]) -> Result<Held, String> {
    let kept = bytes
        .strip_prefix(FORMAT)
        .ok_or("it was written by another version, or is damaged")?;
    let damaged = "it is damaged: its checksum does not match";
    let (kept, checksum) = kept.split_last_chunk::<32>().ok_or(damaged)?;
    let checked = &bytes[..FORMAT.len() + kept.len()];
    if Hash::of(checked) != Hash(*checksum) {
        return Err(damaged.to_owned());
    }
    let unreadable = |error| format!("it cannot be decoded: {error}");
    let mut rest = kept;
    let target = Target::decode_length_delimited(&mut rest).map_err(unreadable)?;
    let mut resources = Vec::new();
    while !rest.is_empty() {
        let resource = EncodedResource::decode_length_delimited(&mut rest).map_err(unreadable)?;
        let key = resource.key.as_ref().and_then(Key::from_wire);
        let key = key.ok_or("it holds a resource of a kind that this version does not know")?;
        resources.push((key, resource.body));
    }
    let set = validate_encoded(resources).map_err(|problems| match problems.first() {
        Some(first) => format!("it does not fit this version: {first}"),
        None => "it does not fit this version".to_owned(),
    })?;
    if Hash::from_wire(&target.root_hash) != Some(set.root_hash()) {
        return Err("its root hash does not match its resources".to_owned());
    }
    let version = Version {
        lineage: target.lineage,
        revision: target.revision,
    };
    Ok(Held { version, set })
}

/// Writes what is applied, newest first, until nothing more will be. A disk that
/// does not take it stops nobody from being served.
pub(super) async fn keep(
    last_good: Arc<LastGood>,
    mut applied: watch::Receiver<Option<Held>>,
    node: Arc<Node>,
) {
    // What is there at the start is to be written as well.
    applied.mark_changed();
    let mut again: Option<Duration> = None;
    loop {
        let changed = match again {
            Some(again) => timeout(again, applied.changed()).await.unwrap_or(Ok(())),
            None => applied.changed().await,
        };
        if changed.is_err() {
            return;
        }
        let Some(held) = applied.borrow_and_update().clone() else {
            continue;
        };
        let revision = held.version.revision;
        let writer = last_good.clone();
        let written = tokio::task::spawn_blocking(move || writer.save(&held)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        node.control.saved(written.is_ok());
        again = written
            .is_err()
            .then(|| again.map_or(AGAIN.0, |again| (again * 2).min(AGAIN.1)));
        match written {
            Ok(()) => tracing::debug!(revision, "kept on disk"),
            Err(error) => tracing::error!(
                revision,
                directory = %last_good.directory.display(),
                %error,
                "what is served could not be kept on disk: a restart without a control plane \
                 would start with an older revision, or with none"
            ),
        }
    }
}
