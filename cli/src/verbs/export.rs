//! `mcpctl export`: everything that is stored, as files take it.

use clap::{Args, ValueEnum};
use fleet_proto::{
    v1::{ListRequest, Resource},
    write,
};

use crate::{args::AdminFlags, client, failure::Failure, hide, output};

/// Flags of `export`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Only this project.
    #[arg(long, short, value_name = "NAME", default_value = "")]
    project: String,
    /// How to write it.
    #[arg(long, short, value_enum, default_value_t = Form::Yaml)]
    output: Form,
    #[command(flatten)]
    admin: AdminFlags,
}

/// What `apply` takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Documents of a YAML file.
    Yaml,
    /// A list of JSON documents.
    Json,
}

/// Exports.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let mut client = client::connect(&flags.admin.resolve()?).await?;
    let request = ListRequest {
        project: flags.project,
        ..ListRequest::default()
    };
    let resources = client.list(request).await?.into_inner().resources;
    if resources.is_empty() {
        output::note("nothing is stored");
    }
    let secret = resources.iter().filter(|r| hide::has_secret(r)).count();
    if secret > 0 {
        output::note(&format!(
            "warning: {secret} of these hold a token as it was written: keep the output as you keep the token, or write ${{env:NAME}} in its place"
        ));
    }
    output::data(&exported(&resources, flags.output))
}

fn exported(resources: &[Resource], form: Form) -> String {
    match form {
        Form::Yaml => write::write_yaml(resources),
        Form::Json => {
            let values: Vec<_> = resources.iter().map(write::to_json).collect();
            serde_json::to_string_pretty(&values).expect("JSON values serialise")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bench::Bench, change};

    #[tokio::test]
    async fn an_export_applies_to_itself_unchanged() {
        let mut bench = Bench::new().await;
        let stored = bench
            .apply(
                "{ kind: Backend, name: a, labels: { n: '1.10' }, stdio: { command: x, args: ['- y', ''] }, timeout: 1m30s }\n---\n\
                 { kind: Backend, name: b, project: team, http: { url: 'http://127.0.0.1:1/', headers: { X: '${env:A}' } } }\n---\n\
                 { kind: Gateway, name: g, path: /g, auth: staff, separator: '.' }\n---\n\
                 { kind: AuthPolicy, name: staff, bearer: { tokens: [long-enough-token] } }\n",
            )
            .await;
        for form in [Form::Yaml, Form::Json] {
            let resources = change::stored(&mut bench.client).await.unwrap();
            let text = exported(&resources, form);
            assert!(!text.contains("long-enough-token"), "{text}");
            let again = bench.apply(&text).await;
            assert_eq!((again.changed, again.revision), (false, stored.revision));
            assert_eq!(again.changes.len(), 4);
        }
        bench.stop().await;
    }
}
