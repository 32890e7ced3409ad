//! Where a control plane keeps what it knows.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{forwarder::Forwarder, postgres::Cluster};

/// The key that control planes over Postgres encrypt with: 64 hex digits.
pub(crate) const KEY: &str = "3f8e1d2c4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff0";

/// A kind of database. Each fleet has one of its own.
#[derive(Clone, Copy)]
pub enum Store<'a> {
    /// A file in the fleet's folder.
    Sqlite,
    /// In this cluster.
    Postgres(&'a Cluster),
    /// In this cluster, behind a wire that can be cut.
    Behind(&'a Forwarder, &'a Cluster),
}

impl Store<'_> {
    /// What `--database` says for the fleet with this folder.
    ///
    /// # Errors
    /// The database cannot be made.
    pub async fn database(self, dir: &Path) -> Result<String> {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is text");
        match self {
            Self::Sqlite => text(&dir.join("fleet.db")),
            Self::Postgres(cluster) => {
                let name = dir.file_name().context("the folder has a name")?;
                cluster.database(&name.to_string_lossy()).await
            }
            Self::Behind(forwarder, cluster) => {
                let name = dir.file_name().context("the folder has a name")?;
                let url = cluster.database(&name.to_string_lossy()).await?;
                let port = |port: u16| format!(":{port}/");
                Ok(url.replace(&port(cluster.port()), &port(forwarder.port())))
            }
        }
    }
}
