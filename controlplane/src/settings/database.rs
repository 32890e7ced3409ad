//! Which database: a SQLite file or a Postgres.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use sqlx::postgres::PgConnectOptions;

use super::SettingsError;

/// Where configuration is kept.
#[derive(Clone)]
pub enum Database {
    /// A SQLite file, used by one control plane; made when there is none.
    Sqlite(PathBuf),
    /// A Postgres database, shared by any number of control planes.
    Postgres(Postgres),
}

/// How a Postgres database is reached. Shown without its password.
#[derive(Clone)]
pub struct Postgres(Box<PgConnectOptions>);

impl Postgres {
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.0
    }
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.0;
        let host = match options.get_socket() {
            Some(folder) => folder.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        // Postgres takes the name of the user where none of a database is given.
        let database = options.get_database().unwrap_or(options.get_username());
        write!(f, "postgres://{}@{host}/{database}", options.get_username())
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(postgres) => postgres.fmt(f),
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PathBuf> for Database {
    fn from(path: PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl From<&Path> for Database {
    fn from(path: &Path) -> Self {
        Self::Sqlite(path.to_owned())
    }
}

impl FromStr for Database {
    type Err = SettingsError;

    /// A path, `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. What a
    /// Postgres URL leaves out comes from `PGPASSWORD`, `~/.pgpass` and the like, as it
    /// does for `psql`. Errors never repeat the text: it may hold a password.
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let wrong = |what: String| Err(SettingsError::Database { what });
        let (scheme, rest) = match text.split_once(':') {
            // A scheme has two letters or more, and no path before it (RFC 3986, 3.1).
            Some((scheme, rest))
                if scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) =>
            {
                (scheme, rest)
            }
            _ => ("sqlite", text),
        };
        match scheme {
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() || path == ":memory:" {
                    return wrong("names no file".to_owned());
                }
                if path.contains('?') {
                    return wrong("is a SQLite file with options: give the path only".to_owned());
                }
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            "postgres" | "postgresql" => match PgConnectOptions::from_str(text) {
                Ok(options) => Ok(Self::Postgres(Postgres(Box::new(
                    options.application_name("mcp-controlplane"),
                )))),
                Err(sqlx::Error::Configuration(reason)) => {
                    wrong(format!("is not a Postgres URL: {reason}"))
                }
                Err(_) => wrong("is not a Postgres URL".to_owned()),
            },
            _ => wrong(format!("has the scheme `{scheme}`, which is not known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match text.parse::<Database>() {
            Ok(Database::Sqlite(path)) => format!("file {}", path.display()),
            Ok(Database::Postgres(postgres)) => format!("{postgres:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_path_and_both_kinds_of_url_are_understood() {
        assert_eq!(parsed("./mcp-fleet.db"), "file ./mcp-fleet.db");
        assert_eq!(parsed("/var/lib/a:b.db"), "file /var/lib/a:b.db");
        assert_eq!(parsed("sqlite:fleet.db"), "file fleet.db");
        assert_eq!(parsed("sqlite:///var/fleet.db"), "file /var/fleet.db");
        assert_eq!(
            parsed("postgresql://me@db.example:5433/fleet"),
            "postgres://me@db.example:5433/fleet"
        );
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let url = "postgres://me:hunter2@db.example/fleet";
        assert_eq!(parsed(url), "postgres://me@db.example:5432/fleet");
        for wrong in [
            "postgres://me:hunter2@db.example:port/fleet",
            "mysql://me:hunter2@db.example/fleet",
        ] {
            let error = parsed(wrong);
            assert!(
                error.contains("MCP_FLEET_DATABASE") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}
