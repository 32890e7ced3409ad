//! `mcpctl diff`: what `apply` would change, without changing it.

use clap::Args;
use fleet_proto::{
    key::{Key, Kind},
    read::Documents,
    v1::{Action, Resource, resource},
    write::write_yaml,
};
use similar::TextDiff;

use super::apply::SetFlags;
use crate::{
    applyset,
    args::{AdminFlags, FileFlags},
    change::{self, How},
    client::{self, Client},
    failure::Failure,
    hide::{hidden, hidden_pair},
    kinds, output, sources,
};

/// Lines around a change.
const CONTEXT: usize = 3;

/// Flags of `diff`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    files: FileFlags,
    #[command(flatten)]
    set: SetFlags,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Shows the difference; `Told` where there is one.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    // As `diff` does: 1 is an answer, everything that goes wrong is 2.
    match difference(flags).await {
        Ok(text) if text.is_empty() => Ok(()),
        Ok(text) => {
            output::data(&text).map_err(trouble)?;
            Err(Failure::Told)
        }
        Err(failure) => Err(trouble(failure)),
    }
}

fn trouble(failure: Failure) -> Failure {
    Failure::Trouble(Box::new(failure))
}

async fn difference(flags: Flags) -> Result<String, Failure> {
    let mut documents = sources::documents(&sources::read(&flags.files.files)?);
    flags.set.prepare(&mut documents, &flags.files)?;
    let mut client = client::connect(&flags.admin.resolve()?).await?;
    compare(&mut client, &documents, &flags.set).await
}

/// The unified diffs of all documents, in their order, then of what a set loses.
async fn compare(
    client: &mut Client,
    documents: &Documents,
    set: &SetFlags,
) -> Result<String, Failure> {
    let mut gone = Vec::new();
    if let Some(name) = &set.applyset {
        let base = applyset::base(client, documents, name).await?;
        if set.prune {
            gone = base.gone;
        }
    }
    let stored = change::stored(client).await?;
    let kept = stored
        .iter()
        .filter(|r| Key::of(r).is_none_or(|key| !gone.contains(&key)));
    // As it would be stored: with defaults, and hashes for tokens.
    let (_, result) = documents
        .clone()
        .check_with(kept.cloned())
        .map_err(|problems| Failure::Invalid(problems.iter().map(ToString::to_string).collect()))?;
    let find = |key: &Key| stored.iter().find(|r| Key::of(r).as_ref() == Some(key));
    let mut text = String::new();
    for key in documents.resources().iter().filter_map(Key::of) {
        let after = result.get(&key).map(|entry| entry.resource());
        text.push_str(&unified(&key, find(&key), after));
    }
    for key in &gone {
        text.push_str(&unified(key, find(key), None));
    }
    for key in other_values(client, documents, gone).await? {
        let name = kinds::slashed(&key);
        text.push_str(&format!(
            "--- {name}\t(stored)\n+++ {name}\t(files)\n# The value, which is not shown, is another one.\n"
        ));
    }
    Ok(text)
}

/// Stored Secrets that would get another value: only the control plane can tell.
async fn other_values(
    client: &mut Client,
    documents: &Documents,
    remove: Vec<Key>,
) -> Result<Vec<Key>, Failure> {
    let has_value = |resource: &Resource| match &resource.kind {
        Some(resource::Kind::Secret(secret)) => !secret.value.is_empty(),
        _ => false,
    };
    if !documents.resources().iter().any(has_value) {
        return Ok(Vec::new());
    }
    let how = How {
        dry_run: true,
        remove,
        ..How::default()
    };
    let done = change::submit(client, documents, &how).await?;
    let changed = done
        .changes
        .iter()
        .filter(|change| change.action() == Action::Configured);
    let keys = changed.filter_map(|change| Key::from_wire(change.key.as_ref()?));
    Ok(keys.filter(|key| key.kind == Kind::Secret).collect())
}

