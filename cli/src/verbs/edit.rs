//! `mcpctl edit`: a stored resource -> an editor -> a revision.

mod text;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use clap::Args;
use fleet_proto::{
    key::Key,
    read::Documents,
    v1::{ApplyResponse, GetRequest},
    write::write_yaml,
};
use tempfile::NamedTempFile;
use tonic::Response;

use self::text::{Edited, header};
use crate::{
    args::{AdminFlags, WaitFlags},
    change::{self, How},
    client::{self, Client},
    failure::Failure,
    kinds::{self, Selection},
    output,
};

/// How often it is tried while others write other resources.
const ATTEMPTS: u32 = 10;

/// Flags of `edit`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// `KIND NAME` or `KIND/NAME`, where KIND is backend, gateway, auth-policy or secret.
    #[arg(value_name = "KIND NAME", required = true)]
    what: Vec<String>,
    /// Project of the name; `default` when left out.
    #[arg(long, short, value_name = "NAME")]
    project: Option<String>,
    /// Why; kept with the revision.
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    message: String,
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Edits.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let key = match kinds::select(&flags.what, flags.project.as_deref())? {
        Selection::Keys(mut keys) if keys.len() == 1 => keys.remove(0),
        _ => return Err(Failure::Usage("name one resource: KIND NAME".to_owned())),
    };
    let mut client = client::connect(&flags.admin.resolve()?).await?;
    let editor = editor(|name| std::env::var(name).ok());
    let open = |path: &Path| open(&editor, path);
    let dir = std::env::temp_dir();
    let Some(done) = edit(&mut client, &key, &flags.message, &dir, open).await? else {
        output::note("edit cancelled: nothing is changed");
        return Ok(());
    };
    change::print(&done.changes, done.revision, false)?;
    flags.wait.until_applied(&mut client, &done, &[key]).await
}

/// `$VISUAL`, `$EDITOR`, else `vi`.
fn editor(variable: impl Fn(&str) -> Option<String>) -> String {
    let set = |name| variable(name).filter(|v| !v.trim().is_empty());
    set("VISUAL")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| "vi".to_owned())
}

/// Runs an editor on a file. It may have arguments, so a shell splits them.
fn open(editor: &str, path: &Path) -> Result<(), Failure> {
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$@\""))
        .arg(editor)
        .arg(path)
        .stdin(Stdio::inherit())
        .status()
        .map_err(|e| Failure::other(format!("cannot start the editor {editor:?}: {e}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::other(format!(
        "the editor {editor:?} failed ({status}): name another in $EDITOR"
    )))
}

/// Lets somebody edit a resource until it is good; `None`: they left it as it
/// was. What they wrote is kept in a file when it cannot be applied.
async fn edit(
    client: &mut Client,
    key: &Key,
    message: &str,
    dir: &Path,
    open: impl Fn(&Path) -> Result<(), Failure>,
) -> Result<Option<ApplyResponse>, Failure> {
    let request = GetRequest {
        key: Some(key.to_wire()),
    };
    let stored = client.get(request).await?.into_inner();
    let original = write_yaml(&stored.resource);
    let mut how = How {
        message: message.to_owned(),
        expect_revision: Some(stored.revision),
        ..How::default()
    };
    // Readable by its owner only.
    let file = tempfile::Builder::new()
        .prefix("mcpctl-edit-")
        .suffix(".yaml")
        .tempfile_in(dir)
        .map_err(|e| Failure::other(format!("cannot make a file to edit: {e}")))?;
    let first = header(key, &[]) + &original;
    let mut shown = first.clone();
    loop {
        rewrite(&file, &shown)?;
        if let Err(failure) = open(file.path()) {
            let edited = shown != first;
            return Err(if edited { kept(file, failure) } else { failure });
        }
        let edited = Edited::read(file.path())?;
        if edited.body.trim().is_empty() || edited.body == original {
            return Ok(None);
        }
        let failure = match edited.documents(key) {
            Err(failure) => failure,
            Ok(documents) => match write(client, &documents, &original, &mut how).await {
                Ok(done) => return Ok(Some(done)),
                Err(failure) => failure,
            },
        };
        let Failure::Invalid(lines) = failure else {
            return Err(kept(file, failure));
        };
        // Saved again as it was shown: they give up.
        if edited.whole == shown && shown != first {
            return Err(kept(file, Failure::Invalid(edited.placed(&lines))));
        }
        shown = header(key, &edited.placed(&lines)) + &edited.body;
    }
}

/// Writes on top of the resource as it was when the editor was opened. Whoever
/// has changed it since is not overwritten; changes of others do not matter.
async fn write(
    client: &mut Client,
    documents: &Documents,
    original: &str,
    how: &mut How,
) -> Result<ApplyResponse, Failure> {
    let mut attempt = 1;
    loop {
        let conflict = match change::submit(client, documents, how).await {
            Err(Failure::Conflict(why)) => Failure::Conflict(why),
            done => return done,
        };
        let key = documents.resources().first().and_then(Key::of);
        let request = GetRequest {
            key: key.map(|key| key.to_wire()),
        };
        match client.get(request).await.map(Response::into_inner) {
            Ok(now) if attempt < ATTEMPTS && write_yaml(&now.resource) == original => {
                how.expect_revision = Some(now.revision);
                attempt += 1;
            }
            _ => return Err(conflict),
        }
    }
}

/// Replaces what a file holds.
fn rewrite(file: &NamedTempFile, text: &str) -> Result<(), Failure> {
    let path = file.path();
    std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| Failure::other(format!("cannot write {}: {e}", path.display())))
}

/// Nobody wants to write it twice.
fn kept(file: NamedTempFile, failure: Failure) -> Failure {
    match file.keep() {
        Ok((_, path)) => output::note(&format!("your edit is kept in {}", path.display())),
        Err(e) => output::note(&format!("warning: cannot keep your edit: {e}")),
    }
    failure
}

#[cfg(test)]
mod tests;
