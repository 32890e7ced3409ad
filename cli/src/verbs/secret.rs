//! `mcpctl secret set`: a value from stdin, as a Secret.

use std::io::{self, IsTerminal as _, Read as _};

use clap::{Args, Subcommand};
use fleet_proto::{
    key::{Key, Kind},
    v1::{ApplyRequest, ApplyResponse, GetRequest, Resource, Secret, resource},
};
use tonic::Code;

use crate::{
    args::{AdminFlags, WaitFlags},
    change,
    client::{self, Client},
    failure::Failure,
    values::without_line_break,
};

/// Longest value that is read: more than a Secret may have.
const LONGEST: u64 = 1 << 20;

/// Flags of `secret`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

/// What to do with secrets. `get`, `describe`, `edit` and `delete` take them as well.
#[derive(Debug, Subcommand)]
enum What {
    /// Write the value that comes on stdin, without its last line break, into a secret.
    Set(SetFlags),
}

/// Flags of `secret set`.
#[derive(Debug, Args)]
struct SetFlags {
    /// Its name.
    name: String,
    /// A backend that may use it: a name, or a glob with `*` and `?`. May be repeated. Left out:
    /// those that may use it already.
    #[arg(long = "backend", short, value_name = "GLOB")]
    backends: Vec<String>,
    /// Its project; `default` when left out.
    #[arg(long, short, value_name = "NAME", default_value = "")]
    project: String,
    /// Why; kept with the change.
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    message: String,
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    admin: AdminFlags,
}

/// Does it.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let What::Set(flags) = flags.what;
    let target = flags.admin.resolve()?;
    let value = from_stdin("the value")?;
    let mut client = client::connect(&target).await?;
    let key = Key::new(&flags.project, Kind::Secret, &flags.name);
    let done = set(&mut client, &key, flags.backends, value, flags.message).await?;
    change::print(&done.changes, done.revision, false)?;
    flags.wait.until_applied(&mut client, &done, &[key]).await
}

/// A secret on stdin. Not from a terminal, which would show it.
pub(crate) fn from_stdin(what: &str) -> Result<String, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::Usage(format!(
            "{what} comes on stdin, and a terminal would show it: pipe it in, or use `< FILE`"
        )));
    }
    let mut text = String::new();
    let read = stdin.lock().take(LONGEST).read_to_string(&mut text);
    read.map_err(|e| Failure::Usage(format!("cannot read {what} from stdin: {e}")))?;
    let text = without_line_break(&text);
    if text.is_empty() {
        return Err(Failure::Usage(format!("{what} on stdin is empty")));
    }
    Ok(text.to_owned())
}

async fn set(
    client: &mut Client,
    key: &Key,
    backends: Vec<String>,
    value: String,
    message: String,
) -> Result<ApplyResponse, Failure> {
    let request = GetRequest {
        key: Some(key.to_wire()),
    };
    let (mut secret, expect_revision) = match client.get(request).await {
        Ok(found) => {
            let found = found.into_inner();
            let secret = match found.resource.and_then(|resource| resource.kind) {
                Some(resource::Kind::Secret(secret)) => secret,
                _ => return Err(Failure::other(format!("{key} is no Secret"))),
            };
            (secret, Some(found.revision))
        }
        Err(status) if status.code() == Code::NotFound => {
            if backends.is_empty() {
                return Err(Failure::Usage(format!(
                    "there is no {key} yet: say which backends may use it with --backend"
                )));
            }
            let secret = Secret {
                name: key.name.clone(),
                project: key.project.clone(),
                ..Secret::default()
            };
            (secret, None)
        }
        Err(status) => return Err(status.into()),
    };
    if !backends.is_empty() {
        secret.backends = backends;
    }
    secret.value = value;
    let request = ApplyRequest {
        resources: vec![Resource {
            kind: Some(resource::Kind::Secret(secret)),
        }],
        message,
        expect_revision,
        ..ApplyRequest::default()
    };
    Ok(client.apply(request).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use fleet_proto::v1::Action;

    use super::*;
    use crate::bench::Bench;

    async fn put(
        bench: &mut Bench,
        backends: &[&str],
        value: &str,
    ) -> Result<ApplyResponse, Failure> {
        let key = Key::new("", Kind::Secret, "s");
        let backends = backends.iter().map(ToString::to_string).collect();
        set(
            &mut bench.client,
            &key,
            backends,
            value.to_owned(),
            String::new(),
        )
        .await
    }

    #[tokio::test]
    async fn a_value_is_set_and_the_rest_stays() {
        let mut bench = Bench::new().await;
        let none = put(&mut bench, &[], "one").await.unwrap_err();
        assert_eq!(none.exit_code(), 2);
        let made = put(&mut bench, &["a", "b-*"], "one").await.unwrap();
        assert_eq!(made.changes[0].action(), Action::Created);
        let again = put(&mut bench, &[], "two").await.unwrap();
        assert_eq!((again.changed, again.secrets_version), (false, 2));
        let stored = change::stored(&mut bench.client).await.unwrap();
        let Some(resource::Kind::Secret(secret)) = &stored[0].kind else {
            panic!("{stored:?}");
        };
        assert_eq!((secret.backends.len(), secret.value.as_str()), (2, ""));
        let narrowed = put(&mut bench, &["a"], "two").await.unwrap();
        assert_eq!((narrowed.revision, narrowed.secrets_version), (2, 0));
        bench.stop().await;
    }
}
