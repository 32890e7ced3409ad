//! Catalogues on disk, beside the last good configuration: a data plane that starts while
//! a backend is down still lists what that offered.
//!
//! One file for each backend, named by the hash of its configuration as it is written: it
//! holds no resolved value, and so nothing of a secret. What was read is shown as stale
//! until the backend has answered. Files are written off the call path, a few at a time, and
//! go with their backends.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use fleet_proto::hash::Hash;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{About, List, Lists, State, discover, entries};
use crate::{backend::Backend, call::Era, node::Node, settings::Settings};

/// In the data directory.
const DIRECTORY: &str = "catalogues";
/// First line of a file, before the SHA-256 of all that follows.
const FORMAT: &str = "mcp-fleet catalogue 1 ";
/// Bytes of one file; a larger catalogue is not kept.
const LARGEST: u64 = 8 << 20;
/// How often it is looked for changes, and how many files are written then.
const LOOK: Duration = Duration::from_secs(3);
const FILES: usize = 500;

/// The files of one data directory.
pub(crate) struct Kept {
    directory: PathBuf,
}

/// What stands before the lists.
#[derive(Deserialize, Serialize)]
struct Head<'a> {
    modern: Option<bool>,
    #[serde(borrow)]
    capabilities: Option<&'a RawValue>,
    instructions: Option<String>,
    ttl_ms: Option<u64>,
    public: bool,
}

impl Kept {
    /// `None`: nothing is to be kept.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        let directory = settings.data_dir.as_ref().filter(|_| settings.last_good)?;
        Some(Self {
            directory: directory.join(DIRECTORY),
        })
    }

    /// What a backend of this configuration has offered.
    pub(crate) fn load(&self, name: Hash) -> Option<(About, Lists)> {
        let path = self.path(name);
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a kept catalogue cannot be read");
                return None;
            }
        };
        let decoded = decode(bytes);
        if decoded.is_none() {
            tracing::warn!(file = %path.display(), "a kept catalogue is damaged, or of another version");
        }
        decoded
    }

    fn path(&self, name: Hash) -> PathBuf {
        self.directory.join(name.to_string())
    }

    fn save(&self, name: Hash, about: &About, lists: &Lists) -> io::Result<()> {
        let bytes = encode(about, lists);
        if bytes.len() as u64 > LARGEST {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let path = self.path(name);
        let aside = path.with_extension("tmp");
        // One that was left behind: `create_new` follows no link.
        let _ = fs::remove_file(&aside);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&aside).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        let written = written.and_then(|()| fs::rename(&aside, &path));
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written
    }

    /// Removes what belongs to no backend any more.
    fn retain(&self, names: &HashSet<String>) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let known = entry
                .file_name()
                .to_str()
                .is_some_and(|n| names.contains(n));
            if !known {
                fs::remove_file(entry.path())?;
            }
        }
        File::open(&self.directory)?.sync_all()
    }
}

fn read(path: &Path) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// A JSON text behind a line with its checksum; entries are written as they came.
fn encode(about: &About, lists: &Lists) -> Vec<u8> {
    let head = Head {
        modern: about.era.map(|era| era == Era::Modern),
        capabilities: about.capabilities.as_deref(),
        instructions: about.instructions.clone(),
        ttl_ms: lists.ttl.map(|ttl| ttl.as_millis() as u64),
        public: lists.public,
    };
    // It has no map with keys that are no texts: this does not fail.
    let mut json = serde_json::to_vec(&head).unwrap_or_else(|_| b"{}".to_vec());
    json.pop();
    for (kind, items) in discover::KINDS.iter().zip(lists.all()) {
        json.extend_from_slice(format!(",\"{}\":[", kind.member).as_bytes());
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                json.push(b',');
            }
            json.extend_from_slice(item.json);
        }
        json.push(b']');
    }
    json.push(b'}');
    let mut bytes = format!("{FORMAT}{}\n", Hash::of(&json)).into_bytes();
    bytes.append(&mut json);
    bytes
}

