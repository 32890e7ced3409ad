//! The context file: which control planes and gateways `mcpctl` knows by name,
//! and which of them it speaks to when the command line does not say.
//! `mcpctl up` and `mcpctl login` write it. It holds tokens, so it is 0600 and
//! refused when others can read it.
//!
//! The chosen context stands at the top of the file and the others below
//! `contexts`, so that a file of a single context is simply that context.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Names the context file; wins over the default place.
pub(crate) const PATH_VARIABLE: &str = "MCP_FLEET_CONTEXT";

/// The name of a context that was written without one.
pub(crate) const UNNAMED: &str = "default";

/// A control plane, and a gateway of it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Context {
    /// gRPC address of the control plane.
    pub(crate) control_plane: Option<String>,
    /// Token of that control plane, and of no other.
    pub(crate) admin_token: Option<String>,
    /// The authorities (PEM) that the control plane's certificate may come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
    /// The token may cross the network unencrypted: it was said so at the login.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) insecure: bool,
    /// MCP endpoint of a gateway.
    pub(crate) gateway: Option<String>,
}

/// Without the token.
impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("control_plane", &self.control_plane)
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

/// All contexts of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contexts {
    /// The name of the chosen one.
    current: Option<String>,
    all: BTreeMap<String, Context>,
}

/// The form of the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct OnDisk {
    /// Name of the context at the top.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(flatten)]
    current: Context,
    /// The others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    contexts: BTreeMap<String, Context>,
}

impl Contexts {
    /// The name of the chosen context.
    pub(crate) fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// A context by its name; without a name the chosen one.
    pub(crate) fn get(&self, name: Option<&str>) -> Option<(&str, &Context)> {
        let (name, context) = self.all.get_key_value(name.or(self.current())?)?;
        Some((name, context))
    }

    /// All of them in order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Context)> {
        self.all
            .iter()
            .map(|(name, context)| (name.as_str(), context))
    }

    /// Adds or replaces a context, and chooses it.
    pub(crate) fn put(&mut self, name: &str, context: Context) {
        self.all.insert(name.to_owned(), context);
        self.current = Some(name.to_owned());
    }

    /// Chooses a context; `false`: there is no such.
    pub(crate) fn choose(&mut self, name: &str) -> bool {
        let known = self.all.contains_key(name);
        if known {
            self.current = Some(name.to_owned());
        }
        known
    }

    /// Forgets a context; `false`: there is no such.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        if self.current() == Some(name) {
            self.current = None;
        }
        self.all.remove(name).is_some()
    }
}

impl From<OnDisk> for Contexts {
    fn from(file: OnDisk) -> Self {
        let mut contexts = Self {
            current: None,
            all: file.contexts,
        };
        if file.current != Context::default() || file.name.is_some() {
            contexts.put(file.name.as_deref().unwrap_or(UNNAMED), file.current);
        }
        contexts
    }
}

impl From<&Contexts> for OnDisk {
    fn from(contexts: &Contexts) -> Self {
        let mut others = contexts.all.clone();
        let name = contexts.current.clone();
        let current = name.as_ref().and_then(|name| others.remove(name));
        Self {
            name,
            current: current.unwrap_or_default(),
            contexts: others,
        }
    }
}

/// Why a context file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    /// Others can read the token.
    #[error("{} holds a token and can be read by others (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not what `mcpctl` writes.
    #[error("{} is not a context file: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the context file is: `$MCP_FLEET_CONTEXT`, else
/// `$XDG_CONFIG_HOME/mcp-fleet/context.json`, else below `~/.config`.
/// `None` without any of these variables.
pub(crate) fn path() -> Option<PathBuf> {
    path_from(|name| std::env::var_os(name))
}

fn path_from(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = set(PATH_VARIABLE) {
        return Some(path);
    }
    // The XDG specification says to ignore relative paths.
    let base = set("XDG_CONFIG_HOME")
        .filter(|p| p.is_absolute())
        .or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(base.join("mcp-fleet").join("context.json"))
}

/// Reads a context file; without one there are no contexts.
///
/// # Errors
/// Others can read it, it cannot be read, or it is not a context file.
pub(crate) fn load(path: &Path) -> Result<Contexts, ContextError> {
    let fail = |source| ContextError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Contexts::default());
        }
        Err(e) => return Err(fail(e)),
    };
    // Of the open file, so that it cannot be swapped in between.
    let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ContextError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(fail)?;
    serde_json::from_str::<OnDisk>(&text)
        .map(Contexts::from)
        .map_err(|source| ContextError::Malformed {
            path: path.to_owned(),
            source,
        })
}

/// Writes a context file whole or not at all, readable by its owner only.
///
/// # Errors
/// It cannot be written.
pub(crate) fn save(path: &Path, contexts: &Contexts) -> Result<(), ContextError> {
    let file = OnDisk::from(contexts);
    let mut text = serde_json::to_string_pretty(&file).expect("strings serialise");
    text.push('\n');
    write_private(path, text.as_bytes()).map_err(|source| ContextError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Makes a directory, and those above it, for its owner only. One that exists
/// stays as it is.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file (0600) beside its place and moves it there.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    private_dir(dir)?;
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".{}", std::process::id()));
    let temporary = dir.join(name);
    // A file left by a killed process of the same id.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests;
