//! Where `up` keeps things: the data directory, its lock, what the file declared
//! last time, and the context file.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use fleet_proto::{key::Key, v1::ResourceKey};

use crate::{context, failure::Failure};

/// The places of one `up`; the directory is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Places {
    dir: PathBuf,
    context: PathBuf,
    /// The context is in the data directory, where nobody looks by default.
    context_is_hidden: bool,
    _lock: File,
}

impl Places {
    /// Makes and locks the data directory.
    ///
    /// # Errors
    /// There is no place for it, it cannot be made, or another `up` has it.
    pub(crate) fn open(given: Option<PathBuf>) -> Result<Self, Failure> {
        let dir = match given.or_else(|| default_dir(|name| env::var_os(name))) {
            Some(dir) => dir,
            None => {
                return Err(Failure::Usage(
                    "HOME is not set, so there is no place for the data: name one with --data-dir DIR".to_owned(),
                ));
            }
        };
        let cannot = |what: &str, e: &io::Error| {
            Failure::other(format!(
                "cannot {what} the data directory {}: {e}; name another with --data-dir",
                dir.display()
            ))
        };
        let dir = std::path::absolute(&dir).map_err(|e| cannot("find", &e))?;
        context::private_dir(&dir).map_err(|e| cannot("make", &e))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(|e| cannot("write to", &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::other(format!(
                    "another `mcpctl up` uses {}: stop it, or name another place with --data-dir",
                    dir.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(cannot("lock", &e)),
        }
        let known = context::path();
        let context_is_hidden = known.is_none();
        let context = known.unwrap_or_else(|| dir.join("context.json"));
        Ok(Self {
            dir,
            context,
            context_is_hidden,
            _lock: lock,
        })
    }

    /// The data directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The SQLite file of the control plane.
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join("fleet.db")
    }

    /// The context file.
    pub(crate) fn context(&self) -> &Path {
        &self.context
    }

    /// Whether `mcpctl` would not find the context file by itself.
    pub(crate) fn context_is_hidden(&self) -> bool {
        self.context_is_hidden
    }

    /// The keys that files declared in earlier runs.
    pub(crate) fn declared(&self) -> Result<Vec<Key>, Failure> {
        let path = self.declared_path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => {
                return Err(Failure::other(format!(
                    "cannot read {}: {e}",
                    path.display()
                )));
            }
        };
        let keys: Vec<ResourceKey> = serde_json::from_slice(&text).map_err(|e| {
            Failure::other(format!("{} is damaged: {e}; remove it", path.display()))
        })?;
        Ok(keys.iter().filter_map(Key::from_wire).collect())
    }

    /// Remembers the keys that the file declares.
    pub(crate) fn declare<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a Key>,
    ) -> Result<(), Failure> {
        let keys: Vec<ResourceKey> = keys.into_iter().map(Key::to_wire).collect();
        let path = self.declared_path();
        serde_json::to_vec(&keys)
            .map_err(io::Error::other)
            .and_then(|text| context::write_private(&path, &text))
            .map_err(|e| Failure::other(format!("cannot write {}: {e}", path.display())))
    }

    fn declared_path(&self) -> PathBuf {
        self.dir.join("declared.json")
    }
}

fn default_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_DATA_HOME")
        .filter(|p| p.is_absolute())
        .or_else(|| Some(set("HOME")?.join(".local").join("share")))?;
    Some(base.join("mcp-fleet"))
}

#[cfg(test)]
mod tests {
    use fleet_proto::key::Kind;

    use super::*;

    #[test]
    fn a_second_up_in_the_same_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Places::open(Some(dir.path().join("data"))).unwrap();
        let error = Places::open(Some(dir.path().join("data"))).unwrap_err();
        assert!(error.to_string().contains("another `mcpctl up`"), "{error}");
        drop(first);
        Places::open(Some(dir.path().join("data"))).unwrap();
    }

    #[test]
    fn what_was_declared_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::open(Some(dir.path().to_owned())).unwrap();
        assert_eq!(places.declared().unwrap(), []);
        let keys = [
            Key::new("", Kind::Backend, "a"),
            Key::new("team", Kind::Gateway, "b"),
        ];
        places.declare(&keys).unwrap();
        assert_eq!(places.declared().unwrap(), keys);
    }

    #[test]
    fn without_a_home_there_is_no_default_place() {
        let place = |set: &[(&str, &str)]| {
            default_dir(|name| {
                set.iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| OsString::from(v))
            })
        };
        assert_eq!(place(&[]), None);
        assert_eq!(place(&[("HOME", "")]), None);
        assert_eq!(
            place(&[("HOME", "/h")]),
            Some(PathBuf::from("/h/.local/share/mcp-fleet"))
        );
        assert_eq!(
            place(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]),
            Some(PathBuf::from("/d/mcp-fleet"))
        );
    }
}
