//! The context file: which control plane and gateway `mcpctl` speaks to when
//! the command line does not say, and with which admin token. `mcpctl up` writes
//! it. It holds a secret, so it is 0600 and refused when others can read it.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Names the context file; wins over the default place.
pub(crate) const PATH_VARIABLE: &str = "MCP_FLEET_CONTEXT";

/// What a context file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Context {
    /// gRPC address of the control plane.
    pub(crate) control_plane: Option<String>,
    /// Admin token of that control plane, and of no other.
    pub(crate) admin_token: Option<String>,
    /// MCP endpoint of a gateway.
    pub(crate) gateway: Option<String>,
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

/// Reads a context file; `None` when there is none.
///
/// # Errors
/// Others can read it, it cannot be read, or it is not a context file.
pub(crate) fn load(path: &Path) -> Result<Option<Context>, ContextError> {
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
            return Ok(None);
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
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|source| ContextError::Malformed {
            path: path.to_owned(),
            source,
        })
}

/// Writes a context file whole or not at all, readable by its owner only.
///
/// # Errors
/// It cannot be written.
pub(crate) fn save(path: &Path, context: &Context) -> Result<(), ContextError> {
    let mut text = serde_json::to_string_pretty(context).expect("strings serialise");
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
mod tests {
    use super::*;

    fn full() -> Context {
        Context {
            control_plane: Some("http://127.0.0.1:8182".to_owned()),
            admin_token: Some("secret".to_owned()),
            gateway: Some("http://127.0.0.1:8080/mcp".to_owned()),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_saved_context_is_private_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/context.json");
        save(&path, &Context::default()).unwrap();
        save(&path, &full()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(full()));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_context_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("context.json");
        save(&path, &full()).unwrap();
        for bits in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            let error = load(&path).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn no_file_is_no_context() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(&dir.path().join("none.json")).unwrap(), None);
    }

    #[test]
    fn the_place_follows_the_environment() {
        let place = |set: &[(&str, &str)]| {
            path_from(|name| {
                set.iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| OsString::from(v))
            })
        };
        let at = |path: &str| Some(PathBuf::from(path));
        assert_eq!(
            place(&[("MCP_FLEET_CONTEXT", "/x.json"), ("HOME", "/h")]),
            at("/x.json")
        );
        assert_eq!(
            place(&[("XDG_CONFIG_HOME", "/c"), ("HOME", "/h")]),
            at("/c/mcp-fleet/context.json")
        );
        assert_eq!(
            place(&[("XDG_CONFIG_HOME", "c"), ("HOME", "/h")]),
            at("/h/.config/mcp-fleet/context.json")
        );
        assert_eq!(place(&[("HOME", "")]), None);
    }
}
