//! Noticing that the file has changed, by looking at it: events get lost on
//! network and overlay file systems, and editors replace files in many ways.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use fleet_proto::hash::Hash;

use crate::{
    failure::Failure,
    sources::{self, Source},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Until a change is taken as finished.
const SETTLE: Duration = Duration::from_millis(100);
/// A file system may give two writes within this time the same time stamp.
const TIME_STAMPS: Duration = Duration::from_secs(3);

/// Watches a file or a directory.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    /// The content that was handed out last.
    seen: Content,
    /// Metadata of the last look, and when that was.
    stamp: Option<(Stamp, SystemTime)>,
}

/// Size and time stamp of every file.
type Stamp = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// What a look found: a hash of the content, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Hash(Hash),
    Gone(String),
}

impl Watch {
    /// Watches `path`, whose content so far is known.
    pub(crate) fn new(path: PathBuf, known: &[Source]) -> Self {
        Self {
            path,
            seen: Content::Hash(hash(known)),
            stamp: None,
        }
    }

    /// Waits until the content differs from what was handed out last and has
    /// stopped changing. A half-written file would look like a smaller wish.
    pub(crate) async fn changed(&mut self) -> Result<Vec<Source>, Failure> {
        loop {
            tokio::time::sleep(PAUSE).await;
            if self.is_untouched() {
                continue;
            }
            let mut found = look(self.path.clone()).await;
            while found.0 != self.seen {
                tokio::time::sleep(SETTLE).await;
                let again = look(self.path.clone()).await;
                if again.0 == found.0 {
                    self.seen = again.0;
                    return again.1;
                }
                found = again;
            }
        }
    }

    /// Whether the metadata say that nothing was written since the last look.
    fn is_untouched(&mut self) -> bool {
        let Ok(files) = sources::files(&self.path) else {
            self.stamp = None;
            return false;
        };
        let stamp: Stamp = files
            .into_iter()
            .map(|file| {
                let meta = file.metadata().ok();
                (
                    file,
                    meta.as_ref().map_or(0, std::fs::Metadata::len),
                    meta.and_then(|m| m.modified().ok()),
                )
            })
            .collect();
        let settled = |at: SystemTime| {
            stamp.iter().all(|(_, _, time)| {
                time.is_some_and(|t| at.duration_since(t).is_ok_and(|d| d > TIME_STAMPS))
            })
        };
        let same = self
            .stamp
            .as_ref()
            .is_some_and(|(last, at)| *last == stamp && settled(*at));
        self.stamp = Some((stamp, SystemTime::now()));
        same
    }
}

/// Reads aside: a network file system may take its time.
async fn look(path: PathBuf) -> (Content, Result<Vec<Source>, Failure>) {
    let read = tokio::task::spawn_blocking(move || sources::read(&[path])).await;
    let read = read.unwrap_or_else(|e| Err(Failure::other(format!("cannot read: {e}"))));
    let content = match &read {
        Ok(sources) => Content::Hash(hash(sources)),
        Err(failure) => Content::Gone(failure.to_string()),
    };
    (content, read)
}

fn hash(sources: &[Source]) -> Hash {
    Hash::of(format!("{sources:?}").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{fs, slice};

    use super::*;

    #[tokio::test]
    async fn changes_are_seen_once_and_so_is_a_lost_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "one").unwrap();
        let mut watch = Watch::new(
            path.clone(),
            &sources::read(slice::from_ref(&path)).unwrap(),
        );
        // The same length within the same moment.
        fs::write(&path, "two").unwrap();
        assert_eq!(
            watch.changed().await.unwrap(),
            sources::read(slice::from_ref(&path)).unwrap()
        );
        fs::remove_file(&path).unwrap();
        assert!(watch.changed().await.is_err());
        fs::write(&path, "two").unwrap();
        assert!(watch.changed().await.is_ok());
        let quiet = tokio::time::timeout(Duration::from_millis(1_200), watch.changed()).await;
        assert!(quiet.is_err(), "nothing has changed");
    }
}