/// One resource before and after, without secrets; empty where it stays.
fn unified(key: &Key, before: Option<&Resource>, after: Option<&Resource>) -> String {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => {
            let (before, after) = hidden_pair(before, after);
            (Some(before), Some(after))
        }
        (before, after) => (before.map(hidden), after.map(hidden)),
    };
    let name = kinds::slashed(key);
    let side = |resource: &Option<Resource>, what: &str| match resource {
        Some(resource) => (write_yaml([resource]), format!("{name}\t({what})")),
        None => (String::new(), "/dev/null".to_owned()),
    };
    let (old, old_name) = side(&before, "stored");
    let (new, new_name) = side(&after, "files");
    TextDiff::from_lines(old.as_str(), new.as_str())
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&old_name, &new_name)
        .to_string()
}

#[cfg(test)]
mod tests {
    use fleet_proto::read::read_yaml;

    use super::*;
    use crate::bench::Bench;

    const STORED: &str = "kind: Backend\nname: a\nhttp: { url: 'http://127.0.0.1:1/mcp', bearer_token: abc123 }\n---\n\
                          kind: AuthPolicy\nname: staff\nbearer: { tokens: [s3cret-of-staff] }\n";

    async fn diff(bench: &mut Bench, text: &str, set: &SetFlags) -> Result<String, Failure> {
        let mut documents = Documents::default();
        read_yaml("f.yaml", text, &mut documents);
        if let Some(name) = &set.applyset {
            applyset::mark(&mut documents, name)?;
        }
        compare(&mut bench.client, &documents, set).await
    }

    fn no_set() -> SetFlags {
        SetFlags {
            applyset: None,
            prune: false,
            allow_empty: false,
        }
    }

    #[tokio::test]
    async fn a_difference_is_a_patch_without_any_token() {
        let mut bench = Bench::new().await;
        bench.apply(STORED).await;
        assert_eq!(diff(&mut bench, STORED, &no_set()).await.unwrap(), "");
        let changed = STORED
            .replace(":1/mcp", ":2/mcp")
            .replace("abc123", "xyz789")
            .replace("s3cret-of-staff", "an0ther-of-staff");
        let text = diff(&mut bench, &changed, &no_set()).await.unwrap();
        for part in [
            "--- backend/a\t(stored)\n+++ backend/a\t(files)\n@@ ",
            "-  url: http://127.0.0.1:1/mcp\n",
            "+  url: http://127.0.0.1:2/mcp\n",
            "-  bearer_token: \"(hidden, before)\"\n",
            "+++ auth-policy/staff\t(files)\n",
            "sha256:",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        for secret in ["abc123", "xyz789", "s3cret", "an0ther"] {
            assert!(!text.contains(secret), "{text}");
        }
        bench.stop().await;
    }

    #[tokio::test]
    async fn what_comes_and_what_a_set_loses_are_whole_files() {
        let mut bench = Bench::new().await;
        let set = SetFlags {
            applyset: Some("web".to_owned()),
            prune: true,
            allow_empty: true,
        };
        let one =
            |name: &str| format!("kind: Backend\nname: {name}\nhttp: {{ url: 'http://h/' }}\n");
        let mut member = one("old");
        member.push_str("labels: { mcp-fleet/applyset: web }\n");
        bench.apply(&member).await;
        let text = diff(&mut bench, &one("new"), &set).await.unwrap();
        assert!(
            text.contains("--- /dev/null\n+++ backend/new\t(files)\n"),
            "{text}"
        );
        assert!(
            text.contains("--- backend/old\t(stored)\n+++ /dev/null\n"),
            "{text}"
        );
        bench.stop().await;
    }

    #[tokio::test]
    async fn invalid_files_have_no_difference() {
        let mut bench = Bench::new().await;
        let failure = diff(&mut bench, "kind: Backend\nname: a\n", &no_set()).await;
        assert_eq!(trouble(failure.unwrap_err()).exit_code(), 2);
        bench.stop().await;
    }
}