fn decode(bytes: Bytes) -> Option<(About, Lists)> {
    let line = bytes.iter().position(|byte| *byte == b'\n')?;
    let checksum = std::str::from_utf8(&bytes[..line]).ok()?;
    let json = bytes.slice(line + 1..);
    if checksum.strip_prefix(FORMAT)? != Hash::of(&json).to_string() {
        return None;
    }
    let head: Head<'_> = serde_json::from_slice(&json).ok()?;
    let [tools, prompts, resources, templates] =
        discover::KINDS.map(|kind| entries::kept(kind, &json));
    let tools = tools?;
    let lists = Lists {
        params: discover::mirrored(&tools),
        tools,
        prompts: prompts?,
        resources: resources?,
        templates: templates?,
        ttl: head.ttl_ms.map(Duration::from_millis),
        public: head.public,
    };
    let era = |is_modern| {
        if is_modern { Era::Modern } else { Era::Legacy }
    };
    let about = About {
        era: head.modern.map(era),
        capabilities: head.capabilities.map(ToOwned::to_owned),
        instructions: head.instructions,
    };
    Some((about, lists))
}

impl Lists {
    /// In the order of [`discover::KINDS`].
    fn all(&self) -> [&List; 4] {
        [&self.tools, &self.prompts, &self.resources, &self.templates]
    }
}

/// What is on disk.
#[derive(Default)]
struct Written {
    /// By name; what was written last.
    lists: HashMap<Hash, Weak<Lists>>,
    epoch: Option<u64>,
    root: Option<Hash>,
    failing: bool,
}

/// Keeps what backends offer on disk, until the process ends.
pub(crate) async fn keep(node: Arc<Node>) {
    let mut written = Written::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let node = node.clone();
        let looked = tokio::task::spawn_blocking(move || {
            look(&node, &mut written);
            written
        });
        match looked.await {
            Ok(after) => written = after,
            Err(error) => {
                tracing::error!(%error, "catalogues are kept no longer");
                return;
            }
        }
    }
}

fn look(node: &Node, written: &mut Written) {
    let table = node.table.load_full();
    let Some(kept) = node.kept.as_ref().filter(|_| table.is_configured()) else {
        return;
    };
    let epoch = node.epoch.load(Ordering::Acquire);
    if (written.epoch, written.root) == (Some(epoch), table.root_hash) && !written.failing {
        return;
    }
    let mut left = FILES;
    let mut saved = Ok(());
    let mut names = HashSet::new();
    for (_, backend) in table.backends() {
        names.insert(backend.runtime.to_string());
        if left > 0 && saved.is_ok() {
            saved = save(kept, backend, written).map(|wrote| left -= usize::from(wrote));
        }
    }
    let kept_names = |name: &Hash| names.contains(&name.to_string());
    written.lists.retain(|name, _| kept_names(name));
    let done = saved.and_then(|()| kept.retain(&names));
    if let Err(error) = &done
        && !written.failing
    {
        let directory = kept.directory.display();
        tracing::error!(%directory, %error, "what backends offer could not be kept on disk");
    }
    written.failing = done.is_err();
    // Where there was more to write, the next look goes on.
    written.epoch = (left > 0).then_some(epoch);
    written.root = table.root_hash;
}

/// Whether there was something to write.
fn save(kept: &Kept, backend: &Backend, written: &mut Written) -> io::Result<bool> {
    let now = backend.catalog.snapshot();
    let last = written.lists.get(&backend.runtime);
    let is_same = last.is_some_and(|last| last.as_ptr() == Arc::as_ptr(&now.lists));
    if now.state != State::Fresh || is_same {
        return Ok(false);
    }
    kept.save(backend.runtime, &now.about, &now.lists)?;
    let lists = Arc::downgrade(&now.lists);
    written.lists.insert(backend.runtime, lists);
    Ok(true)
}

#[cfg(test)]
mod tests;
