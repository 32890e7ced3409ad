//! Configuration from a file, without a control plane. The file is watched; a
//! bad one leaves the table as it is and says why.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fleet_proto::{
    hash::Hash,
    key::Key,
    read::{Documents, read_yaml},
    secret::{Name, Value, written},
    v1::resource,
};

use super::apply::apply;
use crate::{
    node::Node, resolve::local, secrets::Secrets, settings::Allow, table::compile::Version,
};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A file that was written less than this before it was read may have been written once more
/// without looking different.
const SETTLED: Duration = Duration::from_secs(2);

/// Applies the file, and again whenever its text changes.
pub(super) async fn follow(node: Arc<Node>, path: &Path) {
    // Of their texts, which need not be kept.
    let (mut applied, mut refused): (Option<Hash>, Option<Hash>) = (None, None);
    let mut looked: Option<Look> = None;
    let mut unreadable = false;
    loop {
        let look = tokio::fs::metadata(path).await.ok().map(Look::of);
        if look.is_none() || !look.as_ref().is_some_and(Look::is_settled) || look != looked {
            match tokio::fs::read_to_string(path).await {
                Ok(text) => {
                    let hash = Some(Hash::of(text.as_bytes()));
                    if hash != applied && hash != refused {
                        if load(&node, path, text).await {
                            (applied, refused) = (hash, None);
                        } else {
                            refused = hash;
                        }
                    }
                    unreadable = false;
                }
                Err(error) if !unreadable => {
                    tracing::error!(file = %path.display(), %error, "configuration cannot be read");
                    unreadable = true;
                }
                Err(_) => {}
            }
            looked = look;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What tells two states of a file apart without reading it.
#[derive(PartialEq)]
struct Look {
    file: (u64, u64),
    length: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

impl Look {
    fn of(file: Metadata) -> Self {
        Self {
            file: (file.dev(), file.ino()),
            length: file.len(),
            modified: file.modified().ok(),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        self.modified
            .and_then(|modified| modified.elapsed().ok())
            .is_some_and(|age| age > SETTLED)
    }
}

/// A large file takes its time: nothing else is to wait for it.
async fn load(node: &Arc<Node>, path: &Path, text: String) -> bool {
    let (node, path) = (node.clone(), path.to_owned());
    let loaded = tokio::task::spawn_blocking(move || load_now(&node, &path, text));
    loaded.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the file could not be applied");
        false
    })
}

fn load_now(node: &Arc<Node>, path: &Path, text: String) -> bool {
    let mut documents = Documents::default();
    read_yaml(&path.display().to_string(), &text, &mut documents);
    match documents.check() {
        Ok((documents, set)) => {
            let secrets = secrets(&documents, &node.settings.allow);
            // The table is made in the room that the text has taken.
            drop((documents, text));
            node.secrets.store(Arc::new(secrets));
            let version = Version {
                lineage: String::new(),
                revision: node.table.load().revision + 1,
            };
            apply(node, version, &set);
            true
        }
        Err(problems) => {
            for problem in problems {
                tracing::error!("{problem}");
            }
            tracing::error!(file = %path.display(), "configuration not applied; what was served before is served on");
            false
        }
    }
}

/// The values of the Secrets in a file. One that cannot be resolved is wrong where it
/// is used.
fn secrets(documents: &Documents, allow: &Allow) -> Secrets {
    let values = documents.documents.iter().filter_map(|document| {
        let Some(resource::Kind::Secret(secret)) = &document.resource.kind else {
            return None;
        };
        let key = Key::of(&document.resource)?;
        let name: Name = (key.project, key.name);
        let value = match secret.value.as_str() {
            "" => Err("the Secret has no `value` in the file".to_owned()),
            text => written(text, |part| local(part, allow)).map(Value::new),
        };
        Some((name, value))
    });
    Secrets::of(values)
}
