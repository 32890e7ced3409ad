//! Where the store key comes from: a file, the environment, or, for SQLite, a file
//! beside the database that the first start makes.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{StoreKeyError, Vault};
use crate::settings::Database;

/// Bits of a file's mode that let everybody read or write it.
const EVERYBODY: u32 = 0o006;

/// Where the store key is.
#[derive(Clone)]
pub enum StoreKey {
    /// In a file: 64 hex digits a line, the first line seals.
    File(PathBuf),
    /// The text of such a file.
    Text(Zeroizing<String>),
}

impl StoreKey {
    /// The store key in these places, of which one may be given.
    ///
    /// # Errors
    /// Both are.
    pub fn given(
        file: Option<PathBuf>,
        text: Option<String>,
    ) -> Result<Option<Self>, StoreKeyError> {
        match (file, text) {
            (Some(_), Some(_)) => Err(StoreKeyError::Twice),
            (Some(file), None) => Ok(Some(Self::File(file))),
            (None, text) => Ok(text.map(|text| Self::Text(Zeroizing::new(text)))),
        }
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Text(_) => f.write_str("(not shown)"),
        }
    }
}

/// The vault of a database. `is_sealed`: something in it has been sealed, so that no
/// new key is made for it.
pub(crate) fn find(
    given: Option<&StoreKey>,
    database: &Database,
    is_sealed: bool,
) -> Result<Vault, StoreKeyError> {
    match (given, database) {
        (Some(StoreKey::Text(text)), _) => parse(text, "MCP_FLEET_STORE_KEY"),
        (Some(StoreKey::File(path)), _) => read(path),
        (None, Database::Postgres(_)) => Err(StoreKeyError::None),
        (None, Database::Sqlite(file)) => beside(file, is_sealed),
    }
}

/// Where the key of a SQLite file is that was given none.
pub(super) fn key_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".key");
    PathBuf::from(path)
}

fn beside(database: &Path, is_sealed: bool) -> Result<Vault, StoreKeyError> {
    let path = key_path(database);
    match path.try_exists() {
        Ok(true) => return read(&path),
        Ok(false) => {}
        Err(reason) => return Err(StoreKeyError::File { path, reason }),
    }
    if is_sealed {
        return Err(StoreKeyError::Lost {
            database: database.display().to_string(),
            path,
        });
    }
    let made = make(&path);
    made.map_err(|reason| StoreKeyError::File {
        path: path.clone(),
        reason,
    })?;
    tracing::info!(
        path = %path.display(),
        "made a store key: a backup of the database is of use with this file only; keep both, apart"
    );
    read(&path)
}

/// Whole or not at all. Nobody else is at work here: the database is locked.
fn make(path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut_slice()).map_err(io::Error::other)?;
    let text = Zeroizing::new(hex::encode(key.as_slice()) + "\n");
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn read(path: &Path) -> Result<Vault, StoreKeyError> {
    let failed = |reason| StoreKeyError::File {
        path: path.to_owned(),
        reason,
    };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & EVERYBODY != 0 {
        tracing::warn!(
            path = %path.display(),
            "everybody on this machine can read the store key: take that away (chmod 600)"
        );
    }
    parse(&text, &path.display().to_string())
}

fn parse(text: &str, place: &str) -> Result<Vault, StoreKeyError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let key = |line: &str| {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(line, key.as_mut_slice()).ok()?;
        Some(key)
    };
    let keys: Option<Vec<_>> = lines.map(key).collect();
    match keys {
        Some(keys) if !keys.is_empty() => Ok(Vault::of(&keys)),
        _ => Err(StoreKeyError::Text {
            place: place.to_owned(),
        }),
    }
}
