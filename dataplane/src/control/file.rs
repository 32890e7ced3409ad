//! Configuration from a file, without a control plane. The file is watched; a
//! bad one leaves the table as it is and says why.

use std::{path::Path, sync::Arc, time::Duration};

use fleet_proto::{
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
        Ok((documents, set)) => {
            node.secrets
                .store(Arc::new(secrets(&documents, node.settings.allow)));
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

/// The values of the Secrets in a file. One that cannot be resolved is wrong where it
/// is used.
fn secrets(documents: &Documents, allow: Allow) -> Secrets {
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
