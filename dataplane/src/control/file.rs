//! Configuration from a file, without a control plane. The file is watched; a
//! bad one leaves the table as it is and says why.

use std::{path::Path, sync::Arc, time::Duration};

use fleet_proto::read::{Documents, read_yaml};

use super::apply::apply;
use crate::{node::Node, table::compile::Version};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Applies the file, and again whenever its text changes.
pub(super) async fn follow(node: Arc<Node>, path: &Path) {
    let mut applied: Option<String> = None;
    let mut refused: Option<String> = None;
    loop {
        match tokio::fs::read_to_string(path).await {
            Ok(text) if applied.as_ref() != Some(&text) && refused.as_ref() != Some(&text) => {
                if load(&node, path, &text) {
                    (applied, refused) = (Some(text), None);
                } else {
                    refused = Some(text);
                }
            }
            Ok(_) => {}
            Err(error) if refused.is_none() => {
                tracing::error!(file = %path.display(), %error, "configuration cannot be read");
                refused = Some(String::new());
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn load(node: &Arc<Node>, path: &Path, text: &str) -> bool {
    let mut documents = Documents::default();
    read_yaml(&path.display().to_string(), text, &mut documents);
    match documents.check() {
        Ok((_, set)) => {
            let revision = node.table.load().revision + 1;
            apply(
                node,
                Version {
                    lineage: String::new(),
                    revision,
                },
                &set,
            );
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
